"""MaskNet: hidden layers multiplied by masks that a small network computes from the row's own embeddings.

Idea: a feed-forward layer only adds its inputs up, so each block first multiplies them by a mask made from the row,
which brings products into the network and dims what is noise there. Blocks stand side by side below an MLP, or one on
the other.
Equation: block(h) = ReLU(LayerNorm(W (M(v) * h))) with v = flatten(E) and M(v) = W2 ReLU(W1 v + b1) + b2;
e_f' = LayerNorm_f(e_f); parallel: y = MLP([block_1(v') ; .. ; block_K(v')]); serial: h_0 = v', h_k = block_k(h_{k-1}),
y = <w, h_K> + b.
Source: Wang, She, Zhang, "MaskNet: Introducing Feature-Wise Multiplication to CTR Ranking Models by Instance-Guided
Mask", DLP-KDD 2021 (arXiv 2102.07619).
Deviations: dropout after each block, as in public benchmarks, is a key here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from configs.section import ArchConfig, positive, positive_each, probability
from modules.contracts import MemberInput
from modules.cost import Cost, linear_cost, mlp_cost
from modules.layers.dropout import Dropout
from modules.layers.mlp import MLP

Structure = Literal["parallel", "serial"]


@dataclass(frozen=True, kw_only=True)
class Config(ArchConfig):
    """Instance-guided masks, side by side or in a row."""

    numeric: ClassVar[tuple[str, ...]] = ("scaled", "ids")

    structure: Structure = "parallel"
    """parallel: blocks side by side on the embeddings, an MLP above; serial: each block reads the one before."""

    num_blocks: int = 3
    """Number of blocks side by side; only in the parallel structure."""

    block_dim: int = 64
    """Width of a block's output; only in the parallel structure."""

    hidden: tuple[int, ...] = (256, 128)
    """parallel: hidden widths of the MLP above the blocks; serial: the width of each block, one after the other."""

    reduction_ratio: float = 2.0
    """Width of a mask network's hidden layer, in widths of what it masks, rounded up; above one it widens."""

    field_norm: bool = True
    """Normalise each field's embedding, with a scale and a shift of its own, before the masks multiply it."""

    block_norm: bool = True
    """Normalise a block's output before its ReLU."""

    dropout: float = 0.0
    """Probability after each block and hidden layer."""

    def __post_init__(self) -> None:
        no_block = self.structure == "serial" and not self.hidden
        self.refuse(
            positive("num_blocks", self.num_blocks),
            positive("block_dim", self.block_dim),
            positive_each("hidden", self.hidden),
            positive("reduction_ratio", self.reduction_ratio),
            probability("dropout", self.dropout),
            "hidden: give at least one width; a serial network has a block for each" if no_block else None,
        )

    def build(self, *, num_dense: int, num_features: int, dim: int) -> nn.Module:
        """The member for these input shapes."""
        assert num_dense == 0, "numeric features are fields here"
        return MaskMember(
            num_features=num_features,
            dim=dim,
            structure=self.structure,
            num_blocks=self.num_blocks,
            block_dim=self.block_dim,
            hidden=self.hidden,
            reduction_ratio=self.reduction_ratio,
            field_norm=self.field_norm,
            block_norm=self.block_norm,
            dropout=self.dropout,
        )

    def cost(self, *, num_dense: int, num_features: int, dim: int) -> Cost:
        """Each block's mask network, masked values and matrix; the field norms' scales are products too."""
        width = num_features * dim
        total = Cost(2 * width, width) if self.field_norm else Cost(0, 0)
        if self.structure == "parallel":
            for _ in range(self.num_blocks):
                total += self._block_cost(width, width, self.block_dim)
            return total + mlp_cost(self.num_blocks * self.block_dim, self.hidden, out_features=1)
        for masked, out in zip((width, *self.hidden), self.hidden, strict=False):
            total += self._block_cost(width, masked, out)
        return total + linear_cost(self.hidden[-1], 1)

    def _block_cost(self, in_features: int, masked: int, out: int) -> Cost:
        mask = mlp_cost(in_features, (math.ceil(masked * self.reduction_ratio),), out_features=masked)
        return mask + linear_cost(masked, out, bias=False) + Cost(2 * out * self.block_norm, masked)


class MaskBlock(nn.Module):
    """ReLU(LayerNorm(W (M(v) * h))), then dropout.

    Args:
        in_features: Width of v, which the mask is made from.
        masked: Width of h.
        out_features: Width of the output.
        mask_hidden: Width of the mask network's hidden layer.
        norm: Whether there is a LayerNorm.
        dropout: Probability after the ReLU.
    """

    def __init__(
        self, *, in_features: int, masked: int, out_features: int, mask_hidden: int, norm: bool, dropout: float
    ) -> None:
        super().__init__()
        self.mask = MLP(in_features=in_features, hidden=(mask_hidden,), out_features=masked)
        self.linear = nn.Linear(masked, out_features, bias=False)
        self.norm = nn.LayerNorm(out_features) if norm else nn.Identity()
        self.dropout = Dropout(dropout) if dropout else nn.Identity()

    def forward(self, embedded: Tensor, values: Tensor) -> Tensor:
        """[B, in_features] and [B, masked] to [B, out_features]."""
        return self.dropout(torch.relu(self.norm(self.linear(self.mask(embedded) * values))))


class FieldNorm(nn.Module):
    """LayerNorm over each field's embedding, with a scale and a shift for every field and column."""

    def __init__(self, *, num_features: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_features, dim))
        self.bias = nn.Parameter(torch.zeros(num_features, dim))

    def forward(self, embedded_BFD: Tensor) -> Tensor:
        """[B, F, D] to the same shape."""
        return layer_norm(embedded_BFD, self.weight.shape[1:]) * self.weight + self.bias


class MaskMember(nn.Module):
    """MaskNet; `forward` gives one logit per row."""

    first_order: ClassVar[bool] = False

    def __init__(
        self,
        *,
        num_features: int,
        dim: int,
        structure: Structure,
        num_blocks: int,
        block_dim: int,
        hidden: Sequence[int],
        reduction_ratio: float,
        field_norm: bool = True,
        block_norm: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.parallel = structure == "parallel"
        self.field_norm = FieldNorm(num_features=num_features, dim=dim) if field_norm else nn.Identity()
        width = num_features * dim
        shapes = [(width, block_dim)] * num_blocks
        if not self.parallel:
            shapes = list(zip((width, *hidden), hidden, strict=False))
        self.blocks = nn.ModuleList(
            MaskBlock(
                in_features=width,
                masked=masked,
                out_features=out,
                mask_hidden=math.ceil(masked * reduction_ratio),
                norm=block_norm,
                dropout=dropout,
            )
            for masked, out in shapes
        )
        if self.parallel:
            self.top = MLP(in_features=num_blocks * block_dim, hidden=hidden, out_features=1, dropout=dropout)
        else:
            self.top = MLP(in_features=hidden[-1], hidden=(), out_features=1)

    def forward(self, inputs: MemberInput) -> Tensor:
        """Logits [B]."""
        embedded = inputs.embedded_BFD.flatten(1)
        values = self.field_norm(inputs.embedded_BFD).flatten(1)
        if self.parallel:
            values = torch.cat([block(embedded, values) for block in self.blocks], dim=1)
        else:
            for block in self.blocks:
                values = block(embedded, values)
        return self.top(values).squeeze(1)
