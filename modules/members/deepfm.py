"""DeepFM: a factorization machine and a deep network on the same embeddings, summed.

Equation: y = <w_dense, dense> + b + sum_f w_f[id_f] + sum_{i<j} <e_i, e_j> + MLP([dense ; flatten(E)]).
Source: Guo et al., IJCAI 2017 (arXiv 1703.04247). Deviation: numeric features enter the first-order
part linearly and the deep part as a dense vector, and have no embedding in the pairwise part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from configs.section import ArchConfig, positive_each, probability
from modules.contracts import MemberInput
from modules.layers.factorization import factorization_term
from modules.layers.mlp import MLP


@dataclass(frozen=True, kw_only=True)
class Config(ArchConfig):
    """Factorization machine plus a deep network."""

    hidden: tuple[int, ...] = (256, 128)
    """Widths of the deep network's hidden layers."""

    dropout: float = 0.0
    """Probability after each hidden layer."""

    def __post_init__(self) -> None:
        self.refuse(
            positive_each("hidden", self.hidden),
            probability("dropout", self.dropout),
        )

    def build(self, *, num_dense: int, num_features: int, dim: int) -> nn.Module:
        """The member for these input shapes."""
        return FactorizationMember(
            num_dense=num_dense, num_features=num_features, dim=dim, hidden=self.hidden, dropout=self.dropout
        )


class FactorizationMember(nn.Module):
    """DeepFM; `forward` gives one logit per row."""

    first_order: ClassVar[bool] = True

    def __init__(
        self, *, num_dense: int, num_features: int, dim: int, hidden: Sequence[int], dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dense_linear = nn.Linear(num_dense, 1) if num_dense else None  # b is in the deep part too
        self.deep = MLP(in_features=num_dense + num_features * dim, hidden=hidden, out_features=1, dropout=dropout)

    def forward(self, inputs: MemberInput) -> Tensor:
        """Logits [B]."""
        assert inputs.first_order_BF is not None, "the ensemble gives first-order weights to this member"
        deep = self.deep(torch.cat([inputs.dense_BN, inputs.embedded_BFD.flatten(1)], dim=1)).squeeze(1)
        linear = inputs.first_order_BF.sum(dim=1)
        if self.dense_linear is not None:
            linear = self.dense_linear(inputs.dense_BN).squeeze(1) + linear
        return linear + factorization_term(inputs.embedded_BFD) + deep
