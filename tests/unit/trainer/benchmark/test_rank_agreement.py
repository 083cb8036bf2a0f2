"""Rank correlations over subsets that share members: their values, and intervals that know of the sharing."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from trainer.benchmark.rank_agreement import Cell, RankAgreement

PAIRS = list(itertools.combinations(range(8), 2))
HOLDS = np.array([[unit in pair for unit in range(8)] for pair in PAIRS])


def cell(measures: np.ndarray, gains: np.ndarray) -> Cell:
    return Cell(measures_SP=measures, gains_SQ=gains, holds_SU=HOLDS)


def of_members(random: np.random.Generator) -> np.ndarray:
    """A value of each pair that its members decide, but for a little."""
    of_unit = random.normal(size=8)
    return np.array([of_unit[list(pair)].sum() for pair in PAIRS])[:, None] + 0.3 * random.normal(size=(len(PAIRS), 1))


def test_it_is_spearmans_averaged_over_cells() -> None:
    random = np.random.default_rng(1)
    cells = [cell(random.normal(size=(28, 2)), random.normal(size=(28, 3))) for _ in range(2)]
    found = RankAgreement.of(cells)
    for measure, gain in itertools.product(range(2), range(3)):
        expected = [spearmanr(one.measures_SP[:, measure], one.gains_SQ[:, gain]).statistic for one in cells]
        assert found.interval(measure, gain).value == pytest.approx(np.mean(expected))


def test_without_a_unit_no_subset_that_holds_it_counts() -> None:
    random = np.random.default_rng(2)
    one = cell(of_members(random), of_members(random))
    found = RankAgreement.of([one])
    assert found.without_UPQ is not None
    kept = [place for place, pair in enumerate(PAIRS) if 3 not in pair]
    expected = spearmanr(one.measures_SP[kept, 0], one.gains_SQ[kept, 0]).statistic
    assert found.without_UPQ[3, 0, 0] == pytest.approx(expected)


def test_intervals_hold_zero_as_often_as_they_should_where_members_alone_decide() -> None:
    """Measure and gain follow from members and have nothing to do with each other."""
    random, covered, naive = np.random.default_rng(3), 0, 0
    for _ in range(120):
        found = RankAgreement.of([cell(of_members(random), of_members(random))]).interval(0, 0)
        covered += found.low <= 0 <= found.high
        naive += abs(found.value) <= 1.96 / math.sqrt(len(PAIRS) - 1)
    assert naive < 0.8 * 120 < 0.9 * 120 < covered


def test_few_subsets_without_a_unit_give_no_interval() -> None:
    random = np.random.default_rng(4)
    held = np.array([[True, place % 2 == 0] for place in range(9)])  # all hold the first
    found = RankAgreement.of(
        [Cell(measures_SP=random.normal(size=(9, 1)), gains_SQ=random.normal(size=(9, 1)), holds_SU=held)]
    )
    interval = found.interval(0, 0)
    assert found.without_UPQ is None and math.isnan(interval.low) and not math.isnan(interval.value)


def test_what_never_changes_has_no_correlation() -> None:
    found = RankAgreement.of([cell(np.ones((28, 1)), np.random.default_rng(5).normal(size=(28, 1)))])
    assert math.isnan(found.interval(0, 0).value) and math.isnan(found.interval(0, 0).high)
