"""DLRM-DCNv2, MLPerf's benchmark: low-rank crosses of the embeddings and the projected dense features.

Idea: DLRM with a cross network in the place of its dot products, so that interactions are of any degree and learned. It
is the reference model of the field's hardware benchmark.
Equation: z_0 = ReLU(MLP_dense(dense)) of width D; x_0 = [z_0 ; e_1 ; .. ; e_F]; x_{l+1} = x_0 * (W_l V_l x_l + b_l) +
x_l; y = MLP_top(x_L).
Source: MLCommons training, recommendation_v2, whose network is TorchRec's `DLRM_DCN`; the crosses are those of Wang et
al., "DCN V2: Improved Deep & Cross Network", WWW 2021 (arXiv 2008.13535), with one expert.
Deviations: where the data have no dense feature, z_0 is a learned vector, the same for every row. As there, W_l and V_l
start Xavier-normal and b_l at zero.
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
from modules.layers.cross import CrossNet, cross_cost
from modules.layers.mlp import MLP


@dataclass(frozen=True, kw_only=True)
class Config(ArchConfig):
    """DLRM with low-rank crosses."""

    dense_hidden: tuple[int, ...] = (512, 256)
    """Hidden widths of the dense network; a last layer of the tables' dim follows."""

    num_layers: int = 3
    """Number of cross layers."""

    low_rank_dim: int = 512
    """Rank of the cross layers' weights."""

    top_hidden: tuple[int, ...] = (1024, 1024, 512, 256)
    """Hidden widths of the top network; a last layer of width 1 follows."""

    dropout: float = 0.0
    """Probability after each hidden layer of the top network."""

    batch_norm: bool = False
    """Normalise over the batch before the ReLU of each hidden layer, in both networks."""

    def __post_init__(self) -> None:
        self.refuse(
            positive_each("dense_hidden", self.dense_hidden),
            positive("num_layers", self.num_layers),
            positive("low_rank_dim", self.low_rank_dim),
            positive_each("top_hidden", self.top_hidden),
            probability("dropout", self.dropout),
        )

    def build(self, *, num_dense: int, num_features: int, dim: int) -> nn.Module:
        """The member for these input shapes."""
        return CrossedVectorsMember(
            num_dense=num_dense,
            num_features=num_features,
            dim=dim,
            dense_hidden=self.dense_hidden,
            num_layers=self.num_layers,
            low_rank_dim=self.low_rank_dim,
            top_hidden=self.top_hidden,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
        )

    def cost(self, *, num_dense: int, num_features: int, dim: int) -> Cost:
        """Both networks' and the crosses'."""
        bottom = Cost(dim, 0)
        if num_dense:
            bottom = mlp_cost(num_dense, self.dense_hidden, out_features=dim, batch_norm=self.batch_norm)
        width = (num_features + 1) * dim
        crosses = cross_cost(width, self.num_layers, low_rank_dim=self.low_rank_dim)
        return bottom + crosses + mlp_cost(width, self.top_hidden, out_features=1, batch_norm=self.batch_norm)


class CrossedVectorsMember(nn.Module):
    """DLRM-DCNv2; `forward` gives one logit per row."""

    first_order: ClassVar[bool] = False

    def __init__(
        self,
        *,
        num_dense: int,
        num_features: int,
        dim: int,
        dense_hidden: Sequence[int],
        num_layers: int,
        low_rank_dim: int,
        top_hidden: Sequence[int],
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.dense = self.constant = None
        if num_dense:
            self.dense = MLP(in_features=num_dense, hidden=dense_hidden, out_features=dim, batch_norm=batch_norm)
        else:
            self.constant = nn.Parameter(torch.empty(dim).uniform_(-(dim**-0.5), dim**-0.5))
        width = (num_features + 1) * dim
        self.cross = CrossNet(in_features=width, num_layers=num_layers, low_rank_dim=low_rank_dim)
        for name, weight in self.cross.named_parameters():
            nn.init.zeros_(weight) if name.endswith("bias") else nn.init.xavier_normal_(weight)
        self.top = MLP(in_features=width, hidden=top_hidden, out_features=1, dropout=dropout, batch_norm=batch_norm)

    def forward(self, inputs: MemberInput) -> Tensor:
        """Logits [B]."""
        if self.dense is not None:
            projected_BD = torch.relu(self.dense(inputs.dense_BN))
        else:
            assert self.constant is not None
            projected_BD = self.constant.expand(inputs.embedded_BFD.shape[0], -1)
        x0 = torch.cat([projected_BD, inputs.embedded_BFD.flatten(1)], dim=1)
        return self.top(self.cross(x0)).squeeze(1)
