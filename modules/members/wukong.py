"""Wukong: stacked layers of factorization machines, each beside a linear mixing of its input vectors.

Idea: a layer computes inner products between its vectors and turns them into new vectors, so that each further layer
doubles the order of the interactions. A linear branch keeps the lower orders, and width and depth scale the model.
Equation: X_0 = [MLP_dense(dense) ; e_1 ; .. ; e_F], vectors in rows; LCB(X) = W_l X; FMB(X) = vectors of
MLP(LayerNorm(flatten(X (X^T Y_l)))); X_{l+1} = LayerNorm([FMB(X_l) ; LCB(X_l)] + R_l X_l); y = MLP(flatten(X_L)), where
R_l is the identity if the numbers of vectors agree and learned otherwise.
Source: Zhang et al., "Wukong: Towards a Scaling Law for Large-Scale Recommendation", ICML 2024 (arXiv 2403.02545).
Deviations: Y_l is a learned matrix, the paper's plain low-rank form, not computed from the input; dense features become
one vector. Of public code it does not take over that FMB's MLP ends in ReLU and dropout, which keeps its vectors from
ever being negative, nor batch norm inside that MLP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from configs.section import ArchConfig, positive, positive_each, probability
from modules.contracts import MemberInput
from modules.cost import Cost, mlp_cost
from modules.layers.mlp import MLP


@dataclass(frozen=True, kw_only=True)
class Config(ArchConfig):
    """Stacked factorization machines."""

    num_layers: int = 3
    """Number of layers; the order of the interactions is up to two to its power."""

    num_fm_vectors: int = 16
    """Vectors that a layer's factorization block gives."""

    num_linear_vectors: int = 16
    """Vectors that a layer's linear block gives."""

    rank: int = 24
    """Columns of Y: inner products are taken with so many mixtures of the vectors instead of with all of them."""

    fm_hidden: tuple[int, ...] = (256, 256)
    """Hidden widths of the network in a factorization block; a last plain layer follows."""

    dense_hidden: tuple[int, ...] = (128, 64)
    """Hidden widths of the network that makes one vector of the dense features; a last plain layer follows."""

    top_hidden: tuple[int, ...] = (256, 128)
    """Hidden widths of the top network; a last layer of width 1 follows."""

    dropout: float = 0.0
    """Probability after each hidden layer of factorization blocks and of the top network."""

    def __post_init__(self) -> None:
        self.refuse(
            positive("num_layers", self.num_layers),
            positive("num_fm_vectors", self.num_fm_vectors),
            positive("num_linear_vectors", self.num_linear_vectors),
            positive("rank", self.rank),
            positive_each("fm_hidden", self.fm_hidden),
            positive_each("dense_hidden", self.dense_hidden),
            positive_each("top_hidden", self.top_hidden),
            probability("dropout", self.dropout),
        )

    def build(self, *, num_dense: int, num_features: int, dim: int) -> nn.Module:
        """The member for these input shapes."""
        return StackedFactorizationMember(
            num_dense=num_dense,
            num_features=num_features,
            dim=dim,
            num_layers=self.num_layers,
            num_fm_vectors=self.num_fm_vectors,
            num_linear_vectors=self.num_linear_vectors,
            rank=self.rank,
            fm_hidden=self.fm_hidden,
            dense_hidden=self.dense_hidden,
            top_hidden=self.top_hidden,
            dropout=self.dropout,
        )

    def cost(self, *, num_dense: int, num_features: int, dim: int) -> Cost:
        """The dense features' network, the layers, and the top network over the last layer's vectors."""
        total = mlp_cost(num_dense, self.dense_hidden, out_features=dim) if num_dense else Cost(0, 0)
        num_vectors, num_out = num_features + (num_dense > 0), self.num_fm_vectors + self.num_linear_vectors
        for _ in range(self.num_layers):
            total += self._layer_cost(num_vectors, dim)
            num_vectors = num_out
        return total + mlp_cost(num_vectors * dim, self.top_hidden, out_features=1)

    def _layer_cost(self, num_vectors: int, dim: int) -> Cost:
        num_out, num_products = self.num_fm_vectors + self.num_linear_vectors, num_vectors * self.rank
        mixings = num_vectors * (self.num_linear_vectors + self.rank + (num_out if num_vectors != num_out else 0))
        norms = Cost(2 * num_products + 2 * dim, 0)
        network = mlp_cost(num_products, self.fm_hidden, out_features=self.num_fm_vectors * dim)
        return Cost(mixings, (mixings + num_products) * dim) + norms + network


class VectorMixing(nn.Module):
    """Linear combinations of a row's vectors: W X, without bias."""

    def __init__(self, *, num_vectors: int, num_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_vectors, num_out, bias=False)

    def forward(self, vectors_BVD: Tensor) -> Tensor:
        """[B, num_vectors, D] to [B, num_out, D]."""
        return self.linear(vectors_BVD.transpose(1, 2)).transpose(1, 2)


class WukongLayer(nn.Module):
    """LayerNorm([FMB(X) ; LCB(X)] + R X).

    Args:
        num_vectors: Of the input.
        dim: Width of every vector.
        num_fm_vectors, num_linear_vectors: Of the output, by either block.
        rank: Columns of Y.
        fm_hidden: Hidden widths of the factorization block's network.
        dropout: Probability after each of those.
    """

    def __init__(
        self,
        *,
        num_vectors: int,
        dim: int,
        num_fm_vectors: int,
        num_linear_vectors: int,
        rank: int,
        fm_hidden: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        self.dim, self.num_fm_vectors = dim, num_fm_vectors
        num_out = num_fm_vectors + num_linear_vectors
        self.linear_block = VectorMixing(num_vectors=num_vectors, num_out=num_linear_vectors)
        self.mixtures = VectorMixing(num_vectors=num_vectors, num_out=rank)
        self.products_norm = nn.LayerNorm(num_vectors * rank)
        self.fm = MLP(
            in_features=num_vectors * rank, hidden=fm_hidden, out_features=num_fm_vectors * dim, dropout=dropout
        )
        self.residual = (
            nn.Identity() if num_vectors == num_out else VectorMixing(num_vectors=num_vectors, num_out=num_out)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, vectors_BVD: Tensor) -> Tensor:
        """[B, num_vectors, D] to [B, num_fm_vectors + num_linear_vectors, D]."""
        products = vectors_BVD @ self.mixtures(vectors_BVD).transpose(1, 2)
        factorized = self.fm(self.products_norm(products.flatten(1))).unflatten(1, (self.num_fm_vectors, self.dim))
        both = torch.cat([factorized, self.linear_block(vectors_BVD)], dim=1)
        return self.norm(both + self.residual(vectors_BVD))


class StackedFactorizationMember(nn.Module):
    """Wukong; `forward` gives one logit per row."""

    first_order: ClassVar[bool] = False

    def __init__(
        self,
        *,
        num_dense: int,
        num_features: int,
        dim: int,
        num_layers: int,
        num_fm_vectors: int,
        num_linear_vectors: int,
        rank: int,
        fm_hidden: Sequence[int],
        dense_hidden: Sequence[int],
        top_hidden: Sequence[int],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dense = MLP(in_features=num_dense, hidden=dense_hidden, out_features=dim) if num_dense else None
        num_out = num_fm_vectors + num_linear_vectors
        self.layers = nn.Sequential(
            *(
                WukongLayer(
                    num_vectors=num_out if layer else num_features + (num_dense > 0),
                    dim=dim,
                    num_fm_vectors=num_fm_vectors,
                    num_linear_vectors=num_linear_vectors,
                    rank=rank,
                    fm_hidden=fm_hidden,
                    dropout=dropout,
                )
                for layer in range(num_layers)
            )
        )
        self.top = MLP(in_features=num_out * dim, hidden=top_hidden, out_features=1, dropout=dropout)

    def forward(self, inputs: MemberInput) -> Tensor:
        """Logits [B]."""
        vectors = inputs.embedded_BFD
        if self.dense is not None:
            vectors = torch.cat([self.dense(inputs.dense_BN).unsqueeze(1), vectors], dim=1)
        return self.top(self.layers(vectors).flatten(1)).squeeze(1)
