"""DCN-V2: a cross network beside or below a deep network.

Equation: x_0 = [dense ; flatten(E)]; x_{l+1} = x_0 * (W_l x_l + b_l) + x_l; parallel: y = w [x_L ; MLP(x_0)] + b;
stacked: y = w MLP(x_L) + b. Source: Wang et al., "DCN V2", WWW 2021 (arXiv 2008.13535). Deviation: the
low-rank form has one expert (W_l = U_l V_l), not a gated mixture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from configs.section import ArchConfig, positive, positive_each, probability
from modules.contracts import MemberInput
from modules.layers.cross import CrossNet
from modules.layers.mlp import MLP

Structure = Literal["parallel", "stacked"]


@dataclass(frozen=True, kw_only=True)
class Config(ArchConfig):
    """Cross network v2 with a deep network."""

    num_layers: int = 3
    """Number of cross layers."""

    low_rank_dim: int | None = None
    """Rank of the cross layers' weights; not given: full rank."""

    hidden: tuple[int, ...] = (256, 128)
    """Widths of the deep network's hidden layers."""

    structure: Structure = "parallel"
    """parallel: the deep network reads the input; stacked: it reads the crosses."""

    dropout: float = 0.0
    """Probability after each hidden layer."""

    def __post_init__(self) -> None:
        self.refuse(
            positive("num_layers", self.num_layers),
            positive("low_rank_dim", self.low_rank_dim),
            positive_each("hidden", self.hidden),
            probability("dropout", self.dropout),
            None if self.hidden else "hidden: give at least one width; the output reads the last hidden layer",
        )

    def build(self, *, num_dense: int, num_features: int, dim: int) -> nn.Module:
        """The member for these input shapes."""
        return CrossMember(
            in_features=num_dense + num_features * dim,
            num_layers=self.num_layers,
            low_rank_dim=self.low_rank_dim,
            hidden=self.hidden,
            structure=self.structure,
            dropout=self.dropout,
        )


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
        structure: Structure = "parallel",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.structure = structure
        self.cross = CrossNet(in_features=in_features, num_layers=num_layers, low_rank_dim=low_rank_dim)
        self.deep = MLP(in_features=in_features, hidden=hidden, dropout=dropout)
        width = self.deep.out_features + (in_features if structure == "parallel" else 0)
        self.output = nn.Linear(width, 1)

    def forward(self, inputs: MemberInput) -> Tensor:
        """Logits [B]."""
        x0 = torch.cat([inputs.dense_BN, inputs.embedded_BFD.flatten(1)], dim=1)
        crossed = self.cross(x0)
        last = self.deep(crossed) if self.structure == "stacked" else torch.cat([crossed, self.deep(x0)], dim=1)
        return self.output(last).squeeze(1)
