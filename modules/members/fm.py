"""FM: a factorization machine, the weights of ids and the inner products of all pairs of embeddings.

Idea: the weight of a pair of ids is the inner product of their vectors, so that pairs are learned that never occurred
together. It is the smallest model with interactions, and the ancestor of most others.
Equation: y = b + <w_dense, dense> + sum_f w_f[id_f] + sum_{i<j} <e_i, e_j>.
Source: Rendle, "Factorization Machines", ICDM 2010.
Deviations: none with numerics as fields, as published (numeric = "scaled"); with numeric = "dense" they enter the
first-order part alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from configs.section import ArchConfig
from modules.contracts import MemberInput
from modules.cost import Cost
from modules.layers.factorization import factorization_cost, factorization_term
from modules.layers.first_order import FirstOrder, first_order_cost


@dataclass(frozen=True, kw_only=True)
class Config(ArchConfig):
    """Factorization machine."""

    numeric: ClassVar[tuple[str, ...]] = ("scaled", "ids", "dense")

    def build(self, *, num_dense: int, num_features: int, dim: int) -> nn.Module:
        """The member for these input shapes."""
        return FactorizationMachineMember(num_dense=num_dense)

    def cost(self, *, num_dense: int, num_features: int, dim: int) -> Cost:
        """The first-order part's, and F D + D squares."""
        return first_order_cost(num_dense, bias=True) + factorization_cost(num_features, dim)


class FactorizationMachineMember(nn.Module):
    """y = b + <w_dense, dense> + sum_f w_f[id_f] + sum_{i<j} <e_i, e_j>."""

    first_order: ClassVar[bool] = True

    def __init__(self, *, num_dense: int) -> None:
        super().__init__()
        self.linear = FirstOrder(num_dense=num_dense, bias=True)

    def forward(self, inputs: MemberInput) -> Tensor:
        """Logits [B]."""
        return self.linear(inputs.dense_BN, inputs.first_order_BF) + factorization_term(inputs.embedded_BFD)
