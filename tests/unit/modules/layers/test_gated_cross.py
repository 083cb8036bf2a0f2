"""Gated crosses: the equation written out, open and shut gates, and the cost."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from modules.cost import Cost
from modules.layers.cross import CrossNet
from modules.layers.gated_cross import GatedCrossNet, gated_cross_cost
from tests.unit.modules import plain

WIDTH = 5


def rows(num_rows: int) -> torch.Tensor:
    return torch.randn(num_rows, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("num_layers", [1, 3])
def test_the_layers_are_their_equation(num_layers: int) -> None:
    network = plain.unsettled(GatedCrossNet(in_features=WIDTH, num_layers=num_layers))
    inputs, weights = rows(7), plain.weights_of(network)
    expected = []
    for x0 in inputs.numpy():
        x = x0
        for layer in range(num_layers):
            cross = plain.linear(weights, f"crosses.{layer}", x)
            gate = [1 / (1 + math.exp(-value)) for value in plain.linear(weights, f"gates.{layer}", x)]
            x = np.array([x0[i] * cross[i] * gate[i] + x[i] for i in range(WIDTH)])
        expected.append(x)
    np.testing.assert_allclose(network(inputs).detach().numpy(), expected, rtol=1e-12, atol=1e-10)


def test_gates_of_weight_zero_halve_each_cross() -> None:
    network, ungated = GatedCrossNet(in_features=WIDTH, num_layers=2), CrossNet(in_features=WIDTH, num_layers=2)
    with torch.no_grad():
        for gate, cross, layer in zip(network.gates, network.crosses, ungated.layers, strict=True):
            gate.get_parameter("weight").zero_()
            layer.load_state_dict({key: value / 2 for key, value in cross.state_dict().items()})
    torch.testing.assert_close(network.double()(rows(7)), ungated.double()(rows(7)))


def test_the_cost_is_that_of_two_matrices_and_a_bias() -> None:
    network = GatedCrossNet(in_features=WIDTH, num_layers=3)
    cost = gated_cross_cost(WIDTH, 3)
    assert cost == Cost(sum(weight.numel() for weight in network.parameters()), 3 * (2 * WIDTH * WIDTH + 2 * WIDTH))
