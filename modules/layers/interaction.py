"""Dot interaction: the inner product of every pair of feature vectors (arXiv 1906.00091)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modules.cost import Cost


class DotInteraction(nn.Module):
    """All <v_i, v_j> with i < j.

    Args:
        num_vectors: Vectors per row.
    """

    def __init__(self, *, num_vectors: int) -> None:
        super().__init__()
        rows, columns = torch.triu_indices(num_vectors, num_vectors, offset=1)
        self.register_buffer("flat_index", rows * num_vectors + columns, persistent=False)
        self.out_features = num_pairs(num_vectors)

    def forward(self, vectors_BVD: Tensor) -> Tensor:
        """[B, V, D] to [B, V (V - 1) / 2]."""
        products_BVV = torch.bmm(vectors_BVD, vectors_BVD.transpose(1, 2))
        return products_BVV.flatten(1).index_select(1, self.flat_index)  # type: ignore[arg-type]


def num_pairs(num_vectors: int) -> int:
    """V (V - 1) / 2."""
    return num_vectors * (num_vectors - 1) // 2


def dot_cost(num_vectors: int, dim: int) -> Cost:
    """The whole square matrix of products: one product of matrices is faster than the half of it piece by piece."""
    return Cost(0, num_vectors * num_vectors * dim)
