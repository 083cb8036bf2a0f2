"""AutoInt: fields attend to one another, layer upon layer; with a deep network beside it, AutoInt+.

Idea: let every field gather what it needs from the others by multi-head self-attention, so that which features meet is
learned and can be read off the attention. With residual connections, k layers reach interactions of order k + 1.
Equation: X0 = E; per head h of a layer, A_h = softmax_j(<Q_h x_i, K_h x_j>), o_i = [sum_j A_1ij V_1 x_j ; ...];
X(k+1) = ReLU(norm(o + R X(k))), norm the identity or LayerNorm over each field; y = <w, flatten(X_L)> + b, plus
MLP(flatten(E)) in AutoInt+, plus sum_f w_f[id_f] where a linear part is wanted.
Source: Song, Shi, Xiao, Duan, Xu, Zhang, Tang, "AutoInt", CIKM 2019 (arXiv 1810.11921).
Deviations: R is the identity where a layer keeps the width, a matrix only where it changes it; layer_norm, scale and
linear are FuxiCTR's options, off by default; a single field has no queries or keys, its attention to itself being 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from configs.section import ArchConfig, positive, positive_each, probability
from modules.contracts import MemberInput
from modules.cost import Cost, linear_cost, mlp_cost
from modules.layers.dropout import Dropout
from modules.layers.mlp import MLP


@dataclass(frozen=True, kw_only=True)
class Config(ArchConfig):
    """Multi-head self-attention over the fields."""

    numeric: ClassVar[tuple[str, ...]] = ("scaled", "ids")

    num_layers: int = 3
    """Attention layers."""

    num_heads: int = 2
    """Heads of each layer."""

    attention_dim: int = 64
    """Width of a field behind each layer, all heads together; a multiple of num_heads."""

    residual: bool = True
    """Each layer adds its input to its output."""

    layer_norm: bool = False
    """Normalise each field's vector before each layer's ReLU."""

    scale: bool = False
    """Divide attention scores by the square root of a head's width."""

    hidden: tuple[int, ...] = ()
    """Widths of the hidden layers of a deep network beside it, AutoInt+; empty: no deep network, plain AutoInt."""

    linear: bool = False
    """Add a weight per id."""

    dropout: float = 0.0
    """Probability for attention weights, and after each hidden layer."""

    batch_norm: bool = False
    """Normalise over the batch before each ReLU of the deep network."""

    def __post_init__(self) -> None:
        counts = (("num_layers", self.num_layers), ("num_heads", self.num_heads), ("attention_dim", self.attention_dim))
        self.refuse(
            *(positive(key, value) for key, value in counts),
            f"attention_dim: {self.attention_dim} is not a multiple of num_heads, which is {self.num_heads}"
            if self.num_heads > 0 and self.attention_dim % self.num_heads
            else None,
            positive_each("hidden", self.hidden),
            probability("dropout", self.dropout),
        )

    def build(self, *, num_dense: int, num_features: int, dim: int) -> nn.Module:
        """The member for these input shapes."""
        assert num_dense == 0, "it takes numeric features as fields"
        return AttentionMember(
            num_features=num_features,
            dim=dim,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            attention_dim=self.attention_dim,
            residual=self.residual,
            layer_norm=self.layer_norm,
            scale=self.scale,
            hidden=self.hidden,
            linear=self.linear,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
        )

    def cost(self, *, num_dense: int, num_features: int, dim: int) -> Cost:
        """A layer from C to A columns: F C A products for each of three matrices, and 2 F F A for the attention.

        The residual's matrix is one more where C and A differ; a single field has neither queries nor keys.
        """
        total, columns, width = Cost(0, 0), dim, self.attention_dim
        for _ in range(self.num_layers):
            matrices = (3 if num_features > 1 else 1) + (self.residual and columns != width)
            attention = num_features * num_features * width * (2 if num_features > 1 else 0)
            total += Cost(
                matrices * columns * width + 2 * width * self.layer_norm,
                matrices * num_features * columns * width + attention,
            )
            columns = width
        total += linear_cost(num_features * width, 1)
        if self.hidden:
            total += mlp_cost(num_features * dim, self.hidden, out_features=1, batch_norm=self.batch_norm)
        return total


class InteractingLayer(nn.Module):
    """Multi-head self-attention over fields, a residual connection, ReLU.

    Args:
        num_fields: Fields; 1: its attention is 1, and the layer has no queries and keys.
        in_dim: Columns of a field.
        out_dim: Columns of a field behind the layer, all heads together.
        num_heads: Divides out_dim.
        residual: Add the input, by a matrix where the widths differ.
        layer_norm: Normalise each field's vector before the ReLU.
        scale: Divide scores by the square root of out_dim / num_heads.
        dropout: Probability for attention weights.
    """

    def __init__(
        self,
        *,
        num_fields: int,
        in_dim: int,
        out_dim: int,
        num_heads: int,
        residual: bool = True,
        layer_norm: bool = False,
        scale: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, out_dim // num_heads
        self.factor = self.head_dim**-0.5 if scale else 1.0
        attends = num_fields > 1
        self.query = nn.Linear(in_dim, out_dim, bias=False) if attends else None
        self.key = nn.Linear(in_dim, out_dim, bias=False) if attends else None
        self.value = nn.Linear(in_dim, out_dim, bias=False)
        self.residual: nn.Module | None = None
        if residual:
            self.residual = nn.Linear(in_dim, out_dim, bias=False) if in_dim != out_dim else nn.Identity()
        self.norm = nn.LayerNorm(out_dim) if layer_norm else None
        self.dropout = Dropout(dropout) if dropout and attends else None

    def forward(self, fields_BFC: Tensor) -> Tensor:
        """[B, F, in_dim] to [B, F, out_dim]."""
        out_BFA = self._attended(fields_BFC)
        if self.residual is not None:
            out_BFA = out_BFA + self.residual(fields_BFC)
        if self.norm is not None:
            out_BFA = self.norm(out_BFA)
        return torch.relu(out_BFA)

    def _attended(self, fields_BFC: Tensor) -> Tensor:
        value_BFA = self.value(fields_BFC)
        if self.query is None or self.key is None:
            out: Tensor = value_BFA
            return out
        query_BHFK = self._split(self.query(fields_BFC)) * self.factor
        key_BHFK = self._split(self.key(fields_BFC))
        weights_BHFF = torch.softmax(query_BHFK @ key_BHFK.transpose(2, 3), dim=3)
        if self.dropout is not None:
            weights_BHFF = self.dropout(weights_BHFF)
        return (weights_BHFF @ self._split(value_BFA)).transpose(1, 2).flatten(2)

    def _split(self, values_BFA: Tensor) -> Tensor:
        """[B, F, A] to [B, heads, F, A / heads]."""
        return values_BFA.unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2)


class AttentionMember(nn.Module):
    """AutoInt; `forward` gives one logit per row."""

    def __init__(
        self,
        *,
        num_features: int,
        dim: int,
        num_layers: int,
        num_heads: int,
        attention_dim: int,
        residual: bool = True,
        layer_norm: bool = False,
        scale: bool = False,
        hidden: Sequence[int] = (),
        linear: bool = False,
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.first_order = linear
        self.attention = nn.Sequential(
            *(
                InteractingLayer(
                    num_fields=num_features,
                    in_dim=attention_dim if layer else dim,
                    out_dim=attention_dim,
                    num_heads=num_heads,
                    residual=residual,
                    layer_norm=layer_norm,
                    scale=scale,
                    dropout=dropout,
                )
                for layer in range(num_layers)
            )
        )
        self.output = nn.Linear(num_features * attention_dim, 1)
        width = num_features * dim
        self.deep = (
            MLP(in_features=width, hidden=hidden, out_features=1, dropout=dropout, batch_norm=batch_norm)
            if hidden
            else None
        )

    def forward(self, inputs: MemberInput) -> Tensor:
        """Logits [B]."""
        logits: Tensor = self.output(self.attention(inputs.embedded_BFD).flatten(1)).squeeze(1)
        if self.deep is not None:
            logits = logits + self.deep(inputs.embedded_BFD.flatten(1)).squeeze(1)
        if self.first_order:
            assert inputs.first_order_BF is not None, "the ensemble gives first-order weights to this member"
            logits = logits + inputs.first_order_BF.sum(dim=1)
        return logits
