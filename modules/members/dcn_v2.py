"""DCN-V2: a cross network with a weight matrix a layer, beside or below a deep network.

Idea: each cross layer multiplies the input, column by column, by a linear map of the layer before, which raises the
degree of the crosses by one. The maps are full matrices, of low rank, or mixtures of low-rank experts that a gate
chooses among.
Equation: x_0 = [dense ; flatten(E)]; x_{l+1} = x_0 * (W_l x_l + b_l) + x_l, with W_l full or U_l V_l; with K experts
x_{l+1} = sum_k g_k(x_l) x_0 * (U_kl V_kl x_l + b_l) + x_l, g the softmax of a linear map, or with a nonlinearity s in
the subspaces U_kl s(C_kl s(V_kl x_l)); parallel: y = <w, [x_L ; h(x_0)]> + b; stacked: y = <w, h(x_L)> + b; cross: y =
<w, x_L> + b; h are the last hidden values of an MLP.
Source: Wang et al., "DCN V2: Improved Deep & Cross Network", WWW 2021 (arXiv 2008.13535).
Deviations: none in the equations; where the paper leaves it open, the gate is one for all layers and there is none for
a single expert. The structure cross, without a deep network, is FuxiCTR's (crossnet_only).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from configs.section import ArchConfig, positive, positive_each, probability
from modules.contracts import MemberInput
from modules.cost import Cost, linear_cost, mlp_cost
from modules.layers.cross import CrossNet, MixtureCrossNet, Projection, cross_cost, mixture_cross_cost
from modules.layers.mlp import MLP

Structure = Literal["parallel", "stacked", "cross"]


@dataclass(frozen=True, kw_only=True)
class Config(ArchConfig):
    """Cross network v2 with a deep network."""

    num_layers: int = 3
    """Number of cross layers."""

    low_rank_dim: int | None = None
    """Rank of the cross layers' weights, of each expert's where there are several; not given: full rank."""

    num_experts: int = 1
    """Low-rank experts of each cross layer, mixed by a gate; above 1 it needs low_rank_dim. FuxiCTR's mixture has 4."""

    projection: Projection = "linear"
    """The nonlinearity in the low-rank subspaces, which needs low_rank_dim; FuxiCTR's mixture has tanh."""

    hidden: tuple[int, ...] = (256, 128)
    """Widths of the deep network's hidden layers; [] where there is none."""

    structure: Structure = "parallel"
    """parallel: the deep network reads the input; stacked: it reads the crosses; cross: there is none."""

    dropout: float = 0.0
    """Probability after each hidden layer."""

    batch_norm: bool = False
    """Normalise over the batch before each ReLU of the deep network."""

    def __post_init__(self) -> None:
        self.refuse(
            positive("num_layers", self.num_layers),
            positive("low_rank_dim", self.low_rank_dim),
            positive("num_experts", self.num_experts),
            positive_each("hidden", self.hidden),
            probability("dropout", self.dropout),
            *(
                f"{key}: {value!r} works on low-rank cross layers; give low_rank_dim"
                for key, value, plain in (
                    ("num_experts", self.num_experts, 1),
                    ("projection", self.projection, "linear"),
                )
                if value != plain and self.low_rank_dim is None
            ),
            None
            if self.hidden or self.structure == "cross"
            else "hidden: give at least one width; the output reads the last hidden layer",
            *(
                f"{key}: {value!r} has no place without a deep network; set {key} = {none}, or another structure"
                for key, value, none in (
                    ("hidden", list(self.hidden), "[]"),
                    ("dropout", self.dropout, "0"),
                    ("batch_norm", self.batch_norm, "false"),
                )
                if value and self.structure == "cross"
            ),
        )

    def build(self, *, num_dense: int, num_features: int, dim: int) -> nn.Module:
        """The member for these input shapes."""
        return CrossMember(
            in_features=num_dense + num_features * dim,
            num_layers=self.num_layers,
            low_rank_dim=self.low_rank_dim,
            num_experts=self.num_experts,
            projection=self.projection,
            hidden=self.hidden,
            structure=self.structure,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
        )

    def cost(self, *, num_dense: int, num_features: int, dim: int) -> Cost:
        """The crosses', the network's, and the output layer over what it reads."""
        width = num_dense + num_features * dim
        if self.low_rank_dim is None or (self.num_experts == 1 and self.projection == "linear"):
            crosses = cross_cost(width, self.num_layers, low_rank_dim=self.low_rank_dim)
        else:
            crosses = mixture_cross_cost(
                width,
                self.num_layers,
                low_rank_dim=self.low_rank_dim,
                num_experts=self.num_experts,
                projection=self.projection,
            )
        read = (width if self.structure != "stacked" else 0) + (self.hidden[-1] if self.hidden else 0)
        return crosses + mlp_cost(width, self.hidden, batch_norm=self.batch_norm) + linear_cost(read, 1)


class CrossMember(nn.Module):
    """DCN-V2; `forward` gives one logit per row."""

    first_order: ClassVar[bool] = False

    def __init__(
        self,
        *,
        in_features: int,
        num_layers: int,
        hidden: Sequence[int],
        low_rank_dim: int | None = None,
        num_experts: int = 1,
        projection: Projection = "linear",
        structure: Structure = "parallel",
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.structure = structure
        self.cross: nn.Module
        if low_rank_dim is None or (num_experts == 1 and projection == "linear"):
            self.cross = CrossNet(in_features=in_features, num_layers=num_layers, low_rank_dim=low_rank_dim)
        else:
            self.cross = MixtureCrossNet(
                in_features=in_features,
                num_layers=num_layers,
                low_rank_dim=low_rank_dim,
                num_experts=num_experts,
                projection=projection,
            )
        width = in_features if structure != "stacked" else 0
        self.deep = None
        if structure != "cross":
            self.deep = MLP(in_features=in_features, hidden=hidden, dropout=dropout, batch_norm=batch_norm)
            width += self.deep.out_features
        self.output = nn.Linear(width, 1)

    def forward(self, inputs: MemberInput) -> Tensor:
        """Logits [B]."""
        x0 = torch.cat([inputs.dense_BN, inputs.embedded_BFD.flatten(1)], dim=1)
        last = self.cross(x0)
        if self.deep is not None:
            last = self.deep(last) if self.structure == "stacked" else torch.cat([last, self.deep(x0)], dim=1)
        return self.output(last).squeeze(1)
