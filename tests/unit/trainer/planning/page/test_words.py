"""Sentences and figures of a study."""

from __future__ import annotations

import pytest

from tests.support.made_capacity import A100, CPU, H100, made_study
from trainer.planning import capacity_point
from trainer.planning.page import words


def test_every_kind_and_part_has_a_name() -> None:
    assert tuple(words.KINDS) == capacity_point.HELD
    assert tuple(words.PHASES) == capacity_point.PHASES


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (words.size(0), "0 B"),
        (words.size(1536), "1.5 KiB"),
        (words.size(80 * 2**30), "80.0 GiB"),
        (words.size(3 * 2**40), "3.0 TiB"),
        (words.rate(1_240_000), "1.24 M rows/s"),
        (words.rate(999_800), "1 M rows/s"),
        (words.rate(3.2e15), "3,200 T rows/s"),
        (words.rate(52.34), "52.3 rows/s"),
        (words.duration(2.314), "2.31 hours"),
        (words.duration(412.4), "412 hours"),
        (words.duration(0.25), "15 min"),
        (words.duration(0.005), "18 s"),
        (words.seconds(0.0123), "12.3 ms"),
        (words.seconds(4e-5), "40 µs"),
        (words.money(None), "–"),
        (words.money(12.345), "12.35"),
        (words.many(1, "rank"), "1 rank"),
        (words.many(1024, "rank"), "1,024 ranks"),
    ],
)
def test_figures(told: str, expected: str) -> None:
    assert told.replace("\u00a0", " ") == expected


def test_the_answer() -> None:
    study = made_study(purposes=("train",))
    verdict, sentences = words.conclusion(study)
    point = study["points"][study["chosen"]["train"]["smallest"]]
    assert verdict == "ahead"
    kind, lead = sentences[0]
    assert kind == "lead" and lead.startswith("Training, smallest that fits")
    assert f"{point['world_size']} GPUs of {point['hardware']}" in lead and "members 8, tables own" in lead
    told = " ".join(sentence for _, sentence in sentences).replace("\u00a0", " ")
    assert "limited by communication" in told and "most of all table weights, 48.5 GiB" in told
    nearest = [
        one
        for one in study["points"]
        if one["swept"] == point["swept"] and one["hardware"] == H100.name and one["world_size"] == 8
    ]
    assert f"On 8 ranks it does not fit: {nearest[0]['refusal']['sentence']}." in told


def test_one_point_answers_several_questions_at_once() -> None:
    study = made_study(machines=(H100,), ranks=(16,), purposes=("train",))
    place = len(study["points"]) - 1
    study["chosen"]["train"] = {"smallest": place, "deadline": place, "cheapest": place}
    leads = [sentence for kind, sentence in words.conclusion(study)[1] if kind == "lead"]
    assert len(leads) == 1
    assert leads[0].startswith("Training, smallest that fits, smallest within the deadline and cheapest: 16 GPUs")


def test_without_prices_for_all_the_cheapest_takes_the_fewest_hours() -> None:
    study = made_study(machines=(H100, CPU), swept={}, purposes=("train",))
    _, sentences = words.conclusion(study)
    told = " ".join(sentence for _, sentence in sentences)
    assert "fewest GPU-hours" in told or "fewest rank-hours" in told
    assert "cheapest" not in told


def test_nothing_fits() -> None:
    swept = {"tables": ["own"]}
    study = made_study(machines=(A100,), ranks=(1, 2), swept=swept, purposes=("train",), with_more=False)
    verdict, sentences = words.conclusion(study)
    assert verdict == "behind"
    assert sentences[0] == ("lead", "Training: nothing that was tried fits.")
    assert sentences[1][1].startswith("Nearest is 2 GPUs of A100 40GB x8 (1 host): ")
    assert study["points"][1]["refusal"]["sentence"] in sentences[1][1]


def test_a_deadline_that_nothing_meets() -> None:
    study = made_study(purposes=("train",)) | {"deadline_hours": 0.01}
    study["chosen"]["train"]["deadline"] = None
    verdict, sentences = words.conclusion(study)
    assert verdict == "unclear"
    fastest = min((one for one in study["points"] if one["fits"]), key=lambda one: one["hours"])
    last = sentences[-1][1].replace("\u00a0", " ")
    assert "nothing that was tried meets the deadline of 36 s" in last and words.machines(fastest) in last


def test_stopped_before_an_answer() -> None:
    study = made_study(machines=(A100,), ranks=(1,), swept={"tables": ["own"]}, purposes=("train",), with_more=False)
    study["chosen"]["score"] = {}
    study["unfinished"] = ["train", "score"]
    verdict, sentences = words.conclusion(study)
    leads = [sentence for kind, sentence in sentences if kind == "lead"]
    assert verdict == "behind"
    assert leads == ["Training: stopped before an answer.", "Scoring: stopped before an answer."]


def test_the_answers_of_each_machine() -> None:
    study = made_study(machines=(H100, CPU), ranks=(16, 32), swept={"tables": ["shared"]}, purposes=("score",))
    places = study["chosen_of"]["score"]
    told = " ".join(sentence for _, sentence in words.conclusion(study)[1])
    for machine in (H100, CPU):
        point = study["points"][places[machine.name]["smallest"]]
        assert words.machines(point) in told
    assert f"Of {CPU.name} alone, smallest that fits" in told
    assert words.of_machines(made_study(machines=(H100,)), "train") == []


def test_words_of_what_is_planned_for() -> None:
    assert (
        words.state_of(["train", "score"]) == "weights and optimizer state" and words.state_of(["score"]) == "weights"
    )
    study = made_study(purposes=("score",)) | {"data": {"train_rows": 7, "score_rows": 1}}
    assert words.rows_of(study) == "1 row to score"
