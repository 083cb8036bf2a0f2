"""MLP (also DNN or FNN): one network over all features side by side.

Idea: let one deep network find the feature interactions by itself, from the embeddings side by side. It is the
yardstick of the field: cheap, hard to beat by much, and a good member beside models with explicit interactions.
Equation: y = MLP([dense ; flatten(E)]).
Source: Zhang, Du, Wang, "Deep Learning over Multi-field Categorical Data", ECIR 2016 (arXiv 1601.02376).
Deviations: trained end to end instead of from factorization-machine pre-training; ReLU in place of tanh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from configs.section import ArchConfig, positive_each, probability
from modules.contracts import MemberInput
from modules.cost import Cost, mlp_cost
from modules.layers.mlp import MLP


@dataclass(frozen=True, kw_only=True)
class Config(ArchConfig):
    """MLP over dense features and embeddings side by side."""

    hidden: tuple[int, ...] = (256, 128)
    """Widths of the hidden layers."""

    dropout: float = 0.0
    """Probability after each hidden layer."""

    batch_norm: bool = False
    """Normalise over the batch before each ReLU."""

    def __post_init__(self) -> None:
        self.refuse(
            positive_each("hidden", self.hidden),
            probability("dropout", self.dropout),
        )

    def build(self, *, num_dense: int, num_features: int, dim: int) -> nn.Module:
        """The member for these input shapes."""
        return MultiLayerMember(
            in_features=num_dense + num_features * dim,
            hidden=self.hidden,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
        )

    def cost(self, *, num_dense: int, num_features: int, dim: int) -> Cost:
        """The network's: layer by layer, inputs times outputs."""
        width = num_dense + num_features * dim
        return mlp_cost(width, self.hidden, out_features=1, batch_norm=self.batch_norm)


class MultiLayerMember(nn.Module):
    """y = MLP([dense ; flatten(E)])."""

    first_order: ClassVar[bool] = False

    def __init__(
        self, *, in_features: int, hidden: Sequence[int], dropout: float = 0.0, batch_norm: bool = False
    ) -> None:
        super().__init__()
        self.mlp = MLP(in_features=in_features, hidden=hidden, out_features=1, dropout=dropout, batch_norm=batch_norm)

    def forward(self, inputs: MemberInput) -> Tensor:
        """Logits [B]."""
        return self.mlp(torch.cat([inputs.dense_BN, inputs.embedded_BFD.flatten(1)], dim=1)).squeeze(1)
