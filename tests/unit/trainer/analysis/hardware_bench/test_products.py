"""Products: their shapes are those of a linear layer's passes, and a planted rate is found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.unit.trainer.analysis.hardware_bench.here import QUICK, alone
from trainer.analysis.hardware_bench.points import Point
from trainer.analysis.hardware_bench.products import _layer_products, fit_products, measure_products

OP_SECONDS = 3e-6


def planted(tflops: float, halves: tuple[float, float, float], noise: float) -> list[Point]:
    random, points = np.random.default_rng(5), []
    for m in (256, 1024, 4096):
        for k in (1, 16, 64, 512):
            for n in (1, 64, 256, 1024):
                slower = np.prod([1 + half / size for half, size in zip(halves, (m, k, n), strict=True)])
                seconds = 2 * m * k * n / (tflops * 1e12) * slower * np.exp(random.normal(0, noise)) + OP_SECONDS
                size = {"m": float(m), "k": float(k), "n": float(n), "op_seconds": OP_SECONDS}
                points.append(Point(what="forward", size=size, seconds=(float(seconds),)))
    return points


def test_a_planted_rate_is_found() -> None:
    rate, fit = fit_products("fp32", planted(0.08, (200.0, 12.0, 5.0), 0.05))
    assert rate.tflops == pytest.approx(0.08, rel=0.1)
    assert (rate.half_m, rate.half_k, rate.half_n) == pytest.approx((200, 12, 5), rel=0.15)
    assert fit.median_error < 0.1


def test_one_odd_shape_does_not_spoil_the_others() -> None:
    points = planted(0.08, (200.0, 12.0, 5.0), 0.0)
    points[20] = Point(what="odd", size=points[20].size, seconds=(points[20].mean_seconds * 40,))
    rate, fit = fit_products("fp32", points)
    assert rate.tflops == pytest.approx(0.08, rel=0.1)
    assert fit.worst_point.startswith("odd")


def test_a_size_that_does_not_matter_is_none() -> None:
    rate, _ = fit_products("bf16", planted(1.0, (0.0, 30.0, 0.0), 0.0))
    assert (rate.half_m, rate.half_n) == (0.0, 0.0)
    assert rate.half_k == pytest.approx(30, rel=0.05)


def test_the_products_are_those_of_the_layer() -> None:
    inputs, weights = torch.rand(5, 3), torch.rand(2, 3)
    names = []
    for name, (m, k, n), product in _layer_products(inputs, weights):
        names.append(name)
        assert product().shape == (m, n)
        assert m * k * n == 5 * 3 * 2
    assert names == ["forward", "gradient of inputs", "gradient of weights"]


def test_all_shapes_are_measured() -> None:
    points = measure_products(alone(), "fp32", QUICK)
    assert len(points) == 3 * 2 * 3
    assert all(point.mean_seconds > 0 for point in points)
    rate, _ = fit_products("fp32", points)
    assert 1e-4 < rate.tflops < 100
