"""GDCN: a cross network whose every layer passes an information gate, beside or below a deep network.

Idea: crosses of high degree are mostly noise, so a gate that reads the layer before weighs each value of a new cross
before it is added. Deep cross networks then keep improving where those without gates stop after two or three layers.
Equation: x_0 = [dense ; flatten(E)]; x_{l+1} = x_0 * (W_l x_l + b_l) * sigmoid(V_l x_l) + x_l; parallel (GDCN-P):
y = <w, [x_L ; h]> + b, where h are the last hidden values of MLP(x_0); stacked (GDCN-S): y = MLP(x_L).
Source: Wang, Gu, Li, Lu, Zhang, Gu, "Towards Deeper, Lighter and Interpretable Cross Network for CTR Prediction",
CIKM 2023 (arXiv 2311.04635).
Deviations: b_l starts as a PyTorch bias does, not uniform in [0, 1) as in public code; the paper's field-level choice
of embedding widths is left out, since all tables of a group have one width.
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
from modules.layers.gated_cross import GatedCrossNet, gated_cross_cost
from modules.layers.mlp import MLP

Structure = Literal["parallel", "stacked"]


@dataclass(frozen=True, kw_only=True)
class Config(ArchConfig):
    """Gated cross network with a deep network."""

    num_layers: int = 3
    """Number of gated cross layers."""

    hidden: tuple[int, ...] = (256, 128)
    """Widths of the deep network's hidden layers."""

    structure: Structure = "parallel"
    """parallel: the deep network reads the input; stacked: it reads the crosses."""

    dropout: float = 0.0
    """Probability after each hidden layer."""

    batch_norm: bool = False
    """Normalise over the batch before each ReLU."""

    def __post_init__(self) -> None:
        self.refuse(
            positive("num_layers", self.num_layers),
            positive_each("hidden", self.hidden),
            probability("dropout", self.dropout),
            None if self.hidden else "hidden: give at least one width; the output reads the last hidden layer",
        )

    def build(self, *, num_dense: int, num_features: int, dim: int) -> nn.Module:
        """The member for these input shapes."""
        return GatedCrossMember(
            in_features=num_dense + num_features * dim,
            num_layers=self.num_layers,
            hidden=self.hidden,
            structure=self.structure,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
        )

    def cost(self, *, num_dense: int, num_features: int, dim: int) -> Cost:
        """Gated crosses, the deep network, and an output layer over what it reads."""
        width = num_dense + num_features * dim
        read = self.hidden[-1] + (width if self.structure == "parallel" else 0)
        deep = mlp_cost(width, self.hidden, batch_norm=self.batch_norm)
        return gated_cross_cost(width, self.num_layers) + deep + linear_cost(read, 1)


class GatedCrossMember(nn.Module):
    """GDCN; `forward` gives one logit per row."""

    first_order: ClassVar[bool] = False

    def __init__(
        self,
        *,
        in_features: int,
        num_layers: int,
        hidden: Sequence[int],
        structure: Structure = "parallel",
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.parallel = structure == "parallel"
        self.cross = GatedCrossNet(in_features=in_features, num_layers=num_layers)
        self.deep = MLP(in_features=in_features, hidden=hidden, dropout=dropout, batch_norm=batch_norm)
        self.output = nn.Linear(self.deep.out_features + (in_features if self.parallel else 0), 1)

    def forward(self, inputs: MemberInput) -> Tensor:
        """Logits [B]."""
        x0 = torch.cat([inputs.dense_BN, inputs.embedded_BFD.flatten(1)], dim=1)
        crossed = self.cross(x0)
        read = torch.cat([crossed, self.deep(x0)], dim=1) if self.parallel else self.deep(crossed)
        return self.output(read).squeeze(1)
