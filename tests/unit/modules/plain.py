"""Layers written out value by value in float64, to compare the vectorised ones with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import nn

from modules.contracts import MemberInput

Vector = NDArray[np.float64]


def weights_of(module: nn.Module) -> dict[str, Vector]:
    """The state dict in float64."""
    return {key: value.double().numpy() for key, value in module.state_dict().items()}


def linear(weights: Mapping[str, Vector], name: str, values: Vector) -> Vector:
    """W x + b; b is 0 where the layer has none."""
    matrix = weights[f"{name}.weight"]
    bias = weights.get(f"{name}.bias", np.zeros(len(matrix)))
    return np.array([sum(row[i] * values[i] for i in range(len(values))) + bias[at] for at, row in enumerate(matrix)])


def mlp(weights: Mapping[str, Vector], name: str, values: Vector, *, num_hidden: int, last_linear: bool) -> Vector:
    """Linear and ReLU, repeated, and a last Linear where there is one; no dropout."""
    for layer in range(num_hidden):
        values = np.array([max(0.0, value) for value in linear(weights, f"{name}.{2 * layer}", values)])
    return linear(weights, f"{name}.{2 * num_hidden}", values) if last_linear else values


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
