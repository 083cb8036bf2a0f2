"""FinalNet: a deep network whose layers multiply, in one block or as the mean of two.

Idea: replace each linear layer by one that multiplies two halves of its output, so that interactions grow by orders
with depth. A second block on ungated features may stand beside the first; their logits are averaged.
Equation: a layer: [p ; q] = W x + c, z = [p ; p * q] (concat) or p + p * q (sum), out = ReLU(norm(z)), norm being batch
norm; gate: G = A E + b over the fields, the same for every column, E' = [E ; E * G]; x_1 = [dense ; flatten(E')] or
without a gate x_2 = [dense ; flatten(E)]; y_s = <w_s, block_s(x_s)> + c_s; y = y_1, or (y_1 + y_2) / 2. The loss
(taught) is BCE(p, label) + BCE(p_1, sg(p)) + BCE(p_2, sg(p)), p being the probabilities of y, y_1 and y_2, and sg a
stopped gradient.
Source: Zhu, Jia, Cai, Dai, Li, Dong, Tang, Zhang, "FINAL: Factorized Interaction Layer for CTR Prediction", SIGIR 2023.
Deviations: by default two blocks are trained for the loss of y alone; loss = "taught" is the published one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from configs.section import ArchConfig, positive_each, probability
from modules.contracts import MemberInput
from modules.cost import Cost, linear_cost
from modules.layers.batch_norm import BatchNorm
from modules.layers.dropout import Dropout

Residual = Literal["concat", "sum"]
Loss = Literal["mean", "taught"]


@dataclass(frozen=True, kw_only=True)
class Config(ArchConfig):
    """Blocks of factorized interaction layers."""

    numeric: ClassVar[tuple[str, ...]] = ("scaled", "ids", "dense")

    first_hidden: tuple[int, ...] = (256, 128)
    """Widths of the first block's layers."""

    second_hidden: tuple[int, ...] = (256,)
    """Widths of the second block's layers, which reads the features without a gate; empty: no second block."""

    first_dropout: float = 0.0
    """Probability after each layer of the first block."""

    second_dropout: float = 0.0
    """Probability after each layer of the second block."""

    batch_norm: bool = True
    """Normalise over the batch before each ReLU."""

    gate: bool = True
    """The first block reads each field twice: as it is, and scaled by a gate."""

    residual: Residual = "concat"
    """How a layer keeps what it multiplies: concat: half of a layer's width each; sum: one added to the other."""

    loss: Loss = "mean"
    """What two blocks are trained for. mean: the loss of their mean logit; taught: that, and each block for the mean's
    probability, as published."""

    @property
    def teaches_heads(self) -> bool:
        """Whether the blocks are taught."""
        return self.loss == "taught"

    def __post_init__(self) -> None:
        blocks = (("first_hidden", self.first_hidden), ("second_hidden", self.second_hidden))
        odd = [(key, width) for key, hidden in blocks for width in hidden if width % 2 and self.residual == "concat"]
        self.refuse(
            *(positive_each(key, hidden) for key, hidden in blocks),
            None if self.first_hidden else "first_hidden: give at least one width; the output reads the last layer",
            *(
                f'{key}: {width} is odd and cannot be halved; take an even one, or residual = "sum"'
                for key, width in odd
            ),
            probability("first_dropout", self.first_dropout),
            probability("second_dropout", self.second_dropout),
            "second_dropout: without second_hidden there is no second block to act on; remove it"
            if self.second_dropout and not self.second_hidden
            else None,
            'loss: "taught" needs the two blocks whose mean teaches them; give second_hidden, or take "mean"'
            if self.teaches_heads and not self.second_hidden
            else None,
        )

    def build(self, *, num_dense: int, num_features: int, dim: int) -> nn.Module:
        """The member for these input shapes."""
        return FactorizedMember(
            num_dense=num_dense,
            num_features=num_features,
            dim=dim,
            hidden=(self.first_hidden, self.second_hidden),
            dropout=(self.first_dropout, self.second_dropout),
            batch_norm=self.batch_norm,
            gate=self.gate,
            residual=self.residual,
            heads=self.teaches_heads,
        )

    def cost(self, *, num_dense: int, num_features: int, dim: int) -> Cost:
        """A layer to H columns: a linear one to H, and H / 2 products more (concat), or to 2 H and H more (sum).

        The gate: F F + F parameters; F F products for each column, and F for the scaling.
        """
        total, flat = Cost(0, 0), num_features * dim
        if self.gate:
            total += Cost(num_features * num_features + num_features, flat * num_features + flat)
        total += self._block_cost(num_dense + flat * (1 + self.gate), self.first_hidden)
        return total + self._block_cost(num_dense + flat, self.second_hidden)

    def _block_cost(self, width: int, hidden: Sequence[int]) -> Cost:
        if not hidden:
            return Cost(0, 0)
        total = linear_cost(hidden[-1], 1)
        for next_width in hidden:
            half = next_width if self.residual == "sum" else next_width // 2
            total += linear_cost(width, 2 * half) + Cost(2 * next_width * self.batch_norm, half)
            width = next_width
        return total


class FieldGate(nn.Module):
    """Each field beside itself scaled by a linear function of all fields, column by column.

    It starts as a scaling by 1.

    Args:
        num_fields: Fields.
    """

    def __init__(self, *, num_fields: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_fields, num_fields))
        self.bias = nn.Parameter(torch.ones(num_fields))

    def forward(self, embedded_BFD: Tensor) -> Tensor:
        """[B, F, D] to [B, 2 F, D]."""
        gates_BFD = linear(embedded_BFD.transpose(1, 2), self.weight, self.bias).transpose(1, 2)
        return torch.cat([embedded_BFD, embedded_BFD * gates_BFD], dim=1)


class FactorizedLayer(nn.Module):
    """A linear layer, one half of which is multiplied by the other.

    Args:
        in_features: Width of the input.
        out_features: Width of the output; even under concat.
        residual: concat: the half and the product side by side; sum: added.
    """

    def __init__(self, *, in_features: int, out_features: int, residual: Residual = "concat") -> None:
        super().__init__()
        self.residual = residual
        self.linear = nn.Linear(in_features, out_features if residual == "concat" else 2 * out_features)

    def forward(self, values: Tensor) -> Tensor:
        """[B, in_features] to [B, out_features]."""
        kept, factor = self.linear(values).chunk(2, dim=1)
        product: Tensor = kept * factor
        return torch.cat([kept, product], dim=1) if self.residual == "concat" else kept + product


class FactorizedBlock(nn.Module):
    """Factorized layers, each with batch norm where wanted, ReLU and dropout, and a last plain Linear to one value.

    Args:
        in_features: Width of the input.
        hidden: Widths of the layers.
        residual: See `FactorizedLayer`.
        dropout: Probability after each layer.
        batch_norm: Normalise over the batch before each ReLU.
    """

    def __init__(
        self, *, in_features: int, hidden: Sequence[int], residual: Residual, dropout: float, batch_norm: bool
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in hidden:
            layers.append(FactorizedLayer(in_features=in_features, out_features=width, residual=residual))
            if batch_norm:
                layers.append(BatchNorm(width))
            layers.append(nn.ReLU())
            if dropout:
                layers.append(Dropout(dropout))
            in_features = width
        self.layers = nn.Sequential(*layers, nn.Linear(in_features, 1))

    def forward(self, values: Tensor) -> Tensor:
        """[B, in_features] to [B]."""
        logits: Tensor = self.layers(values).squeeze(1)
        return logits


class FactorizedMember(nn.Module):
    """FinalNet; `forward` gives one logit per row, with heads in training one of each block.

    Pairs of arguments are of the first and the second block.

    Args:
        num_dense: Dense features.
        num_features: Id features.
        dim: Embedding columns.
        hidden: Widths of the blocks' layers; without any, there is no second block.
        dropout: Probability after each of them.
        batch_norm: Normalise over the batch before each ReLU.
        gate: Whether the first block reads gated fields too.
        residual: See `FactorizedLayer`.
        heads: Whether two blocks are the member's heads in training.
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
        batch_norm: bool = True,
        gate: bool = True,
        residual: Residual = "concat",
        heads: bool = False,
    ) -> None:
        super().__init__()
        self.heads = heads
        flat = num_features * dim
        self.gate = FieldGate(num_fields=num_features) if gate else None
        self.first, self.second = (
            FactorizedBlock(
                in_features=num_dense + flat * (2 if gate and at == 0 else 1),
                hidden=hidden[at],
                residual=residual,
                dropout=dropout[at],
                batch_norm=batch_norm,
            )
            if hidden[at]
            else None
            for at in (0, 1)
        )

    def forward(self, inputs: MemberInput) -> Tensor:
        """Logits [B]; with heads, in training, [B, 2]."""
        fields = inputs.embedded_BFD if self.gate is None else self.gate(inputs.embedded_BFD)
        assert self.first is not None, "the first block has layers"
        logits: Tensor = self.first(torch.cat([inputs.dense_BN, fields.flatten(1)], dim=1))
        if self.second is not None:
            second = self.second(torch.cat([inputs.dense_BN, inputs.embedded_BFD.flatten(1)], dim=1))
            if self.heads and self.training:
                return torch.stack([logits, second], dim=1)
            logits = 0.5 * (logits + second)
        return logits
