"""How far predictions move between groups, against figures taken row by row."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from configs.benchmark_schema import Pool
from tests.support.benchmarks import KINDS, SINGLE, made_results
from trainer.benchmark.columns import Results
from trainer.benchmark.stability import MOVED, Stability, stabilities

SEEDS = replace(KINDS, sizes=(1, 4), subsets="any")


@pytest.fixture(scope="module")
def results() -> Results:
    return made_results(
        noises={"deep": 1.0},
        pools={"kinds": Pool(members=("deep",), seeds=4)},
        strategies={"single": SINGLE, "kinds": SEEDS},
        windows=("early", "late"),
    )


@pytest.fixture(scope="module")
def found(results: Results) -> dict[tuple[str, int], Stability]:
    return {(one.strategy, one.size): one for one in stabilities(results)}


def test_changes_are_those_of_the_rows(results: Results, found: dict[tuple[str, int], Stability]) -> None:
    changes = []
    for window in results.rows:
        merged = [
            np.mean(
                [one.logits_N.astype(np.float64) for one in results.of(["kinds"], group=group, window=window)], axis=0
            )
            for group in (1, 2, 3)
        ]
        for one, other in itertools.combinations(merged, 2):
            change_N = np.abs(1 / (1 + np.exp(-one)) - 1 / (1 + np.exp(-other)))
            changes.append((change_N.mean(), (change_N > MOVED).mean(), 1 - spearmanr(one, other).statistic))
    four = found["kinds", 4]
    assert (four.mean_change.value, four.moved_share.value, four.rank_change.value) == pytest.approx(
        np.mean(changes, axis=0)
    )
    assert four.num_pairs == 3


def test_four_trainings_move_half_as_far_as_one(found: dict[tuple[str, int], Stability]) -> None:
    """The noise of trainings is independent, so a mean of four has half of it."""
    share = found["kinds", 4].share_of_members
    assert share.value == pytest.approx(0.5, abs=0.05)
    assert share.low < share.value < share.high and share.high - share.low < 0.2
    assert found["kinds", 4].share_of_single.value == pytest.approx(share.value)
    assert found["single", 1].share_of_single.value == pytest.approx(1.0)
    assert found["kinds", 4].rank_change.high < found["single", 1].rank_change.low


def test_three_groups_tell_how_sure_it_is_and_two_do_not() -> None:
    two = stabilities(made_results(groups=2))
    assert {(one.strategy, one.size) for one in two} == {("single", 1), ("kinds", 1), ("kinds", 2), ("kinds", 3)}
    assert all(one.mean_change.value > 0 and math.isnan(one.mean_change.low) for one in two)
    assert all(one.num_pairs == 1 for one in two)


def test_one_group_tells_nothing() -> None:
    assert stabilities(made_results(groups=1)) == []


def test_trainings_that_end_alike_do_not_move() -> None:
    made = made_results(groups=3)
    same = {one.member: one.logits_N for one in made.columns if one.group == 1}
    columns = tuple(replace(one, logits_N=same[one.member]) for one in made.columns)
    found = stabilities(replace(made, columns=columns))
    assert all(one.mean_change.value == one.moved_share.value == 0 for one in found)
    assert all(one.rank_change.value == pytest.approx(0) and math.isnan(one.share_of_single.value) for one in found)
