"""Constraints: what each placement lets the planner choose from."""

from __future__ import annotations

import pytest

from configs.ensemble_schema import PLACEMENTS_NOW
from sharding.constraints import table_constraints
from tests.unit.sharding.world_of_one import plan_for_one, two_member_specs, two_member_task


def test_a_placement_leaves_one_choice_and_auto_leaves_three() -> None:
    found = table_constraints({"a/C1": "row_wise", "a/C2": "auto", "b/C1": "data_parallel"})
    assert {table: wish.sharding_types for table, wish in found.items()} == {
        "a/C1": ["row_wise"],
        "a/C2": ["data_parallel", "table_wise", "row_wise"],
        "b/C1": ["data_parallel"],
    }


def test_column_wise_is_never_chosen_silently() -> None:
    (wish,) = table_constraints({"a/C1": "auto"}).values()
    assert not [kind for kind in wish.sharding_types or [] if "column" in kind or "grid" in kind]


@pytest.mark.parametrize("placement", [name for name in PLACEMENTS_NOW if name != "auto"])
def test_the_planner_obeys(placement: str) -> None:
    specs = two_member_specs()
    plan = plan_for_one(two_member_task(specs), {table.name: placement for table in specs})
    (module_plan,) = plan.plan.values()
    assert {table: sharding.sharding_type for table, sharding in module_plan.items()} == {
        table.name: placement for table in specs
    }


def test_a_word_that_is_no_placement_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="somewhere"):
        table_constraints({"a/C1": "somewhere"})
