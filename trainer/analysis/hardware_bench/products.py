"""Matrix products of linear layers, forward and backward, by shape and precision, and MatmulRate fitted to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import least_squares
from torch import Tensor

from configs.hardware_schema import MATMUL_TYPES, MatmulRate
from trainer.analysis.hardware_bench.device_clock import DeviceClock
from trainer.analysis.hardware_bench.effort import Effort
from trainer.analysis.hardware_bench.points import Fit, Point, fit_of, rounded
from trainer.analysis.hardware_bench.rank_processes import RankHere

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_ROWS = (256, 1024, 4096, 16384)
# Inputs and outputs of a layer, narrow ones and the last one, of a logit, included.
_LAYERS = (
    (13, 512),
    (64, 1),
    (64, 64),
    (64, 256),
    (256, 1),
    (256, 64),
    (256, 256),
    (432, 1024),
    (512, 256),
    (1024, 1),
    (1024, 512),
    (1024, 1024),
    (2048, 2048),
)
_QUICK_ROWS, _QUICK_LAYERS = (256, 1024), ((64, 64), (64, 1), (256, 256))
# Of one product; more says nothing new and takes long.
_MOST_FLOPS = {"cpu": 2.5e9, "cuda": 2e12}
_LEAST_OPS, _FEWEST_POINTS = 2.0, 8
_LEAST_HALF = 0.05  # smaller than any size


def measure_products(here: RankHere, precision: str, effort: Effort) -> list[Point]:
    """A layer's forward product with its bias, and its two backward products, at all shapes.

    `op_seconds` among the sizes is what a product of next to nothing takes: it is paid for every operation, and is
    counted apart (Overheads.op_us).
    """
    here.grow_heap()
    torch.set_float32_matmul_precision("highest")  # no TF32, as training runs
    clock, dtype, points = DeviceClock(here.device), _DTYPES[precision], []
    one = torch.ones(8, 8, device=here.device, dtype=dtype)
    op_seconds = clock.median(lambda: torch.mm(one, one), seconds=effort.seconds, repeats=effort.repeats)
    for num_inputs, num_outputs in _QUICK_LAYERS if effort.quick else _LAYERS:
        for num_rows in _QUICK_ROWS if effort.quick else _ROWS:
            if 2.0 * num_rows * num_inputs * num_outputs > _MOST_FLOPS[here.device.type]:
                continue
            inputs = torch.rand(num_rows, num_inputs, device=here.device).to(dtype)
            weights = torch.rand(num_outputs, num_inputs, device=here.device).to(dtype)
            for name, (m, k, n), product in _layer_products(inputs, weights):
                here.meet()
                seconds = clock.median(product, seconds=effort.seconds, repeats=effort.repeats)
                size = {"m": m, "k": k, "n": n, "op_seconds": op_seconds}
                points.append(Point(what=name, size=size, seconds=(seconds,)))
    return points


def _layer_products(
    inputs: Tensor, weights: Tensor
) -> tuple[tuple[str, tuple[int, int, int], Callable[[], Tensor]], ...]:
    """Name, [m, k] x [k, n], and the product as autograd computes it."""
    (num_rows, num_inputs), num_outputs = inputs.shape, len(weights)
    bias = torch.zeros(num_outputs, device=inputs.device, dtype=inputs.dtype)
    gradient = torch.ones(num_rows, num_outputs, device=inputs.device, dtype=inputs.dtype)
    return (
        ("forward", (num_rows, num_inputs, num_outputs), lambda: F.linear(inputs, weights, bias)),
        ("gradient of inputs", (num_rows, num_outputs, num_inputs), lambda: gradient.mm(weights)),
        ("gradient of weights", (num_outputs, num_rows, num_inputs), lambda: gradient.t().mm(inputs)),
    )


def fit_products(name: str, points: Sequence[Point]) -> tuple[MatmulRate, Fit]:
    """MatmulRate, by least squares of ln(fitted / measured), robust against the odd shape that a library is bad at.

    What a call takes whatever its size is taken off; points that are little else are left out.
    """
    assert name in MATMUL_TYPES, name
    telling = [point for point in points if point.mean_seconds > _LEAST_OPS * point.size["op_seconds"]]
    if len(telling) < _FEWEST_POINTS:
        telling = sorted(points, key=lambda point: -point.mean_seconds)[:_FEWEST_POINTS]
    sizes = np.array([[point.size[key] for key in ("m", "k", "n")] for point in telling])
    measured = np.array([point.mean_seconds for point in telling])
    ops = np.array([point.size["op_seconds"] for point in telling])
    spent = np.maximum(measured - ops, measured / _LEAST_OPS)
    flops = 2.0 * sizes.prod(axis=1)

    def seconds(logs: NDArray[np.float64]) -> NDArray[np.float64]:
        flops_per_s, *halves = np.exp(logs)
        fitted: NDArray[np.float64] = flops / flops_per_s * np.prod(1 + np.array(halves) / sizes, axis=1)
        return fitted

    start = np.log([float((flops / spent).max()), 10.0, 10.0, 10.0])
    found = least_squares(lambda logs: np.log(seconds(logs) / spent), start, loss="soft_l1", f_scale=0.2).x
    tflops, *halves = np.exp(found)
    half_m, half_k, half_n = (rounded(half) if half > _LEAST_HALF else 0.0 for half in halves)
    rate = MatmulRate(tflops=rounded(tflops / 1e12), half_m=half_m, half_k=half_k, half_n=half_n)
    return rate, fit_of(f"products in {name}", telling, seconds(found), spent)
