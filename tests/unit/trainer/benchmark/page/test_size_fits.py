"""Size fits: which strategies have one, at which sizes, and when a limit is told."""

from __future__ import annotations

import pytest

from tests.support.benchmarks import made_results
from trainer.benchmark.columns import MergedCost
from trainer.benchmark.page.size_fits import fits_table, size_fits
from trainer.benchmark.points import Figures, Point
from trainer.benchmark.report import Report

COST = MergedCost(parameters=1, table_bytes=1, multiply_adds=1)


def report_of(losses: dict[int, float]) -> Report:
    points = [
        Point(
            strategy="kinds",
            size=size,
            groups=(Figures(auc=1.0 - loss, log_loss_nats=loss, ne=0.9, calibration=1.0),),
            cost=COST,
            num_subsets=1,
        )
        for size, loss in losses.items()
    ]
    return Report(results=made_results(num_rows=50), points=points, num_trainings=1, machine="")


def test_a_curve_is_found_again_at_sizes_with_gaps() -> None:
    fits = size_fits(report_of({size: 0.45 + 0.03 / size for size in (1, 2, 4, 8, 16)}))
    assert [fit.metric for fit in fits] == ["auc", "log_loss_nats"]
    loss = fits[1]
    assert loss.curve.limit == pytest.approx(0.45, abs=1e-4) and loss.curve.exponent == pytest.approx(1.0, rel=0.01)
    assert loss.tells_limit
    assert "0.450" in fits_table(report_of({}), fits)


def test_three_sizes_have_no_fit() -> None:
    report = report_of({1: 0.5, 2: 0.4, 4: 0.35})
    assert size_fits(report) == [] and fits_table(report, []) == ""


@pytest.mark.parametrize(
    "losses",
    [
        {size: 0.45 + 0.03 / size**0.3 for size in (1, 2, 4, 8)},  # far from its limit
        {1: 0.50, 2: 0.44, 4: 0.47, 8: 0.41},  # far from any curve
    ],
)
def test_a_limit_that_means_little_is_not_told(losses: dict[int, float]) -> None:
    fits = size_fits(report_of(losses))
    assert not fits[1].tells_limit
    assert fits_table(report_of(losses), fits).count("not told") == 2
