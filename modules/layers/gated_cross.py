"""Gated cross network: crosses of bounded degree, each behind an information gate (arXiv 2311.04635, equation 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modules.cost import Cost, linear_cost


class GatedCrossNet(nn.Module):
    """x_{l+1} = x_0 * (W_l x_l + b_l) * sigmoid(V_l x_l) + x_l.

    Args:
        in_features: Width of x_0 and of every layer.
        num_layers: Number of cross layers; the degree of the crosses is one more.
    """

    def __init__(self, *, in_features: int, num_layers: int) -> None:
        super().__init__()
        self.crosses = nn.ModuleList(nn.Linear(in_features, in_features) for _ in range(num_layers))
        self.gates = nn.ModuleList(nn.Linear(in_features, in_features, bias=False) for _ in range(num_layers))

    def forward(self, x0: Tensor) -> Tensor:
        """[B, in_features] to the same shape."""
        x = x0
        for cross, gate in zip(self.crosses, self.gates, strict=True):
            x = x0 * cross(x) * torch.sigmoid(gate(x)) + x
        return x


def gated_cross_cost(in_features: int, num_layers: int) -> Cost:
    """Two full matrices a layer, one of them with a bias, and two products of each value."""
    layer = linear_cost(in_features, in_features) + linear_cost(in_features, in_features, bias=False)
    return Cost(num_layers * layer.parameters, num_layers * (layer.multiply_adds + 2 * in_features))
