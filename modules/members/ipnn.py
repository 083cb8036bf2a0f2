"""IPNN (PNN with inner products): a deep network on the embeddings and the inner products of all their pairs.

Idea: a product layer between embeddings and network gives the network the pairs that it is slow to learn from sums.
Where a factorization machine adds the products up, here the network weighs each.
Equation: y = MLP([dense ; flatten(E) ; <e_i, e_j> for i < j]).
Source: Qu et al., "Product-based Neural Networks for User Response Prediction", ICDM 2016 (arXiv 1611.00144).
Deviations: the first layer's weights of the products are free, where the paper factorizes them to rank one; products of
a vector with itself are left out, and of the two equal ones of a pair one is kept; with numeric = "dense" the numerics
have no products.
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
from modules.layers.interaction import DotInteraction, dot_cost, num_pairs
from modules.layers.mlp import MLP


@dataclass(frozen=True, kw_only=True)
class Config(ArchConfig):
    """Inner products of embeddings below a deep network."""

    numeric: ClassVar[tuple[str, ...]] = ("ids", "scaled", "dense")

    hidden: tuple[int, ...] = (256, 128)
    """Widths of the network's hidden layers."""

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
        return ProductMember(
            num_dense=num_dense,
            num_features=num_features,
            dim=dim,
            hidden=self.hidden,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
        )

    def cost(self, *, num_dense: int, num_features: int, dim: int) -> Cost:
        """F F D products of embeddings, and the network's."""
        width = num_dense + num_features * dim + num_pairs(num_features)
        deep = mlp_cost(width, self.hidden, out_features=1, batch_norm=self.batch_norm)
        return dot_cost(num_features, dim) + deep


class ProductMember(nn.Module):
    """IPNN; `forward` gives one logit per row."""

    first_order: ClassVar[bool] = False

    def __init__(
        self,
        *,
        num_dense: int,
        num_features: int,
        dim: int,
        hidden: Sequence[int],
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.interaction = DotInteraction(num_vectors=num_features)
        width = num_dense + num_features * dim + self.interaction.out_features
        self.deep = MLP(in_features=width, hidden=hidden, out_features=1, dropout=dropout, batch_norm=batch_norm)

    def forward(self, inputs: MemberInput) -> Tensor:
        """Logits [B]."""
        vectors_BFD = inputs.embedded_BFD
        parts = [inputs.dense_BN, vectors_BFD.flatten(1), self.interaction(vectors_BFD)]
        return self.deep(torch.cat(parts, dim=1)).squeeze(1)
