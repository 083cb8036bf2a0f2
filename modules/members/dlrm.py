"""DLRM: dot products of all pairs of embeddings and of the projected dense features, below a network.

Idea: a network turns the dense features into one more vector of the tables' dim, and a second network reads all
pairwise inner products. Interactions cost no parameters, which leaves the model's size to the tables.
Equation: z_0 = ReLU(MLP_dense(dense)) of width D; dot: y = MLP_top([z_0 ; <v_i, v_j> for i < j over {z_0, e_1 ..
e_F}]); cat: y = MLP_top([z_0 ; e_1 ; .. ; e_F]).
Source: Naumov et al., "Deep Learning Recommendation Model for Personalization and Recommendation Systems", 2019 (arXiv
1906.00091); its code has both interactions.
Deviations: Linear layers start as PyTorch's do. Where the data have no dense feature, z_0 is left out, as in FuxiCTR:
dot reads the products of the embeddings alone (on frappe_x1 a learned vector in its place did worse), and a single
embedding, which has none, itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from configs.section import ArchConfig, positive_each, probability
from modules.contracts import MemberInput
from modules.cost import Cost, mlp_cost
from modules.layers.interaction import DotInteraction, dot_cost, num_pairs
from modules.layers.mlp import MLP

Interaction = Literal["dot", "cat"]


@dataclass(frozen=True, kw_only=True)
class Config(ArchConfig):
    """DLRM."""

    dense_hidden: tuple[int, ...] = (128, 64)
    """Hidden widths of the dense network; a last layer of the tables' dim follows."""

    top_hidden: tuple[int, ...] = (256, 128)
    """Hidden widths of the top network; a last layer of width 1 follows."""

    interaction: Interaction = "dot"
    """What the top network reads. dot: the inner products of all pairs of vectors; cat: the vectors side by side."""

    dropout: float = 0.0
    """Probability after each hidden layer of the top network."""

    batch_norm: bool = False
    """Normalise over the batch before the ReLU of each hidden layer, in both networks."""

    def __post_init__(self) -> None:
        self.refuse(
            positive_each("dense_hidden", self.dense_hidden),
            positive_each("top_hidden", self.top_hidden),
            probability("dropout", self.dropout),
        )

    def build(self, *, num_dense: int, num_features: int, dim: int) -> nn.Module:
        """The member for these input shapes."""
        return DotMember(
            num_dense=num_dense,
            num_features=num_features,
            dim=dim,
            dense_hidden=self.dense_hidden,
            top_hidden=self.top_hidden,
            interaction=self.interaction,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
        )

    def cost(self, *, num_dense: int, num_features: int, dim: int) -> Cost:
        """Both networks', and for dot the products of all vectors with one another."""
        bottom = Cost(0, 0)
        if num_dense:
            bottom = mlp_cost(num_dense, self.dense_hidden, out_features=dim, batch_norm=self.batch_norm)
        num_vectors = num_features + (num_dense > 0)
        width = num_vectors * dim
        if self.interaction == "dot" and num_vectors > 1:
            bottom += dot_cost(num_vectors, dim)
            width = num_pairs(num_vectors) + (dim if num_dense else 0)
        return bottom + mlp_cost(width, self.top_hidden, out_features=1, batch_norm=self.batch_norm)


class DotMember(nn.Module):
    """DLRM; `forward` gives one logit per row."""

    first_order: ClassVar[bool] = False

    def __init__(
        self,
        *,
        num_dense: int,
        num_features: int,
        dim: int,
        dense_hidden: Sequence[int],
        top_hidden: Sequence[int],
        interaction: Interaction = "dot",
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.dense = self.interaction = None
        if num_dense:
            self.dense = MLP(in_features=num_dense, hidden=dense_hidden, out_features=dim, batch_norm=batch_norm)
        num_vectors = num_features + (num_dense > 0)
        width = num_vectors * dim
        if interaction == "dot" and num_vectors > 1:
            self.interaction = DotInteraction(num_vectors=num_vectors)
            width = self.interaction.out_features + (dim if num_dense else 0)
        self.top = MLP(in_features=width, hidden=top_hidden, out_features=1, dropout=dropout, batch_norm=batch_norm)

    def forward(self, inputs: MemberInput) -> Tensor:
        """Logits [B]."""
        vectors_BVD = inputs.embedded_BFD
        projected = []
        if self.dense is not None:
            projected = [torch.relu(self.dense(inputs.dense_BN))]
            vectors_BVD = torch.cat([projected[0].unsqueeze(1), vectors_BVD], dim=1)
        if self.interaction is None:
            return self.top(vectors_BVD.flatten(1)).squeeze(1)
        return self.top(torch.cat([*projected, self.interaction(vectors_BVD)], dim=1)).squeeze(1)
