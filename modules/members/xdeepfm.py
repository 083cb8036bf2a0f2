"""xDeepFM: a compressed interaction network beside a deep network and a linear part.

Idea: build interactions of exactly one more order with each layer, column by column, so that whole feature vectors meet
instead of single numbers. A deep network beside it finds what such products miss.
Equation: X0 = E; X(k+1)_h = sum_ij W(k)_hij (X(k)_i * X0_j) + c(k)_h for h of H_k maps, * element by element over the
columns; p = all maps of all layers, each summed over its columns; y = <w, dense> + sum_f w_f[id_f] + <v, p> + c +
MLP([dense ; flatten(E)]).
Source: Lian, Zhou, Zhang, Chen, Xie, Sun, "xDeepFM", KDD 2018 (arXiv 1803.05170).
Deviations: each map has a bias c(k)_h, as in FuxiCTR's benchmarks; numeric features given as a dense vector enter the
linear part and the deep network and have no field in the interaction network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from configs.section import ArchConfig, positive_each, probability
from modules.contracts import MemberInput
from modules.cost import Cost, linear_cost, mlp_cost
from modules.layers.mlp import MLP


@dataclass(frozen=True, kw_only=True)
class Config(ArchConfig):
    """Compressed interaction network, deep network and linear part, summed."""

    numeric: ClassVar[tuple[str, ...]] = ("ids", "scaled", "dense")

    cin_hidden: tuple[int, ...] = (64, 64)
    """Maps of each layer of the interaction network."""

    hidden: tuple[int, ...] = (256, 128)
    """Widths of the deep network's hidden layers; empty: no deep network."""

    dropout: float = 0.0
    """Probability after each hidden layer of the deep network."""

    batch_norm: bool = False
    """Normalise over the batch before each ReLU of the deep network."""

    def __post_init__(self) -> None:
        self.refuse(
            positive_each("cin_hidden", self.cin_hidden),
            None if self.cin_hidden else "cin_hidden: give at least one number of maps; mlp has no interaction network",
            positive_each("hidden", self.hidden),
            probability("dropout", self.dropout),
        )

    def build(self, *, num_dense: int, num_features: int, dim: int) -> nn.Module:
        """The member for these input shapes."""
        return CompressedInteractionMember(
            num_dense=num_dense,
            num_features=num_features,
            dim=dim,
            cin_hidden=self.cin_hidden,
            hidden=self.hidden,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
        )

    def cost(self, *, num_dense: int, num_features: int, dim: int) -> Cost:
        """A layer of H maps from G: G F products of columns and the weighting of each for every map, column by column.

        Its parameters are H G F + H; with num_dense numbers, the linear part has as many weights.
        """
        total, maps = linear_cost(num_dense, 1, bias=False), num_features
        for next_maps in self.cin_hidden:
            pairs = maps * num_features
            total += Cost(pairs * next_maps + next_maps, dim * pairs * (1 + next_maps))
            maps = next_maps
        total += linear_cost(sum(self.cin_hidden), 1)
        if self.hidden:
            width = num_dense + num_features * dim
            total += mlp_cost(width, self.hidden, out_features=1, batch_norm=self.batch_norm)
        return total


class MapLayer(nn.Module):
    """One layer of the interaction network: weighted sums of all products of a map and a field.

    Args:
        num_maps: Maps of the layer before.
        num_fields: Fields.
        out_maps: Maps of this layer.
    """

    def __init__(self, *, num_maps: int, num_fields: int, out_maps: int) -> None:
        super().__init__()
        pairs = num_maps * num_fields
        bound = pairs**-0.5  # as a convolution of width 1 over the columns starts
        self.weight = nn.Parameter(torch.empty(out_maps, pairs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_maps).uniform_(-bound, bound))

    def forward(self, maps_BDH: Tensor, fields_BDF: Tensor) -> Tensor:
        """[B, D, num_maps] and [B, D, num_fields] to [B, D, out_maps]."""
        products = maps_BDH.unsqueeze(3) * fields_BDF.unsqueeze(2)
        return linear(products.flatten(2), self.weight, self.bias)


class CompressedInteractionMember(nn.Module):
    """xDeepFM; `forward` gives one logit per row."""

    first_order: ClassVar[bool] = True

    def __init__(
        self,
        *,
        num_dense: int,
        num_features: int,
        dim: int,
        cin_hidden: Sequence[int],
        hidden: Sequence[int],
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.dense_linear = nn.Linear(num_dense, 1, bias=False) if num_dense else None
        before = [num_features, *cin_hidden[:-1]]
        self.map_layers = nn.ModuleList(
            MapLayer(num_maps=maps, num_fields=num_features, out_maps=out_maps)
            for maps, out_maps in zip(before, cin_hidden, strict=True)
        )
        self.cin_output = nn.Linear(sum(cin_hidden), 1)
        self.deep = (
            MLP(
                in_features=num_dense + num_features * dim,
                hidden=hidden,
                out_features=1,
                dropout=dropout,
                batch_norm=batch_norm,
            )
            if hidden
            else None
        )

    def forward(self, inputs: MemberInput) -> Tensor:
        """Logits [B]."""
        assert inputs.first_order_BF is not None, "the ensemble gives first-order weights to this member"
        logits = inputs.first_order_BF.sum(dim=1) + self._interactions(inputs.embedded_BFD)
        if self.dense_linear is not None:
            logits = logits + self.dense_linear(inputs.dense_BN).squeeze(1)
        if self.deep is not None:
            logits = logits + self.deep(torch.cat([inputs.dense_BN, inputs.embedded_BFD.flatten(1)], dim=1)).squeeze(1)
        return logits

    def _interactions(self, embedded_BFD: Tensor) -> Tensor:
        """The interaction network's part of the logits, [B]."""
        fields_BDF = embedded_BFD.transpose(1, 2).contiguous()
        maps_BDH, pooled = fields_BDF, []
        for layer in self.map_layers:
            maps_BDH = layer(maps_BDH, fields_BDF)
            pooled.append(maps_BDH.sum(dim=1))
        interactions: Tensor = self.cin_output(torch.cat(pooled, dim=1)).squeeze(1)
        return interactions
