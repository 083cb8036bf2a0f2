"""Multi-embedding: several embedding tables, an interaction module on each, and one network on their mean.

Idea: one wide table of embeddings collapses to few directions. Cut it into several narrow ones, let each learn through
an interaction module of its own, and average what these find. It spends the bytes of several tables inside one model,
trained for one loss: what an ensemble on tables of as many bytes is to be held against.
Equation: E_k = columns k d + 1 .. (k + 1) d of every embedding, k = 0 .. K - 1; x_k = [dense ; flatten(E_k)];
I_k(x_k) = MLP_k(x_k), or MLP_k(Cross_k(x_k)) with Cross_k the cross layers x_{l+1} = x_0 * (W_l x_l + b_l) + x_l;
y = MLP(mean_k I_k(x_k)).
Source: Guo, Pan, Wang, Chen, Jiang, Long, "On the Embedding Collapse when Scaling up Recommendation Models", ICML 2024
(arXiv 2310.04400).
Deviations: the tables are equal slices of one table's columns. Under rules that go value by value, such as Adam, slices
learn as tables of their own would; under row-wise Adagrad they share a row's sum of squares, and with it the step size.
All tables are of one width and have modules of one kind, where the published code lets widths differ. Numbers taken as
a vector go into every module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from configs.section import ArchConfig, positive, positive_each, probability
from modules.contracts import MemberInput
from modules.cost import Cost, mlp_cost
from modules.layers.cross import CrossNet, cross_cost
from modules.layers.mlp import MLP

Interaction = Literal["cross", "mlp"]
NUM_LAYERS = 3


@dataclass(frozen=True, kw_only=True)
class Config(ArchConfig):
    """Several tables with an interaction module each, and one network on the modules' mean."""

    numeric: ClassVar[tuple[str, ...]] = ("ids", "scaled", "dense")

    num_tables: int = 2
    """Tables that the columns are cut into; divides the tables' dim."""

    interaction: Interaction = "cross"
    """Each table's module. cross: cross layers of DCNv2 and a network on them; mlp: the network alone."""

    num_layers: int = NUM_LAYERS
    """Cross layers of each module."""

    interaction_hidden: tuple[int, ...] = (256,)
    """Hidden widths of each module's network. Under cross it may be empty: the crosses themselves are averaged."""

    top_hidden: tuple[int, ...] = (128,)
    """Hidden widths of the network on the modules' mean; a last layer of width 1 follows."""

    dropout: float = 0.0
    """Probability after each hidden layer, of the modules and of the top network."""

    batch_norm: bool = False
    """Normalise over the batch before each ReLU, of the modules and of the top network."""

    def __post_init__(self) -> None:
        self.refuse(
            positive("num_tables", self.num_tables),
            positive("num_layers", self.num_layers),
            f"num_layers: {self.num_layers} cross layers have no place in interaction = 'mlp'; remove the key"
            if self.interaction == "mlp" and self.num_layers != NUM_LAYERS
            else None,
            positive_each("interaction_hidden", self.interaction_hidden),
            "interaction_hidden: give at least one width; under interaction = 'mlp' it is all that a module has"
            if self.interaction == "mlp" and not self.interaction_hidden
            else None,
            positive_each("top_hidden", self.top_hidden),
            probability("dropout", self.dropout),
        )

    def build(self, *, num_dense: int, num_features: int, dim: int) -> nn.Module:
        """The member for these input shapes.

        Raises:
            ValueError: the tables' columns cannot be cut into so many.
        """
        below = dim - dim % self.num_tables
        self.refuse(
            f"num_tables: {self.num_tables} tables cannot be cut from the {dim} columns that this member's tables have;"
            f" give them dim = {f'{below} or ' if below else ''}{below + self.num_tables}, or another num_tables"
            if dim % self.num_tables
            else None
        )
        return MultiTableMember(
            num_dense=num_dense,
            num_features=num_features,
            num_tables=self.num_tables,
            table_dim=dim // self.num_tables,
            num_layers=self.num_layers if self.interaction == "cross" else 0,
            interaction_hidden=self.interaction_hidden,
            top_hidden=self.top_hidden,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
        )

    def cost(self, *, num_dense: int, num_features: int, dim: int) -> Cost:
        """Each table's module, and the top network."""
        width = num_dense + num_features * (dim // self.num_tables)
        module = mlp_cost(width, self.interaction_hidden, batch_norm=self.batch_norm)
        if self.interaction == "cross":
            module += cross_cost(width, self.num_layers)
        read = self.interaction_hidden[-1] if self.interaction_hidden else width
        top = mlp_cost(read, self.top_hidden, out_features=1, batch_norm=self.batch_norm)
        return Cost(self.num_tables * module.parameters, self.num_tables * module.multiply_adds) + top


class MultiTableMember(nn.Module):
    """Multi-embedding; `forward` gives one logit per row.

    Args:
        num_dense: Dense features.
        num_features: Id features.
        num_tables: K.
        table_dim: d, columns of an embedding in one table.
        num_layers: Cross layers of each module; 0: it has none.
        interaction_hidden: Hidden widths of each module's network, behind the cross layers.
        top_hidden: Hidden widths of the network on the mean.
        dropout: Probability after each hidden layer.
        batch_norm: Normalise over the batch before each ReLU.
    """

    first_order: ClassVar[bool] = False

    def __init__(
        self,
        *,
        num_dense: int,
        num_features: int,
        num_tables: int,
        table_dim: int,
        num_layers: int,
        interaction_hidden: Sequence[int],
        top_hidden: Sequence[int],
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.shape = (num_tables, table_dim)
        in_features = num_dense + num_features * table_dim

        def module() -> nn.Sequential:
            crosses = [CrossNet(in_features=in_features, num_layers=num_layers)] if num_layers else []
            network = MLP(in_features=in_features, hidden=interaction_hidden, dropout=dropout, batch_norm=batch_norm)
            return nn.Sequential(*crosses, network)

        self.interactions = nn.ModuleList(module() for _ in range(num_tables))
        self.top = MLP(
            in_features=interaction_hidden[-1] if interaction_hidden else in_features,
            hidden=top_hidden,
            out_features=1,
            dropout=dropout,
            batch_norm=batch_norm,
        )

    def forward(self, inputs: MemberInput) -> Tensor:
        """Logits [B]."""
        embedded_BFKd = inputs.embedded_BFD.unflatten(2, self.shape)
        found = [
            interact(torch.cat([inputs.dense_BN, embedded_BFKd[:, :, table].flatten(1)], dim=1))
            for table, interact in enumerate(self.interactions)
        ]
        return self.top(torch.stack(found).mean(dim=0)).squeeze(1)
