"""Layers written out value by value in float64, to compare the vectorised ones with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modules.contracts import MemberInput

Vector = NDArray[np.float64]
Module = TypeVar("Module", bound=nn.Module)
BATCH_NORM_EPS = LAYER_NORM_EPS = 1e-5


def unsettled(module: Module) -> Module:
    """The module in float64 and evaluation mode, with no weight or running statistic where it starts.

    Zeros and ones would hide mistakes.
    """
    random = torch.Generator().manual_seed(7)
    module.double().eval()
    for name, value in module.state_dict().items():
        drawn = torch.rand(value.shape, generator=random, dtype=value.dtype)
        value.copy_(0.5 + drawn if name.endswith("running_var") else drawn - 0.5)
    return module


def weights_of(module: nn.Module) -> dict[str, Vector]:
    """The state dict in float64."""
    return {key: value.double().numpy() for key, value in module.state_dict().items()}


def linear(weights: Mapping[str, Vector], name: str, values: Vector) -> Vector:
    """W x + b; b is 0 where the layer has none."""
    matrix = weights[f"{name}.weight"]
    bias = weights.get(f"{name}.bias", np.zeros(len(matrix)))
    return np.array([sum(row[i] * values[i] for i in range(len(values))) + bias[at] for at, row in enumerate(matrix)])


def batch_norm(weights: Mapping[str, Vector], name: str, values: Vector) -> Vector:
    """By running statistics, value by value."""
    mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
    scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return np.array(
        [
            (value - mean[i]) / math.sqrt(variance[i] + BATCH_NORM_EPS) * scale[i] + shift[i]
            for i, value in enumerate(values)
        ]
    )


def normalised(values: Vector) -> Vector:
    """Mean 0 and variance 1."""
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return np.array([(value - mean) / math.sqrt(variance + LAYER_NORM_EPS) for value in values])


def layer_norm(weights: Mapping[str, Vector], name: str, values: Vector) -> Vector:
    """Normalised, each value with a scale and a shift of its own."""
    scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return np.array([value * scale[i] + shift[i] for i, value in enumerate(normalised(values))])


def mlp(
    weights: Mapping[str, Vector],
    name: str,
    values: Vector,
    *,
    num_hidden: int,
    last_linear: bool,
    batch_norms: bool = False,
) -> Vector:
    """Linear, batch norm where wanted and ReLU, repeated, and a last Linear where there is one; no dropout."""
    place = 0
    for _ in range(num_hidden):
        values = linear(weights, f"{name}.{place}", values)
        if batch_norms:
            values = batch_norm(weights, f"{name}.{place + 1}", values)
        values = np.array([max(0.0, value) for value in values])
        place += 3 if batch_norms else 2
    return linear(weights, f"{name}.{place}", values) if last_linear else values


def side_by_side(dense: Vector, embedded: Vector) -> Vector:
    """The dense values and then the embeddings, field by field."""
    return np.array([*dense, *(value for vector in embedded for value in vector)])


def inner(first: Vector, second: Vector) -> float:
    """The inner product."""
    return float(sum(a * b for a, b in zip(first, second, strict=True)))


def rows_of(inputs: MemberInput) -> list[tuple[Vector, Vector, Vector]]:
    """Dense values [N], embeddings [F, D] and first-order weights [F] of each row, in float64."""
    assert inputs.first_order_BF is not None
    return [
        (dense.double().numpy(), embedded.double().numpy(), first.double().numpy())
        for dense, embedded, first in zip(*inputs, strict=True)
    ]


def assert_rows_are(logits: Tensor, expected: Sequence[float], *, atol: float = 1e-11) -> None:
    """The logits are these, and most rows have their own: dead ReLUs would hide what is below them."""
    values = np.array(expected, dtype=np.float64)
    assert len(np.unique(values.round(6))) > len(values) // 2
    np.testing.assert_allclose(logits.detach().numpy(), values, rtol=1e-11, atol=atol)
