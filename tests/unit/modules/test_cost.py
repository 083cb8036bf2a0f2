"""Cost: additions, and its formulas against the layers that they are of."""

from __future__ import annotations

import pytest
from torch import nn

from modules.cost import Cost, linear_cost, mlp_cost
from modules.layers.mlp import MLP


def parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def test_costs_add_up() -> None:
    assert Cost(1, 2) + Cost(10, 20) == Cost(11, 22)
    assert sum([Cost(1, 2), Cost(3, 4)], Cost(0, 0)) == Cost(4, 6)


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer(bias: bool) -> None:
    cost = linear_cost(7, 5, bias=bias)
    assert cost == Cost(parameters(nn.Linear(7, 5, bias=bias)), 35)
    assert all(type(figure) is int for figure in cost)


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("out_features", [None, 2])
@pytest.mark.parametrize(("hidden", "products"), [((), 0), ((5,), 35), ((5, 3), 50)])
def test_an_mlp(hidden: tuple[int, ...], products: int, out_features: int | None, batch_norm: bool) -> None:
    layer = MLP(in_features=7, hidden=hidden, out_features=out_features, batch_norm=batch_norm)
    last = (hidden or (7,))[-1] * (out_features or 0)
    cost = mlp_cost(7, hidden, out_features=out_features, batch_norm=batch_norm)
    assert cost == Cost(parameters(layer), products + last)
    assert all(type(figure) is int for figure in cost)
