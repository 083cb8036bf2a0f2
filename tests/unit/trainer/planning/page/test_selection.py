"""Which points belong in one picture."""

from __future__ import annotations

import pytest

from tests.support.made_capacity import A100, H100, made_study
from trainer.planning.page import selection
from trainer.planning.page.selection import RANKS


def test_dimensions_and_panels() -> None:
    points = selection.points_of(made_study(), "train")
    assert selection.dimensions(points) == ["hardware", "ranks", "members", "tables"]
    panels = selection.panels(points, along=["members", "ranks"])
    assert [tuple(panel.held.values()) for panel in panels] == [
        (machine.name, tables) for machine in (A100, H100) for tables in ("shared", "own")
    ]
    for panel in panels:
        places = [(point["num_members"], point["world_size"]) for point in panel.points]
        assert places == [(members, ranks) for members in (1, 2, 4, 8) for ranks in (2, 4, 8, 16, 32)]


def test_members_are_found_whatever_their_key_is_called() -> None:
    study = made_study(swept={"tables": ["shared", "own"], "members": [1, 2]})
    assert selection.member_key(study["points"]) == "members"
    only = made_study(swept={"tables": ["shared", "own"]})["points"]
    assert selection.member_key(only) is None and selection.main_key(only) == "tables"
    assert selection.main_key(made_study(swept={})["points"]) is None


def test_values_that_are_lists() -> None:
    points = made_study(machines=(H100,), ranks=(8,), swept={"hidden": [[8, 4], [4]]}, purposes=("train",))["points"]
    assert selection.values(points, "hidden") == ["[8, 4]", "[4]"]
    assert len(selection.panels(points, along=[RANKS])) == 2


def test_numbers_come_in_their_order_and_words_in_the_study_s() -> None:
    points = made_study(machines=(H100,), ranks=(16, 4, 8), swept={"tables": ["shared", "own"]})["points"]
    assert selection.values(points, RANKS) == [4, 8, 16]
    assert selection.values(points, "tables") == ["shared", "own"]


@pytest.mark.parametrize(("members", "ranks"), [([1], 4), ([1, 2, 4, 8], 16), ([64], 32)])
def test_ranks_on_which_most_fits(members: list[int], ranks: int) -> None:
    swept = {"members": members, "tables": ["own"]}
    points = made_study(machines=(A100,), swept=swept, purposes=("train",))["points"]
    [panel] = selection.panels(points, along=["members", RANKS])
    kept = selection.best_ranks(panel)
    assert kept.held == {RANKS: ranks}
    assert [point["world_size"] for point in kept.points] == [ranks] * len(members)


def test_panels_near_to_the_answer_come_first() -> None:
    study = made_study(purposes=("train",))
    panels = selection.panels(study["points"], along=[RANKS])
    answer = next(point for point in study["points"] if point["swept"] == {"members": 4, "tables": "own"})
    first, second, *_ = selection.nearest_first(panels, [answer])
    assert first.held == {"hardware": A100.name, "members": 4, "tables": "own"}
    assert second.held == {"hardware": A100.name, "members": 8, "tables": "own"}


def test_bytes_of_the_fullest_rank() -> None:
    point = dict(next(point for point in made_study()["points"] if point["fits"] and point["world_size"] == 2))
    point["held_bytes_per_rank"] = {"table_weights": [30, 10], "activations": [5, 40], "reserve": [7, 7]}
    point["capacity_bytes"] = 114
    assert selection.fullest(point) == 1
    assert selection.held_bytes(point) == {"table_weights": 10, "activations": 40, "reserve": 7}
    assert selection.taken_bytes(point) == 50
    assert selection.filled(point) == 0.5


def test_a_refused_point_is_filled_by_what_it_would_need() -> None:
    refused = next(point for point in made_study()["points"] if not point["fits"])
    assert selection.held_bytes(refused) == {}
    filled = selection.filled(refused)
    assert filled is not None and filled > 1
    assert filled == refused["refusal"]["need_bytes"] / refused["refusal"]["capacity_bytes"]


def test_cost_compares_only_where_all_have_one() -> None:
    priced = [point for point in made_study()["points"] if point["fits"]][:2]
    assert selection.cheaper(priced)(priced[0]) == priced[0]["cost"]
    mixed = [priced[0], dict(priced[1]) | {"cost": None}]
    assert selection.cheaper(mixed)(priced[0]) == priced[0]["device_hours"]


@pytest.mark.parametrize(
    ("where", "need", "there", "told"),
    [
        ("device", 120, 100, (105, 85)),  # all of a rank, the reserve with it
        ("planner", 60, 50, (95, 85)),  # tables, against what all else leaves them
        ("planner", 0, 100, (None, 85)),  # nobody has added it up
        ("host", 300, 200, (300, 200)),  # of a GPU's host
    ],
)
def test_need_and_room_are_without_the_reserve(where, need, there, told) -> None:
    refusal = {"where": where, "need_bytes": need, "capacity_bytes": there}
    assert selection.needed({"capacity_bytes": 100, "reserve_bytes": 15, "refusal": refusal}) == told


def test_need_of_what_fits_is_what_the_sentence_tells() -> None:
    for point in made_study(purposes=("train",))["points"]:
        need, room = selection.needed(point)
        assert room == point["capacity_bytes"] - point["reserve_bytes"]
        assert (need <= room) == point["fits"] and (not point["fits"] or need == selection.taken_bytes(point))
