"""Cross network v2: explicit feature crosses of bounded degree (arXiv 2008.13535, equations 1 and 2)."""

from __future__ import annotations

from torch import Tensor, nn


class CrossNet(nn.Module):
    """x_{l+1} = x_0 * (W_l x_l + b_l) + x_l, with W_l full or W_l = U_l V_l of low rank.

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
