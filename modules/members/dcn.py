"""DCN: a cross network with one weight vector a layer, beside a deep network.

Idea: each cross layer multiplies the input by a weighted sum of the layer before, which raises the degree of the
crosses by one at the price of two vectors of weights. A deep network runs beside it, and one last layer reads both.
Equation: x_0 = [dense ; flatten(E)]; x_{l+1} = x_0 <w_l, x_l> + b_l + x_l; y = <w, [x_L ; h]> + b, where h are the last
hidden values of MLP(x_0).
Source: Wang, Fu, Fu, Wang, "Deep & Cross Network for Ad Click Predictions", ADKDD 2017 (arXiv 1708.05123).
Deviations: none; the paper's networks have batch norm, which is a key here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from configs.section import ArchConfig, positive, positive_each, probability
from modules.contracts import MemberInput
from modules.cost import Cost, linear_cost, mlp_cost
from modules.layers.cross import VectorCrossNet, vector_cross_cost
from modules.layers.mlp import MLP


@dataclass(frozen=True, kw_only=True)
class Config(ArchConfig):
    """Cross network with a deep network beside it."""

    num_layers: int = 3
    """Number of cross layers."""

    hidden: tuple[int, ...] = (256, 128)
    """Widths of the deep network's hidden layers."""

    dropout: float = 0.0
    """Probability after each hidden layer."""

    batch_norm: bool = False
    """Normalise over the batch before each ReLU."""

    def __post_init__(self) -> None:
        self.refuse(
            positive("num_layers", self.num_layers),
            positive_each("hidden", self.hidden),
            probability("dropout", self.dropout),
            None if self.hidden else "hidden: give at least one width; the output reads the last hidden layer",
        )

    def build(self, *, num_dense: int, num_features: int, dim: int) -> nn.Module:
        """The member for these input shapes."""
        return VectorCrossMember(
            in_features=num_dense + num_features * dim,
            num_layers=self.num_layers,
            hidden=self.hidden,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
        )

    def cost(self, *, num_dense: int, num_features: int, dim: int) -> Cost:
        """Two vectors a cross layer, the network, and the output layer over both."""
        width = num_dense + num_features * dim
        deep = mlp_cost(width, self.hidden, batch_norm=self.batch_norm)
        return vector_cross_cost(width, self.num_layers) + deep + linear_cost(width + self.hidden[-1], 1)


class VectorCrossMember(nn.Module):
    """DCN; `forward` gives one logit per row."""

    first_order: ClassVar[bool] = False

    def __init__(
        self,
        *,
        in_features: int,
        num_layers: int,
        hidden: Sequence[int],
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.cross = VectorCrossNet(in_features=in_features, num_layers=num_layers)
        self.deep = MLP(in_features=in_features, hidden=hidden, dropout=dropout, batch_norm=batch_norm)
        self.output = nn.Linear(in_features + self.deep.out_features, 1)

    def forward(self, inputs: MemberInput) -> Tensor:
        """Logits [B]."""
        x0 = torch.cat([inputs.dense_BN, inputs.embedded_BFD.flatten(1)], dim=1)
        return self.output(torch.cat([self.cross(x0), self.deep(x0)], dim=1)).squeeze(1)
