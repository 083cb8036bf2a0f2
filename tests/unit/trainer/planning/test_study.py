"""A study's answers, its JSON and its CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import json

import pytest

from tests.support.planned_cases import MIB, MadeUpPlanner, facts, machine, variant
from trainer.planning.plans import Budget, Plans
from trainer.planning.search import Range, Survey
from trainer.planning.study import Asked, Case, StudiedPoint, Study


def study_of(
    *sizes: int, price: float = 0.0, mib: float = 64, hours: float | None = None, purposes=("train", "score")
) -> Study:
    boxes = (machine(mib, price=price), machine(mib * 2, price=price, name="big"))
    ensemble = dataclasses.replace(variant(), swept={"tables.own.dim": 16})
    asked = Asked(
        command="plan it",
        config="planned",
        hardware=boxes,
        purposes=purposes,
        epoch_hours=hours,
        swept={"tables.own.dim": [16], "hardware": ["box", "big"]},
    )
    study = Study(asked=asked, data=facts())
    plans = Plans(MadeUpPlanner(), budget=Budget(max_plans=100, seconds=None))
    for box in boxes:
        for purpose in purposes:
            for size in sizes:
                case = Case(variant=ensemble, hardware=box, purpose=purpose, world_size=size)
                study.points.append(StudiedPoint(case=case, point=plans.point(case), table_bytes=7))
    return study


def test_answers():
    study = study_of(1, 2, 4, 8, price=2.0, hours=0.002)
    chosen = {question: one.point for question, one in study.chosen("train").items()}
    assert chosen["smallest"].world_size == 1
    assert chosen["deadline"].hours <= 0.002 < study.points[1].point.hours
    fitting = [one.point for one in study.of("train")]
    assert chosen["cheapest"].cost == min(point.cost for point in fitting)
    recommended = study.recommended()
    assert recommended is not None and recommended.point is chosen["deadline"]


def test_answers_without_prices_go_by_the_hours_of_all_ranks():
    study = study_of(1, 4)
    cheapest = study.chosen("score")["cheapest"]
    assert cheapest is not None
    assert cheapest.point.device_hours == min(one.point.device_hours for one in study.of("score"))
    assert study.chosen("train")["deadline"] is None  # none is asked for


def test_nothing_fits():
    study = study_of(1, mib=1)
    assert not study.fits("train") and set(study.chosen("train").values()) == {None}
    assert study.recommended() is None
    json.dumps(study.as_json())


def test_plain_values():
    study = study_of(1, 2)
    plain = json.loads(json.dumps(study.as_json()))
    assert (plain["format"], plain["format_version"], plain["command"]) == ("chorus-capacity", 1, "plan it")
    assert plain["data"] == {
        "origin": "made up",
        "train_rows": 1_000_000,
        "score_rows": 100_000,
        "tables": 3,
        "ids_per_row": 6.0,
    }
    assert [one["name"] for one in plain["hardware"]] == ["box", "big"]
    assert plain["swept"] == {"tables.own.dim": [16], "hardware": ["box", "big"]}
    assert len(plain["points"]) == 8
    assert plain["points"][0]["swept"] == {"tables.own.dim": 16} and plain["points"][0]["table_bytes"] == 7
    for purpose in ("train", "score"):
        place = plain["chosen"][purpose]["smallest"]
        assert plain["points"][place]["purpose"] == purpose and plain["points"][place]["world_size"] == 1
        assert plain["chosen"][purpose]["deadline"] is None
    assert "plan" not in plain["points"][0]


def test_csv():
    study = study_of(1, 2, mib=6, price=2.0)
    lines = list(csv.DictReader(io.StringIO(study.as_csv())))
    assert len(lines) == len(study.points) == 8
    refused, fitting = lines[0], next(line for line in lines if line["fits"] == "True")
    assert refused["fits"] == "False" and "not planned" in refused["refused"] and not refused["step_seconds"]
    point = next(one.point for one in study.points if one.point.fits)
    assert point.step is not None and point.cost is not None
    assert fitting["tables.own.dim"] == "16" and fitting["hardware"] == point.hardware
    assert int(fitting["held_bytes"]) == sum(point.held[kind][0] for kind in ("table_weights", "embedding_buffers"))
    assert float(fitting["dense_seconds"]) == point.step.parts["dense"]
    assert float(fitting["cost"]) == point.cost and fitting["bottleneck"] == point.step.bottleneck


def test_points_carry_their_reserve_and_what_a_gpus_host_has_for_them():
    first = study_of(1, purposes=("train",)).as_json()["points"][0]
    assert first["reserve_bytes"] == round(64 * MIB * 0.1)
    assert first["host_room_bytes"] == int(4 * 64 * 100 * MIB * 0.9)  # one rank of a host has all of it


def test_answers_of_each_machine():
    plain = study_of(1, 2, purposes=("train",), price=2.0).as_json()
    for machine_name in ("box", "big"):
        of = plain["chosen_of"]["train"][machine_name]
        assert plain["points"][of["smallest"]]["hardware"] == machine_name and of["deadline"] is None
    assert plain["notes"] == []
    (note,) = study_of(1, purposes=("train",)).as_json()["notes"]
    assert note.startswith("no price is given of box, big: ") and "host.price_per_hour" in note


@pytest.mark.parametrize(("most", "left"), [(1, ["train", "score"]), (2, ["score"]), (4, [])])
def test_what_a_budget_leaves_unfinished(most, left):
    study = study_of(purposes=("train", "score"))
    study.asked = dataclasses.replace(study.asked, hardware=study.asked.hardware[:1])
    plans = Plans(MadeUpPlanner(), budget=Budget(max_plans=most, seconds=None))
    Survey(study, plans=plans, sizes=Range(ranks=(1, 2), most=8)).run([variant()])
    assert study.unfinished() == study.as_json()["unfinished"] == left
