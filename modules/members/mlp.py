"""MLP (also DNN or FNN): one network over all features side by side.

Equation: y = MLP([dense ; flatten(E)]). Source: Zhang, Du, Wang, "Deep Learning over Multi-field
Categorical Data", ECIR 2016 (arXiv 1601.02376). Deviations: trained end to end instead of from
factorization-machine pre-training; numeric features enter as a dense vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from configs.section import ArchConfig, positive_each, probability
from modules.contracts import MemberInput
from modules.layers.mlp import MLP


@dataclass(frozen=True, kw_only=True)
class Config(ArchConfig):
    """MLP over dense features and embeddings side by side."""

    hidden: tuple[int, ...] = (256, 128)
    """Widths of the hidden layers."""

    dropout: float = 0.0
    """Probability after each hidden layer."""

    def __post_init__(self) -> None:
        self.refuse(
            positive_each("hidden", self.hidden),
            probability("dropout", self.dropout),
        )

    def build(self, *, num_dense: int, num_features: int, dim: int) -> nn.Module:
        """The member for these input shapes."""
        return MultiLayerMember(
            num_dense=num_dense, num_features=num_features, dim=dim, hidden=self.hidden, dropout=self.dropout
        )


class MultiLayerMember(nn.Module):
    """y = MLP([dense ; flatten(E)])."""

    first_order: ClassVar[bool] = False

    def __init__(
        self, *, num_dense: int, num_features: int, dim: int, hidden: Sequence[int], dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.mlp = MLP(in_features=num_dense + num_features * dim, hidden=hidden, out_features=1, dropout=dropout)

    def forward(self, inputs: MemberInput) -> Tensor:
        """Logits [B]."""
        return self.mlp(torch.cat([inputs.dense_BN, inputs.embedded_BFD.flatten(1)], dim=1)).squeeze(1)
