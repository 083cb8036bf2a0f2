"""The curve over sizes, its fit against scipy, and what it leaves out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import curve_fit

from trainer.analysis.worth.size_curve import fit_curve, fit_curves, jackknife_half_width, mean_shares, size_points
from trainer.analysis.worth.subsets import plan_subsets


def test_points_are_those_of_loops() -> None:
    plan = plan_subsets(5, seed=1)
    values = np.random.default_rng(0).random(len(plan.subsets))
    points = size_points(plan, values, best=np.argmin)
    for point in points:
        of_size = {one: values[place] for place, one in enumerate(plan.subsets) if len(one) == point.size}
        assert point.num_subsets == len(of_size) and point.is_whole
        assert point.mean == pytest.approx(np.mean(list(of_size.values())))
        assert point.spread == pytest.approx(np.std(list(of_size.values())))
        assert (point.lowest, point.highest) == (min(of_size.values()), max(of_size.values()))
        assert point.best == min(of_size, key=of_size.__getitem__) and point.best_value == point.lowest
    assert values @ mean_shares(plan) == pytest.approx([point.mean for point in points])
    assert size_points(plan, values, best=np.argmax)[1].best_value == points[1].highest


def test_means_without_a_member_are_those_of_the_others() -> None:
    plan = plan_subsets(5, seed=1)
    values = np.random.default_rng(0).random(len(plan.subsets))
    means = values @ mean_shares(plan, without=2)
    assert len(means) == 4
    for size, mean in enumerate(means, start=1):
        assert mean == pytest.approx(
            np.mean([values[place] for place, one in enumerate(plan.subsets) if len(one) == size and 2 not in one])
        )


@pytest.mark.parametrize(("limit", "scale", "exponent"), [(0.44, 0.03, 1.0), (0.1, 0.5, 0.6), (0.8, -0.02, 1.5)])
def test_a_curve_of_that_form_is_found_again(limit: float, scale: float, exponent: float) -> None:
    sizes = np.arange(1, 9)
    fit = fit_curve(limit + scale / sizes**exponent)
    assert fit.exponent == pytest.approx(exponent, rel=0.005)
    assert fit.limit == pytest.approx(limit, abs=abs(scale) * 0.01)
    assert fit.at(16) == pytest.approx(limit + scale / 16**exponent, abs=abs(scale) * 0.002)
    assert fit.residual < 1e-3 * abs(scale) and not fit.is_at_edge


def test_a_curve_is_found_again_at_sizes_with_gaps() -> None:
    sizes = [1, 2, 4, 8, 16]
    fit = fit_curve(0.44 + 0.03 / np.array(sizes) ** 0.8, sizes=sizes)
    assert fit.exponent == pytest.approx(0.8, rel=0.005) and fit.limit == pytest.approx(0.44, abs=3e-4)


def test_the_fit_is_scipys_least_squares() -> None:
    sizes = np.arange(1, 11)
    noisy = 0.45 + 0.03 / sizes**0.9 + np.random.default_rng(2).normal(0, 2e-4, 10)
    wanted, _ = curve_fit(lambda k, a, b, c: a + b / k**c, sizes, noisy, p0=(0.4, 0.1, 1.0))
    fit = fit_curve(noisy)
    assert fit.limit == pytest.approx(wanted[0], abs=1e-4)
    assert fit.exponent == pytest.approx(wanted[2], rel=0.01)
    residual = np.sqrt(np.mean((noisy - wanted[0] - wanted[1] / sizes ** wanted[2]) ** 2))
    assert fit.residual == pytest.approx(residual, rel=1e-3)


def test_each_row_is_fitted_alone_and_three_sizes_fix_the_exponent() -> None:
    rows = np.array([[3.0, 2.0, 1.6, 1.5], [1.0, 1.5, 1.7, 1.75]])
    limits, scales, exponents, residuals = fit_curves(rows)
    for row, *found in zip(rows, limits, scales, exponents, residuals, strict=True):
        fit = fit_curve(row)
        assert found == [fit.limit, fit.scale, fit.exponent, fit.residual]
    assert fit_curve(np.array([3.0, 2.0, 1.6])).exponent == 1.0
    two = fit_curve(np.array([3.0, 2.0]))
    assert [two.exponent, two.limit, two.scale] == pytest.approx([1.0, 1.0, 2.0])
    with pytest.raises(ValueError, match="1 sizes"):
        fit_curve(np.array([1.0]))


def test_the_jackknife_gives_the_interval_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(size=9)
    without = [float(np.delete(values, place).mean()) for place in range(9)]
    low, high = stats.t.interval(0.95, 8, loc=values.mean(), scale=values.std(ddof=1) / 3)
    assert jackknife_half_width(without) == pytest.approx((high - low) / 2, rel=1e-9)


def test_a_straight_line_is_at_the_edge() -> None:
    assert fit_curve(np.array([5.0, 4.0, 3.0, 2.0, 1.0])).is_at_edge
