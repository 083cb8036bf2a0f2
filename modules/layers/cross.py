"""Cross networks: explicit feature crosses of bounded degree, each layer x_{l+1} = x_0 * f_l(x_l) + x_l.

D columns of x, K experts, R columns of an expert's subspace.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from modules.cost import Cost, linear_cost

Projection = Literal["linear", "tanh", "relu"]


class VectorCrossNet(nn.Module):
    """x_{l+1} = x_0 <w_l, x_l> + b_l + x_l: DCN's (arXiv 1708.05123, equation 3).

    Args:
        in_features: Width of x_0 and of every layer.
        num_layers: Number of cross layers; the degree of the crosses is one more.
    """

    def __init__(self, *, in_features: int, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(in_features, 1, bias=False) for _ in range(num_layers))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(in_features)) for _ in range(num_layers))

    def forward(self, x0: Tensor) -> Tensor:
        """[B, in_features] to the same shape."""
        x = x0
        for layer, bias in zip(self.layers, self.biases, strict=True):
            x = x0 * layer(x) + bias + x
        return x


class CrossNet(nn.Module):
    """x_{l+1} = x_0 * (W_l x_l + b_l) + x_l, with W_l full or W_l = U_l V_l of low rank (arXiv 2008.13535).

    The paper's equations 1 and 2.

    Args:
        in_features: Width of x_0 and of every layer.
        num_layers: Number of cross layers; the degree of the crosses is one more.
        low_rank_dim: Rank of U_l V_l; None: full-rank W_l.
    """

    def __init__(self, *, in_features: int, num_layers: int, low_rank_dim: int | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(in_features, in_features)
            if low_rank_dim is None
            else nn.Sequential(nn.Linear(in_features, low_rank_dim, bias=False), nn.Linear(low_rank_dim, in_features))
            for _ in range(num_layers)
        )

    def forward(self, x0: Tensor) -> Tensor:
        """[B, in_features] to the same shape."""
        x = x0
        for layer in self.layers:
            x = x0 * layer(x) + x
        return x


class MixtureCrossNet(nn.Module):
    """x_{l+1} = sum_k g_k(x_l) E_kl(x_l) + x_l, g a softmax over experts (arXiv 2008.13535, equations 3 and 4).

    E_kl(x) = x_0 * (U_kl V_kl x + b_l), or with a nonlinearity s in the subspace x_0 * (U_kl s(C_kl s(V_kl x)) + b_l).
    As the gates sum to one, the sum over experts is one product with all U_kl side by side.

    Args:
        in_features: Width of x_0 and of every layer.
        num_layers: Number of cross layers.
        low_rank_dim: Columns of each expert's subspace.
        num_experts: Experts of a layer; the gates are the same function in every layer. One expert has no gate.
        projection: The nonlinearity in the subspaces; linear: none, and no C.
    """

    def __init__(
        self,
        *,
        in_features: int,
        num_layers: int,
        low_rank_dim: int,
        num_experts: int,
        projection: Projection = "linear",
    ) -> None:
        super().__init__()
        self.gate = nn.Linear(in_features, num_experts, bias=False) if num_experts > 1 else None
        self.layers = nn.ModuleList(
            _Experts(in_features, low_rank_dim=low_rank_dim, num_experts=num_experts, projection=projection)
            for _ in range(num_layers)
        )

    def forward(self, x0: Tensor) -> Tensor:
        """[B, in_features] to the same shape."""
        x = x0
        for layer in self.layers:
            gates_BK = None if self.gate is None else torch.softmax(self.gate(x), dim=1)
            x = x0 * layer(x, gates_BK) + x
        return x


class _Experts(nn.Module):
    """sum_k g_k U_k s(C_k s(V_k x)) + b, or sum_k g_k U_k V_k x + b."""

    def __init__(self, in_features: int, *, low_rank_dim: int, num_experts: int, projection: Projection) -> None:
        super().__init__()
        self.projection = projection
        self.subspaces = (num_experts, low_rank_dim)
        self.down = nn.Linear(in_features, num_experts * low_rank_dim, bias=False)
        self.mixing_KRR = None
        if projection != "linear":
            bound = low_rank_dim**-0.5  # as a Linear layer of this width starts
            start = torch.empty(num_experts, low_rank_dim, low_rank_dim).uniform_(-bound, bound)
            self.mixing_KRR = nn.Parameter(start)
        self.up = nn.Linear(num_experts * low_rank_dim, in_features)

    def forward(self, x: Tensor, gates_BK: Tensor | None) -> Tensor:
        """[B, D] and [B, K] to [B, D]."""
        hidden_BKR = self.down(x).unflatten(1, self.subspaces)
        if self.mixing_KRR is not None:
            bend = torch.tanh if self.projection == "tanh" else torch.relu
            hidden_BKR = bend(torch.einsum("bkr,ksr->bks", bend(hidden_BKR), self.mixing_KRR))
        if gates_BK is not None:
            hidden_BKR = hidden_BKR * gates_BK.unsqueeze(2)
        return self.up(hidden_BKR.flatten(1))


def vector_cross_cost(width: int, num_layers: int) -> Cost:
    """A `VectorCrossNet`: in each layer w and b, <w, x> and x_0 times it."""
    return Cost(num_layers * 2 * width, num_layers * 2 * width)


def cross_cost(width: int, num_layers: int, *, low_rank_dim: int | None = None) -> Cost:
    """A `CrossNet`: in each layer W or V and U, b, and the product with x_0."""
    if low_rank_dim is None:
        layer = linear_cost(width, width)
    else:
        layer = linear_cost(width, low_rank_dim, bias=False) + linear_cost(low_rank_dim, width)
    return Cost(num_layers * layer.parameters, num_layers * (layer.multiply_adds + width))


def mixture_cross_cost(
    width: int, num_layers: int, *, low_rank_dim: int, num_experts: int, projection: Projection = "linear"
) -> Cost:
    """A `MixtureCrossNet`: all experts as one low-rank layer, C, the gates, and the gates' products."""
    subspaces = num_experts * low_rank_dim
    crosses = cross_cost(width, num_layers, low_rank_dim=subspaces)
    inner = 0 if projection == "linear" else num_layers * subspaces * low_rank_dim
    gate = width * num_experts if num_experts > 1 else 0
    gated = num_layers * (gate + subspaces) if gate else 0
    return crosses + Cost(inner + gate, inner + gated)
