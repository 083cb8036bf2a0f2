"""Wide & Deep: a linear model of ids and a deep network of their embeddings, summed.

Idea: the wide part remembers single ids, the deep part generalises over their embeddings. Both are trained on the loss
of their sum, so that each learns what the other leaves.
Equation: y = <w_dense, dense> + sum_f w_f[id_f] + MLP([dense ; flatten(E)]).
Source: Cheng et al., "Wide & Deep Learning for Recommender Systems", DLRS 2016 (arXiv 1606.07792).
Deviations: the wide part has no cross products of ids chosen by hand, and reads every feature; the tables' optimizer
trains its weights in place of FTRL; the bias is the network's.
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
from modules.layers.first_order import FirstOrder, first_order_cost
from modules.layers.mlp import MLP


@dataclass(frozen=True, kw_only=True)
class Config(ArchConfig):
    """A wide linear model plus a deep network."""

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
        return WideDeepMember(
            num_dense=num_dense,
            num_features=num_features,
            dim=dim,
            hidden=self.hidden,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
        )

    def cost(self, *, num_dense: int, num_features: int, dim: int) -> Cost:
        """The network's, and a weight for each dense feature."""
        deep = mlp_cost(num_dense + num_features * dim, self.hidden, out_features=1, batch_norm=self.batch_norm)
        return first_order_cost(num_dense, bias=False) + deep


class WideDeepMember(nn.Module):
    """Wide & Deep; `forward` gives one logit per row."""

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
        self.linear = FirstOrder(num_dense=num_dense, bias=False)
        width = num_dense + num_features * dim
        self.deep = MLP(in_features=width, hidden=hidden, out_features=1, dropout=dropout, batch_norm=batch_norm)

    def forward(self, inputs: MemberInput) -> Tensor:
        """Logits [B]."""
        deep = self.deep(torch.cat([inputs.dense_BN, inputs.embedded_BFD.flatten(1)], dim=1)).squeeze(1)
        return self.linear(inputs.dense_BN, inputs.first_order_BF) + deep
