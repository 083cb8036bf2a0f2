"""LR: logistic regression on one weight per id.

Idea: every id has a weight of its own, and the weights of a row add up to its logit. It knows no interactions, and
shows what the rest of an ensemble gains by them.
Equation: y = b + <w_dense, dense> + sum_f w_f[id_f].
Source: Richardson, Dominowska, Ragno, "Predicting Clicks", WWW 2007.
Deviations: the inputs are ids and numbers as they come, not features made by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from configs.section import ArchConfig
from modules.contracts import MemberInput
from modules.cost import Cost
from modules.layers.first_order import FirstOrder, first_order_cost


@dataclass(frozen=True, kw_only=True)
class Config(ArchConfig):
    """Logistic regression."""

    reads_embeddings: ClassVar[bool] = False

    def build(self, *, num_dense: int, num_features: int, dim: int) -> nn.Module:
        """The member for these input shapes."""
        return LogisticMember(num_dense=num_dense)

    def cost(self, *, num_dense: int, num_features: int, dim: int) -> Cost:
        """A weight for each dense feature, and the bias."""
        return first_order_cost(num_dense, bias=True)


class LogisticMember(nn.Module):
    """y = b + <w_dense, dense> + sum_f w_f[id_f]."""

    first_order: ClassVar[bool] = True

    def __init__(self, *, num_dense: int) -> None:
        super().__init__()
        self.linear = FirstOrder(num_dense=num_dense, bias=True)

    def forward(self, inputs: MemberInput) -> Tensor:
        """Logits [B]."""
        return self.linear(inputs.dense_BN, inputs.first_order_BF)
