"""Shapley values and marginal gains against their definitions."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest

from trainer.analysis.worth.members import Shares, shapley_error
from trainer.analysis.worth.subsets import SubsetPlan, plan_subsets


def made_values(plan: SubsetPlan, *, seed: int) -> np.ndarray:
    """A game with diminishing returns and a little noise; the empty set last."""
    draw = np.random.default_rng(seed)
    strength = 1.0 + 0.3 * draw.random(plan.num_members)
    values = [math.sqrt(sum(strength[member] for member in subset)) for subset in plan.subsets]
    return np.append(np.array(values) + 0.01 * draw.normal(size=len(values)), 0.0)


def by_orders(plan: SubsetPlan, values: np.ndarray) -> np.ndarray:
    """The definition: each member's mean gain over all orders."""
    gains = np.zeros(plan.num_members)
    orders = list(permutations(range(plan.num_members)))
    for order in orders:
        before = values[-1]
        for size, member in enumerate(order, start=1):
            after = values[plan.index(order[:size])]
            gains[member] += (after - before) / len(orders)
            before = after
    return gains


@pytest.mark.parametrize("num_members", [1, 2, 3, 6])
def test_all_subsets_give_the_definition(num_members: int) -> None:
    plan = plan_subsets(num_members, seed=1)
    values = made_values(plan, seed=5)
    shares = Shares.of(plan)
    assert shares.shapley @ values == pytest.approx(by_orders(plan, values), abs=1e-12)
    everyone = plan.index(range(num_members))
    for member, gain in enumerate(shares.leave_one_out @ values):
        rest = [other for other in range(num_members) if other != member]
        assert gain == pytest.approx(values[everyone] - (values[plan.index(rest)] if rest else 0.0), abs=1e-14)
    assert shapley_error(plan, values) is None


@pytest.mark.parametrize("num_members", [4, 14])
def test_values_sum_to_all_minus_none(num_members: int) -> None:
    plan = plan_subsets(num_members, seed=2)
    values = made_values(plan, seed=6) + 3.0
    total = values[plan.index(range(num_members))] - values[-1]
    assert (Shares.of(plan).shapley @ values).sum() == pytest.approx(total, abs=1e-12)


def test_sampled_values_are_about_right_and_say_how_much() -> None:
    draw = np.random.default_rng(4)
    strength = draw.random(12) * 3.0
    apart, errors = [], []
    for seed in range(20):
        plan = plan_subsets(12, seed=seed)
        # Additive, but three that belong together lose 0.6 once all are there; pairs would cancel on any circle.
        lost = [sum({first, first + 1, first + 2} <= set(one) for first in range(0, 12, 3)) for one in plan.subsets]
        value = [sum(strength[list(one)]) - 0.6 * number for one, number in zip(plan.subsets, lost, strict=True)]
        values = np.append(value, 0.0)
        apart.append(Shares.of(plan).shapley @ values - (strength - 0.2))
        error = shapley_error(plan, values)
        assert error is not None
        errors.append(error)
    assert np.abs(np.mean(apart, axis=0)).max() < 4 * np.mean(errors) / math.sqrt(20)  # no bias
    assert np.sqrt(np.mean(np.square(apart))) == pytest.approx(np.mean(errors), rel=0.3)  # as far off as it says


def test_equal_members_are_worth_the_same_however_few_subsets() -> None:
    plan = plan_subsets(13, seed=1)
    values = np.append([math.log(len(one)) for one in plan.subsets], -2.0)
    shapley = Shares.of(plan).shapley @ values
    assert shapley == pytest.approx(np.full(13, (math.log(13) + 2.0) / 13), abs=1e-12)


def test_what_pairs_have_in_common_needs_no_luck() -> None:
    plan = plan_subsets(12, seed=1)  # a circle in both directions has each of two members first as often
    draw = np.random.default_rng(9)
    common = draw.random((12, 12))
    values = np.append([sum(common[one, other] for one in subset for other in subset) for subset in plan.subsets], 0.0)
    wanted = (common.sum(axis=0) + common.sum(axis=1)) / 2
    assert Shares.of(plan).shapley @ values == pytest.approx(wanted, abs=1e-12)
