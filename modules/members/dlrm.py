"""DLRM: dot products of all pairs of embeddings and of the projected dense features.

Equation: z_0 = MLP_dense(dense) of width D; y = MLP_top([z_0 ; <v_i, v_j> for i < j over {z_0, e_1 .. e_F}]).
Source: Naumov et al., "Deep Learning Recommendation Model for Personalization and Recommendation
Systems", 2019 (arXiv 1906.00091). Deviations: Linear layers start as PyTorch's do; where the data have no
dense feature, z_0 is a learned vector, the same for every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from configs.section import ArchConfig, positive_each, probability
from modules.contracts import MemberInput
from modules.layers.interaction import DotInteraction
from modules.layers.mlp import MLP


@dataclass(frozen=True, kw_only=True)
class Config(ArchConfig):
    """DLRM with dot interaction."""

    dense_hidden: tuple[int, ...] = (128, 64)
    """Hidden widths of the dense network; a last layer of the tables' dim follows."""

    top_hidden: tuple[int, ...] = (256, 128)
    """Hidden widths of the top network; a last layer of width 1 follows."""

    dropout: float = 0.0
    """Probability after each hidden layer of the top network."""

    def __post_init__(self) -> None:
        self.refuse(
            positive_each("dense_hidden", self.dense_hidden),
            positive_each("top_hidden", self.top_hidden),
            probability("dropout", self.dropout),
        )

    def build(self, *, num_dense: int, num_features: int, dim: int) -> nn.Module:
        """The member for these input shapes."""
        return DotMember(
            num_dense=num_dense,
            num_features=num_features,
            dim=dim,
            dense_hidden=self.dense_hidden,
            top_hidden=self.top_hidden,
            dropout=self.dropout,
        )


class DotMember(nn.Module):
    """DLRM; `forward` gives one logit per row."""

    first_order: ClassVar[bool] = False

    def __init__(
        self,
        *,
        num_dense: int,
        num_features: int,
        dim: int,
        dense_hidden: Sequence[int],
        top_hidden: Sequence[int],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dense = MLP(in_features=num_dense, hidden=(*dense_hidden, dim)) if num_dense else None
        self.constant = None if num_dense else nn.Parameter(torch.empty(dim).uniform_(-(dim**-0.5), dim**-0.5))
        self.interaction = DotInteraction(num_vectors=num_features + 1)
        self.top = MLP(
            in_features=dim + self.interaction.out_features, hidden=top_hidden, out_features=1, dropout=dropout
        )

    def forward(self, inputs: MemberInput) -> Tensor:
        """Logits [B]."""
        if self.dense is not None:
            projected_BD = self.dense(inputs.dense_BN)
        else:
            assert self.constant is not None
            projected_BD = self.constant.expand(len(inputs.dense_BN), -1)
        vectors_BVD = torch.cat([projected_BD.unsqueeze(1), inputs.embedded_BFD], dim=1)
        return self.top(torch.cat([projected_BD, self.interaction(vectors_BVD)], dim=1)).squeeze(1)
