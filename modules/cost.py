"""Cost: a member's dense parameters and multiply-adds as arithmetic on its sizes.

A multiply-add is one product of two numbers: in a matrix product, or element by element (squares too). Scaling by a
constant, activations, normalisations, softmax and sums alone count nothing. Figures are per row of a forward pass; a
training step takes about three times as many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Cost(NamedTuple):
    """What a member, or a part of one, takes."""

    parameters: int
    """Trained dense parameters; tables are not among them."""

    multiply_adds: int
    """Products per row of a forward pass in evaluation."""

    def __add__(self, other: object) -> Cost:
        """Both together."""
        assert isinstance(other, Cost)
        return Cost(self.parameters + other.parameters, self.multiply_adds + other.multiply_adds)


def linear_cost(in_features: int, out_features: int, *, bias: bool = True) -> Cost:
    """A Linear layer, applied once to a row."""
    products = in_features * out_features
    return Cost(products + bias * out_features, products)


def mlp_cost(
    in_features: int, hidden: Sequence[int], *, out_features: int | None = None, batch_norm: bool = False
) -> Cost:
    """A `modules.layers.mlp.MLP`: a scale and a shift for each hidden value under batch norm."""
    total, width = Cost(0, 0), in_features
    for next_width in hidden:
        total += linear_cost(width, next_width) + Cost(2 * next_width * batch_norm, 0)
        width = next_width
    return total if out_features is None else total + linear_cost(width, out_features)
