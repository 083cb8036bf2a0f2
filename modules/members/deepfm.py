"""DeepFM: a factorization machine and a deep network on the same embeddings, summed.

Idea: a factorization machine takes care of pairs, a deep network of higher orders. Both read one set of embeddings,
which needs neither pre-training nor features made by hand.
Equation: y = <w_dense, dense> + b + sum_f w_f[id_f] + sum_{i<j} <e_i, e_j> + MLP([dense ; flatten(E)]).
Source: Guo, Tang, Ye, Li, He, "DeepFM", IJCAI 2017 (arXiv 1703.04247).
Deviations: none with numerics as fields, as published (numeric = "scaled" or "ids"); with numeric = "dense" they enter
the first-order and the deep part, and have no embedding in the pairs.
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
from modules.layers.factorization import factorization_cost, factorization_term
from modules.layers.first_order import first_order_cost
from modules.layers.mlp import MLP


@dataclass(frozen=True, kw_only=True)
class Config(ArchConfig):
    """Factorization machine plus a deep network."""

    numeric: ClassVar[tuple[str, ...]] = ("scaled", "ids", "dense")

    hidden: tuple[int, ...] = (256, 128)
    """Widths of the deep network's hidden layers."""

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
        return FactorizationMember(
            num_dense=num_dense,
            num_features=num_features,
            dim=dim,
            hidden=self.hidden,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
        )

    def cost(self, *, num_dense: int, num_features: int, dim: int) -> Cost:
        """The network's, the first-order part's (with a bias where there are dense features), and F D + D squares."""
        deep = mlp_cost(num_dense + num_features * dim, self.hidden, out_features=1, batch_norm=self.batch_norm)
        return first_order_cost(num_dense, bias=num_dense > 0) + factorization_cost(num_features, dim) + deep


class FactorizationMember(nn.Module):
    """DeepFM; `forward` gives one logit per row."""

    first_order: ClassVar[bool] = True

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
        self.dense_linear = nn.Linear(num_dense, 1) if num_dense else None  # b is in the deep part too
        width = num_dense + num_features * dim
        self.deep = MLP(in_features=width, hidden=hidden, out_features=1, dropout=dropout, batch_norm=batch_norm)

    def forward(self, inputs: MemberInput) -> Tensor:
        """Logits [B]."""
        assert inputs.first_order_BF is not None, "the ensemble gives first-order weights to this member"
        linear = inputs.first_order_BF.sum(dim=1)
        if self.dense_linear is not None:
            linear = self.dense_linear(inputs.dense_BN).squeeze(1) + linear
        deep = self.deep(torch.cat([inputs.dense_BN, inputs.embedded_BFD.flatten(1)], dim=1)).squeeze(1)
        return linear + factorization_term(inputs.embedded_BFD) + deep
