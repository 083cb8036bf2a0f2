"""Factorization machine: the sum of all pairwise inner products in linear time (Rendle, ICDM 2010)."""

from __future__ import annotations

from torch import Tensor

from modules.cost import Cost


def factorization_term(vectors_BFD: Tensor) -> Tensor:
    """sum_{i<j} <v_i, v_j> = 1/2 sum_d ((sum_f v_fd)^2 - sum_f v_fd^2); [B, F, D] to [B]."""
    square_of_sum_BD = vectors_BFD.sum(dim=1).square()
    sum_of_square_BD = vectors_BFD.square().sum(dim=1)
    return 0.5 * (square_of_sum_BD - sum_of_square_BD).sum(dim=1)


def factorization_cost(num_vectors: int, dim: int) -> Cost:
    """A square for each value and for each column's sum."""
    return Cost(0, (num_vectors + 1) * dim)
