"""Fits find rates that were planted, through noise, and say how well they did."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.analysis.hardware_bench.points import Fit, Point, fit_seconds, of_all_ranks, rounded

NOISE = np.random.default_rng(3)


def points_of(columns: np.ndarray, rates: list[float], noise: float) -> list[Point]:
    factors = np.exp(NOISE.normal(0, noise, len(columns)))
    return [Point(what="p", size={"n": float(n)}, seconds=(s,)) for n, s in enumerate(columns @ rates * factors)]


def test_planted_rates_are_found_small_points_and_large_ones_alike() -> None:
    sizes = np.logspace(0, 8, 60)
    columns = np.stack([np.ones_like(sizes), sizes], axis=1)
    found, fit = fit_seconds("wire", points_of(columns, [2e-4, 1e-9], 0.1), columns)
    # A fit of absolute errors would miss the first by far: the largest points take a thousand times as long.
    assert found == pytest.approx([2e-4, 1e-9], rel=0.08)
    assert 0.01 < fit.median_error < 0.15
    assert fit.is_good


def test_scatter_does_not_make_rates_look_fast() -> None:
    columns = np.ones((4_000, 1))
    ((second,), _) = fit_seconds("noisy", points_of(columns, [1.0], 0.7), columns)
    assert second == pytest.approx(1.0, rel=0.05)  # least squares of the relative error give 0.5


def test_a_term_that_is_not_there_is_zero_and_none_is_negative() -> None:
    rows = NOISE.uniform(1, 10, (50, 3))
    found, fit = fit_seconds("terms", points_of(rows, [1.0, 0.0, 3.0], 0.0), rows)
    assert found == pytest.approx([1, 0, 3], abs=1e-6)
    assert fit.worst_error < 1e-6
    falling = np.stack([np.ones(20), np.arange(20.0)], axis=1)
    found, _ = fit_seconds("falling", points_of(falling, [30.0, -1.0], 0.0), falling)
    assert (found >= 0).all()


def test_a_bad_fit_names_its_worst_point() -> None:
    columns = np.ones((3, 1))
    points = [Point(what="p", size={"n": n}, seconds=(seconds,)) for n, seconds in ((1, 1.0), (2, 1.0), (3, 50.0))]
    _, fit = fit_seconds("steps", points, columns)
    assert not fit.is_good
    assert fit.sentence().startswith("steps: off by ")
    assert "(p n 1)" in fit.sentence() or "(p n 3)" in fit.sentence()


def test_a_fit_is_bad_in_the_middle_or_at_its_worst() -> None:
    def fit(median: float, worst: float) -> Fit:
        return Fit(name="f", num_points=9, median_error=median, worst_error=worst, worst_point="p")

    assert fit(0.1, 0.5).is_good
    assert not fit(0.4, 0.5).is_good
    assert not fit(0.1, 3.0).is_good


def test_ranks_are_put_together_point_by_point() -> None:
    first = [Point(what="a", size={"n": 1}, seconds=(1.0,)), Point(what="b", size={"n": 4}, seconds=(2.0,))]
    other = [Point(what="a", size={"n": 3}, seconds=(3.0,)), Point(what="b", size={"n": 4}, seconds=(6.0,))]
    merged = of_all_ranks([first, other])
    assert [(point.what, dict(point.size), point.seconds) for point in merged] == [
        ("a", {"n": 2}, (1.0, 3.0)),
        ("b", {"n": 4}, (2.0, 6.0)),
    ]
    assert [point.mean_seconds for point in merged] == [2.0, 4.0]


def test_four_digits_are_kept() -> None:
    assert (rounded(123456.0), rounded(0.000123456), rounded(0.0)) == (123500.0, 0.0001235, 0.0)
