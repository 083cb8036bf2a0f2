"""FinalMLP: two deep networks on differently gated features, fused by a bilinear form.

Idea: give each of two plain networks its own view of the features, by gates that scale every embedding column, and let
their outputs multiply. Two well-tuned networks and a product can do what hand-made interaction layers do.
Equation: x = [dense ; flatten(E)]; g_s = 2 sigmoid(MLP_gate_s(u_s)), u_s a learned vector or the embedding of one
field; a = MLP_1(x * g_1), b = MLP_2(x * g_2); y = <w_1, a> + c_1 + <w_2, b> + c_2 + sum_h a_h^T W_h b_h, a_h and b_h
the h-th of equal slices of a and b.
Source: Mao, Zhu, Su, Cai, Li, Dong, "FinalMLP", AAAI 2023 (arXiv 2304.00902).
Deviations: a gate whose context is a field reads that field's embedding, or with `gate_dim` columns of it that nothing
else reads, where the published code keeps another table for the gates; it reads one field at most; a learned context
starts as small noise instead of zeros, so that the weights behind it learn from the first step on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from configs.section import ArchConfig, not_negative, positive, positive_each, probability
from modules.contracts import MemberInput
from modules.cost import Cost, linear_cost, mlp_cost
from modules.layers.mlp import MLP

CONTEXT_SPREAD = 1e-4


@dataclass(frozen=True, kw_only=True)
class Config(ArchConfig):
    """Two streams with feature selection and bilinear fusion."""

    numeric: ClassVar[tuple[str, ...]] = ("scaled", "ids", "dense")

    first_hidden: tuple[int, ...] = (256, 128)
    """Widths of the first stream's hidden layers."""

    second_hidden: tuple[int, ...] = (256, 128)
    """Widths of the second stream's hidden layers."""

    first_dropout: float = 0.0
    """Probability after each hidden layer of the first stream."""

    second_dropout: float = 0.0
    """Probability after each hidden layer of the second stream."""

    first_batch_norm: bool = False
    """Normalise over the batch before each ReLU of the first stream."""

    second_batch_norm: bool = False
    """Normalise over the batch before each ReLU of the second stream."""

    gates: bool = True
    """Each stream scales every column of its input by a gate of its own."""

    gate_hidden: tuple[int, ...] = (64,)
    """Widths of the hidden layers of the networks that make the gates."""

    first_context: int | None = None
    """The field whose embedding makes the first stream's gate, counted from 0 in the order of the member's id features;
    not given: a learned vector, the same for all rows."""

    second_context: int | None = None
    """The field whose embedding makes the second stream's gate; not given: a learned vector."""

    gate_dim: int = 0
    """The last columns of every embedding that the gates alone read, as if these had tables of their own; 0: the gates
    read the columns that the streams read."""

    num_heads: int = 1
    """Equal slices of the streams' outputs that are multiplied slice by slice."""

    def __post_init__(self) -> None:
        streams = (("first_hidden", self.first_hidden), ("second_hidden", self.second_hidden))
        contexts = (("first_context", self.first_context), ("second_context", self.second_context))
        self.refuse(
            *(positive_each(key, hidden) for key, hidden in streams),
            *(f"{key}: give at least one width; the fusion reads it" for key, hidden in streams if not hidden),
            *(
                f"{key}: the last width, {hidden[-1]}, is not a multiple of num_heads, which is {self.num_heads}"
                for key, hidden in streams
                if hidden and self.num_heads > 0 and hidden[-1] % self.num_heads
            ),
            probability("first_dropout", self.first_dropout),
            probability("second_dropout", self.second_dropout),
            positive_each("gate_hidden", self.gate_hidden),
            *(not_negative(key, field) for key, field in contexts),
            *(
                f"{key}: without gates nothing reads it; remove it, or set gates = true"
                for key, field in contexts
                if field is not None and not self.gates
            ),
            not_negative("gate_dim", self.gate_dim),
            "gate_dim: no gate reads a field; give first_context or second_context, or remove it"
            if self.gate_dim and (not self.gates or {self.first_context, self.second_context} == {None})
            else None,
            positive("num_heads", self.num_heads),
        )

    def build(self, *, num_dense: int, num_features: int, dim: int) -> nn.Module:
        """The member for these input shapes.

        Raises:
            ValueError: a gate's context is no field.
        """
        contexts = (("first_context", self.first_context), ("second_context", self.second_context))
        self.refuse(
            *(
                f"{key}: {field} is no field; this member sees {num_features}, counted from 0"
                for key, field in contexts
                if field is not None and field >= num_features
            ),
            f"gate_dim: {self.gate_dim} columns of {dim} leave the streams none; give tables of more"
            if self.gate_dim >= dim
            else None,
        )
        return TwoStreamMember(
            num_dense=num_dense,
            num_features=num_features,
            dim=dim,
            hidden=(self.first_hidden, self.second_hidden),
            dropout=(self.first_dropout, self.second_dropout),
            batch_norm=(self.first_batch_norm, self.second_batch_norm),
            gate_hidden=self.gate_hidden if self.gates else None,
            contexts=(self.first_context, self.second_context),
            gate_dim=self.gate_dim,
            num_heads=self.num_heads,
        )

    def cost(self, *, num_dense: int, num_features: int, dim: int) -> Cost:
        """The streams', the gates' and the fusion's; a gate of a learned context is made once a batch, not per row.

        The fusion of outputs of A and B columns in H heads has A B / H weights and takes as many products and B more.
        """
        width = num_dense + num_features * (dim - self.gate_dim)
        first, second = self.first_hidden[-1], self.second_hidden[-1]
        weights = first * second // self.num_heads
        total = linear_cost(first, 1) + linear_cost(second, 1) + Cost(weights, weights + second)
        total += mlp_cost(width, self.first_hidden, batch_norm=self.first_batch_norm)
        total += mlp_cost(width, self.second_hidden, batch_norm=self.second_batch_norm)
        if not self.gates:
            return total
        context = self.gate_dim or dim
        gate = mlp_cost(context, self.gate_hidden, out_features=width)
        for field in (self.first_context, self.second_context):
            total += Cost(gate.parameters + context, width) if field is None else gate + Cost(0, width)
        return total


class FeatureGate(nn.Module):
    """A factor between 0 and 2 for each input column, from a context.

    Args:
        dim: Columns of the context.
        width: Input columns.
        hidden: Widths of its network's hidden layers.
        field: The field whose embedding is the context; None: a learned vector is.
    """

    def __init__(self, *, dim: int, width: int, hidden: Sequence[int], field: int | None = None) -> None:
        super().__init__()
        self.field = field
        self.context = nn.Parameter(torch.randn(1, dim) * CONTEXT_SPREAD) if field is None else None
        self.network = MLP(in_features=dim, hidden=hidden, out_features=width)

    def forward(self, embedded_BFD: Tensor) -> Tensor:
        """[B, F, D] to [B, width], or to [1, width] where the context is learned."""
        context = embedded_BFD[:, self.field] if self.context is None else self.context
        return 2.0 * torch.sigmoid(self.network(context))


class BilinearFusion(nn.Module):
    """Two linear models of two vectors, and the bilinear form of their slices.

    Args:
        first: Columns of the first vector.
        second: Columns of the second vector.
        num_heads: Slices; divides both.
    """

    def __init__(self, *, first: int, second: int, num_heads: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(first, 1), nn.Linear(second, 1)
        self.shapes = ((num_heads, first // num_heads), (num_heads, second // num_heads))
        shape = (num_heads, first // num_heads, second // num_heads)
        # As published: xavier_normal of all of them as one column.
        self.weight = nn.Parameter(torch.randn(shape) * (2.0 / (first * second // num_heads + 1)) ** 0.5)

    def forward(self, first_BI: Tensor, second_BJ: Tensor) -> Tensor:
        """[B, first] and [B, second] to [B]."""
        first_HBI = first_BI.unflatten(1, self.shapes[0]).transpose(0, 1)
        second_HBJ = second_BJ.unflatten(1, self.shapes[1]).transpose(0, 1)
        bilinear_B = (torch.bmm(first_HBI, self.weight) * second_HBJ).sum(dim=(0, 2))
        linear_B: Tensor = self.first(first_BI).squeeze(1) + self.second(second_BJ).squeeze(1)
        return linear_B + bilinear_B


class TwoStreamMember(nn.Module):
    """FinalMLP; `forward` gives one logit per row. Pairs of arguments are of the first and the second stream.

    Args:
        num_dense: Dense features.
        num_features: Id features.
        dim: Embedding columns.
        hidden: Widths of the streams' hidden layers.
        dropout: Probability after each of them.
        batch_norm: Normalise over the batch before each ReLU.
        gate_hidden: Widths of the gates' hidden layers; None: no gates.
        contexts: The fields that make the gates; None: a learned vector.
        gate_dim: The last columns of every embedding, which the gates alone read; 0: they read the streams'.
        num_heads: Slices of the bilinear form.
    """

    first_order: ClassVar[bool] = False

    def __init__(
        self,
        *,
        num_dense: int,
        num_features: int,
        dim: int,
        hidden: tuple[Sequence[int], Sequence[int]],
        dropout: tuple[float, float] = (0.0, 0.0),
        batch_norm: tuple[bool, bool] = (False, False),
        gate_hidden: Sequence[int] | None = None,
        contexts: tuple[int | None, int | None] = (None, None),
        gate_dim: int = 0,
        num_heads: int = 1,
    ) -> None:
        super().__init__()
        self.stream_dim = dim - gate_dim
        self.context_start = self.stream_dim if gate_dim else 0
        width = num_dense + num_features * self.stream_dim
        self.first, self.second = (
            MLP(in_features=width, hidden=hidden[at], dropout=dropout[at], batch_norm=batch_norm[at]) for at in (0, 1)
        )
        self.gates = nn.ModuleList(
            FeatureGate(dim=gate_dim or dim, width=width, hidden=gate_hidden, field=field)
            for field in contexts
            if gate_hidden is not None
        )
        self.fusion = BilinearFusion(
            first=self.first.out_features, second=self.second.out_features, num_heads=num_heads
        )

    def forward(self, inputs: MemberInput) -> Tensor:
        """Logits [B]."""
        streams_BFD = inputs.embedded_BFD[..., : self.stream_dim]
        contexts_BFD = inputs.embedded_BFD[..., self.context_start :]
        values = torch.cat([inputs.dense_BN, streams_BFD.flatten(1)], dim=1)
        first, second = values, values
        if len(self.gates):
            first, second = (values * gate(contexts_BFD) for gate in self.gates)
        logits: Tensor = self.fusion(self.first(first), self.second(second))
        return logits
