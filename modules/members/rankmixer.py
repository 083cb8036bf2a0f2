"""RankMixer: tokens made of groups of features, mixed without weights and each transformed by a network of its own.

Idea: cut every token into as many pieces as there are tokens and let each new token take one piece of all, a mixing
that costs no arithmetic. A feed-forward network for each token then holds nearly all weights, in large matrix products.
Equation: x_t = W_t g_t + c_t, where g_t holds the t-th group of [dense ; e_1 ; .. ; e_F] side by side;
S = LayerNorm(X + mix(X)), where row h of mix(X) is [piece h of x_1 ; .. ; piece h of x_T]; X' = LayerNorm(S + FFN(S)),
where FFN(S)_t = B_t GELU(A_t s_t + a_t) + b_t; y = MLP(mean_t x_t) after the last layer.
Source: Zhu et al., "RankMixer: Scaling Up Ranking Models in Industrial Recommenders", CIKM 2025 (arXiv 2507.15551).
Deviations: groups are neighbouring fields in the data's order, as many in each as possible, instead of chosen by
meaning; no mixture of experts. Of public code it does not take over tokens that are the fields themselves, which ties
their width to the number of fields, nor one normalisation over the whole batch: each token is normalised by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from configs.section import ArchConfig, positive, positive_each, probability
from modules.contracts import MemberInput
from modules.cost import Cost, linear_cost, mlp_cost
from modules.layers.dropout import Dropout
from modules.layers.mlp import MLP

Pooling = Literal["mean", "flatten"]


@dataclass(frozen=True, kw_only=True)
class Config(ArchConfig):
    """Mixed tokens with a network each."""

    num_tokens: int = 8
    """Number of tokens, and of the pieces that each is cut into. With more tokens than features, neighbouring tokens
    read the same feature through matrices of their own."""

    token_dim: int = 64
    """Width of a token; a multiple of num_tokens."""

    num_layers: int = 2
    """Number of layers, each a mixing and the tokens' networks."""

    expansion: int = 2
    """Width of a token network's hidden layer, in widths of a token."""

    pooling: Pooling = "mean"
    """What the top network reads. mean: the tokens' mean, as published; flatten: the tokens side by side."""

    top_hidden: tuple[int, ...] = (256, 128)
    """Hidden widths of the top network; a last layer of width 1 follows."""

    dropout: float = 0.0
    """Probability after each hidden layer, of tokens and of the top network."""

    def __post_init__(self) -> None:
        self.refuse(
            positive("num_tokens", self.num_tokens),
            positive("token_dim", self.token_dim),
            positive("num_layers", self.num_layers),
            positive("expansion", self.expansion),
            positive_each("top_hidden", self.top_hidden),
            probability("dropout", self.dropout),
            f"token_dim: {self.token_dim} is no multiple of num_tokens = {self.num_tokens}; take "
            f"{-(-self.token_dim // self.num_tokens) * self.num_tokens}"
            if self.num_tokens > 0 and self.token_dim % self.num_tokens
            else None,
        )

    def build(self, *, num_dense: int, num_features: int, dim: int) -> nn.Module:
        """The member for these input shapes."""
        return TokenMixingMember(
            num_dense=num_dense,
            num_features=num_features,
            dim=dim,
            num_tokens=self.num_tokens,
            token_dim=self.token_dim,
            num_layers=self.num_layers,
            expansion=self.expansion,
            pooling=self.pooling,
            top_hidden=self.top_hidden,
            dropout=self.dropout,
        )

    def cost(self, *, num_dense: int, num_features: int, dim: int) -> Cost:
        """The groups' projections, two layers for each token and mixing layer, and the top network."""
        total, width = Cost(0, 0), self.token_dim
        for start, end in group_columns(feature_widths(num_dense, num_features, dim), self.num_tokens):
            total += linear_cost(end - start, width)
        token = mlp_cost(width, (self.expansion * width,), out_features=width)
        for _ in range(self.num_layers):
            total += Cost(self.num_tokens * token.parameters + 4 * width, self.num_tokens * token.multiply_adds)
        read = width * (self.num_tokens if self.pooling == "flatten" else 1)
        return total + mlp_cost(read, self.top_hidden, out_features=1)


def feature_widths(num_dense: int, num_features: int, dim: int) -> list[int]:
    """Columns of each feature, the dense ones being one together."""
    return [num_dense] * (num_dense > 0) + [dim] * num_features


def group_columns(widths: Sequence[int], num_groups: int) -> list[tuple[int, int]]:
    """First column and the one behind the last of each group of neighbouring features.

    Groups differ by one feature at most; with more groups than features, neighbouring groups are the same feature.
    """
    ends = [sum(widths[:count]) for count in range(len(widths) + 1)]
    firsts = [group * len(widths) // num_groups for group in range(num_groups)]
    lasts = [(group + 1) * len(widths) // num_groups for group in range(num_groups)]
    return [(ends[first], ends[max(last, first + 1)]) for first, last in zip(firsts, lasts, strict=True)]


class Tokens(nn.Module):
    """Projects each group of features to a token.

    Args:
        widths: Columns of each feature.
        num_tokens: Number of groups.
        token_dim: Width of a token.
    """

    def __init__(self, *, widths: Sequence[int], num_tokens: int, token_dim: int) -> None:
        super().__init__()
        self.columns = group_columns(widths, num_tokens)
        self.projections = nn.ModuleList(nn.Linear(end - start, token_dim) for start, end in self.columns)

    def forward(self, values: Tensor) -> Tensor:
        """[B, sum of widths] to [B, T, token_dim]."""
        tokens = [
            project(values[:, start:end]) for (start, end), project in zip(self.columns, self.projections, strict=True)
        ]
        return torch.stack(tokens, dim=1)


class TokenLinear(nn.Module):
    """A linear layer for each token, all in one batched matrix product; starts as `nn.Linear` does."""

    def __init__(self, *, num_tokens: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = in_features**-0.5
        self.weight = nn.Parameter(torch.empty(num_tokens, in_features, out_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_tokens, 1, out_features).uniform_(-bound, bound))

    def forward(self, tokens_TBD: Tensor) -> Tensor:
        """[T, B, in_features] to [T, B, out_features]."""
        return torch.baddbmm(self.bias, tokens_TBD, self.weight)


class MixingLayer(nn.Module):
    """Token mixing and the tokens' networks, each added to its input and normalised over a token's columns.

    Args:
        num_tokens: Number of tokens T.
        token_dim: Width D of a token; a multiple of T.
        expansion: Width of a network's hidden layer, in widths of a token.
        dropout: Probability after that.
    """

    def __init__(self, *, num_tokens: int, token_dim: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.pieces = (num_tokens, token_dim // num_tokens)
        self.mixing_norm = nn.LayerNorm(token_dim)
        self.first = TokenLinear(num_tokens=num_tokens, in_features=token_dim, out_features=expansion * token_dim)
        self.dropout = Dropout(dropout) if dropout else nn.Identity()
        self.second = TokenLinear(num_tokens=num_tokens, in_features=expansion * token_dim, out_features=token_dim)
        self.network_norm = nn.LayerNorm(token_dim)

    def forward(self, tokens_BTD: Tensor) -> Tensor:
        """[B, T, D] to the same shape."""
        mixed = tokens_BTD.unflatten(2, self.pieces).transpose(1, 2).flatten(2)
        tokens_BTD = self.mixing_norm(tokens_BTD + mixed)
        hidden_TBD = self.dropout(gelu(self.first(tokens_BTD.transpose(0, 1))))
        return self.network_norm(tokens_BTD + self.second(hidden_TBD).transpose(0, 1))


class TokenMixingMember(nn.Module):
    """RankMixer; `forward` gives one logit per row."""

    first_order: ClassVar[bool] = False

    def __init__(
        self,
        *,
        num_dense: int,
        num_features: int,
        dim: int,
        num_tokens: int,
        token_dim: int,
        num_layers: int,
        expansion: int,
        pooling: Pooling,
        top_hidden: Sequence[int],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        widths = feature_widths(num_dense, num_features, dim)
        self.tokens = Tokens(widths=widths, num_tokens=num_tokens, token_dim=token_dim)
        self.layers = nn.Sequential(
            *(
                MixingLayer(num_tokens=num_tokens, token_dim=token_dim, expansion=expansion, dropout=dropout)
                for _ in range(num_layers)
            )
        )
        self.flatten = pooling == "flatten"
        read = token_dim * (num_tokens if self.flatten else 1)
        self.top = MLP(in_features=read, hidden=top_hidden, out_features=1, dropout=dropout)

    def forward(self, inputs: MemberInput) -> Tensor:
        """Logits [B]."""
        values = torch.cat([inputs.dense_BN, inputs.embedded_BFD.flatten(1)], dim=1)
        tokens_BTD = self.layers(self.tokens(values))
        return self.top(tokens_BTD.flatten(1) if self.flatten else tokens_BTD.mean(dim=1)).squeeze(1)
