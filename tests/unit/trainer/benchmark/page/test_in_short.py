"""In short: each sentence says what its figures say, whichever way they go."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from configs.benchmark_schema import Published
from tests.support.benchmarks import made_results
from trainer.analysis.intervals import Estimate, Interval
from trainer.benchmark.columns import MergedCost
from trainer.benchmark.comparisons import Comparison
from trainer.benchmark.page.in_short import differing, in_short
from trainer.benchmark.page.singles import singles
from trainer.benchmark.points import Figures, Point
from trainer.benchmark.report import Report


def point(strategy: str, size: int, figures: list[tuple[float, float]], *, cost: int = 1_000) -> Point:
    groups = tuple(Figures(auc=auc, log_loss_nats=loss, ne=0.9, calibration=1.0) for auc, loss in figures)
    given = MergedCost(parameters=2 * cost, table_bytes=cost, multiply_adds=cost)
    return Point(strategy=strategy, size=size, groups=groups, cost=given, num_subsets=1)


SINGLE = point("single", 1, [(0.700, 0.600), (0.701, 0.601), (0.702, 0.602)])
BETTER = [(0.750, 0.550), (0.752, 0.552), (0.753, 0.551)]
WORSE = [(0.650, 0.650), (0.651, 0.652), (0.652, 0.653)]


def said(*points: Point, comparisons: tuple[Comparison, ...] = (), **changes: Any) -> str:
    results = made_results(num_rows=200, groups=len(SINGLE.groups), **changes)
    report = Report(
        results=results, points=[SINGLE, *points], num_trainings=9, machine="a machine", comparisons=comparisons
    )
    return " ".join(in_short(report, singles(report)))


def interval(value: float, half: float) -> Interval:
    return Interval(value=value, low=value - half, high=value + half)


@pytest.mark.parametrize(
    ("auc", "log_loss", "wanted"),
    [
        (interval(0.01, 0.005), interval(-0.02, 0.01), "better in both, and both intervals exclude zero"),
        (interval(-0.01, 0.005), interval(0.02, 0.01), "worse in both, and both intervals exclude zero"),
        (interval(0.01, 0.005), interval(0.02, 0.01), "better in AUC and worse in the other"),
        (interval(-0.01, 0.005), interval(-0.02, 0.01), "better in log loss and worse in the other"),
        (interval(0.01, 0.005), interval(-0.02, 0.03), "better in AUC, whose interval excludes zero; the other holds"),
        (interval(-0.01, 0.05), interval(0.02, 0.01), "worse in log loss, whose interval excludes zero; the other"),
        (interval(0.01, 0.05), interval(-0.02, 0.03), "both intervals hold zero"),
        (interval(0.01, math.nan), interval(-0.02, math.nan), "one group of trainings, so no interval"),
    ],
)
def test_a_difference_is_told_by_sign_and_interval(auc: Interval, log_loss: Interval, wanted: str) -> None:
    assert wanted in differing(auc, log_loss)


def test_a_merge_that_gains_and_one_that_loses() -> None:
    better = said(point("kinds", 3, BETTER, cost=3_500))
    assert "*K kinds*, 3 predictions merged, has AUC 0.75167" in better
    assert "AUC +0.05067" in better and "better in both, and both intervals exclude zero" in better
    assert "3.5 times the multiply-adds and 3.5 times the parameters of one model" in better
    assert "No other strategy here, at any size, has a lower log loss." in better
    worse = said(point("kinds", 3, WORSE))
    assert "AUC −0.05000" in worse and "worse in both, and both intervals exclude zero" in worse
    assert "*one model* has the lowest log loss, 0.60100 nats" in worse


def test_the_headline_is_its_largest_size() -> None:
    text = said(point("kinds", 3, WORSE), point("kinds", 2, BETTER))
    assert "*K kinds*, 3 predictions merged, has AUC 0.65100" in text
    assert "*K kinds*, 2 predictions merged, has the lowest log loss, 0.55100 nats" in text


def test_the_best_single_member_is_that_of_the_highest_auc() -> None:
    results = made_results(noises={"dot": 1.5, "deep": 0.5, "cross": 1.2})
    report = Report(results=results, points=[SINGLE], num_trainings=9, machine="a machine")
    text = in_short(replace(report, points=[SINGLE, point("kinds", 3, BETTER)]), singles(report))[0]
    assert text.startswith("Of 3 single members **deep** has the highest AUC, 0.")
    assert "mean of 3 groups of trainings" in text


def test_members_are_counted_against_what_is_published() -> None:
    results = made_results(num_rows=200)
    report = Report(results=results, points=[SINGLE], num_trainings=9, machine="a machine")
    ours = {one.member: one.mean("auc") for one in singles(report)}
    published = {
        "deep": Published(auc=ours["deep"] - 0.002),
        "cross": Published(auc=ours["cross"] + 0.0005),
        "dot": Published(auc=ours["dot"] + 0.003),
    }
    text = said(point("kinds", 3, BETTER), published=published)
    assert "1 of 3 members with a published AUC reach it, 2 come within 0.0010 of it or reach it" in text
    assert "(not dot (−0.00300))" in text
    best = max(published, key=lambda name: published[name].auc)
    gap = 0.7516667 - published[best].auc
    assert f"{abs(gap):.4f} {'above' if gap > 0 else 'below'} the best published one ({best}," in text
    assert "published" not in said(point("kinds", 3, BETTER))


def test_single_members_by_name_are_left_to_the_table() -> None:
    clear = Comparison(
        what="K kinds, K = 3",
        against="gradient boosting",
        auc=Estimate(value=-0.01, standard_error=0.001),
        log_loss_nats=Estimate(value=0.02, standard_error=0.001),
    )
    text = said(point("kinds", 3, BETTER), comparisons=(clear, replace(clear, against="cross")))
    assert "to the gradient boosting, on the same rows, is AUC −0.01000 ± 0.00196" in text
    assert text.count("on the same rows") == 1
