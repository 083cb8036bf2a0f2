"""First-order part of a model: one weight per id and per numeric feature, summed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modules.cost import Cost


class FirstOrder(nn.Module):
    """sum_f w_f[id_f] + <w_dense, dense>, plus b where wanted.

    Args:
        num_dense: Width of the dense features; may be 0.
        bias: Whether there is a global bias b, which starts at zero.
    """

    def __init__(self, *, num_dense: int, bias: bool) -> None:
        super().__init__()
        self.dense = nn.Linear(num_dense, 1, bias=False) if num_dense else None
        self.bias = nn.Parameter(torch.zeros(1)) if bias else None

    def forward(self, dense_BN: Tensor, first_order_BF: Tensor | None) -> Tensor:
        """[B, num_dense] and [B, F] to [B]."""
        assert first_order_BF is not None, "the ensemble gives first-order weights to this member"
        total = first_order_BF.sum(dim=1)
        if self.dense is not None:
            total = total + self.dense(dense_BN).squeeze(1)
        return total if self.bias is None else total + self.bias


def first_order_cost(num_dense: int, *, bias: bool) -> Cost:
    """A weight for each dense feature, and the bias; the ids' weights are tables and only summed."""
    return Cost(num_dense + bias, num_dense)
