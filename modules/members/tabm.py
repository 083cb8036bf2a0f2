"""TabM: many MLPs that share their weights and differ in factors of inputs and outputs.

Idea: let H predictions share nearly all weights, each with factors and biases of its own, and train every one for its
own loss. Alone each is a plain MLP; their mean is an ensemble for the parameters of one, though not for its products.
Equation: x = [dense ; flatten(E)]; h_0k = x and h_lk = ReLU(s_lk * (W_l (r_lk * h_{l-1,k})) + b_lk) for each head k,
under mini h_1k = ReLU(W_1 (r_1k * x) + b_1) and h_lk = ReLU(W_l h_{l-1,k} + b_l) above; z_k = <w_k, h_Lk> + c_k;
y = mean_k z_k, and the loss is the mean of the heads' own, not that of y.
Source: Gorishniy, Kotelnikov, Babenko, "TabM: Advancing Tabular Deep Learning with Parameter-Efficient Ensembling",
ICLR 2025 (arXiv 2410.24210); factors as in Wen, Tran, Ba, "BatchEnsemble", ICLR 2020 (arXiv 2002.06715).
Deviations: ids are embedded in tables that all heads share, where the published code has them one-hot; the random
signs of r_1 are drawn for each column, where that code draws one for all columns of a feature; heads are merged by the
mean of their logits instead of their probabilities; 8 heads by default instead of 32. All heads see the same batch.
Batch norm, which it does without, is each head's own: statistics, scale and shift, under mini too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from configs.section import ArchConfig, positive, positive_each, probability
from modules.contracts import MemberInput
from modules.cost import Cost, linear_cost
from modules.layers.batch_norm import BatchNorm
from modules.layers.dropout import Dropout

Structure = Literal["tabm", "mini"]


@dataclass(frozen=True, kw_only=True)
class Config(ArchConfig):
    """Heads that share the weights of an MLP."""

    heads: int = 8
    """Predictions, each trained for its own loss; the paper has 32. Products grow with it, parameters hardly."""

    hidden: tuple[int, ...] = (256, 128)
    """Widths of the hidden layers."""

    structure: Structure = "tabm"
    """tabm: each head has factors of every hidden layer's inputs and outputs, and biases; mini: of the first layer's
    inputs alone. The output layer is each head's own in both."""

    dropout: float = 0.0
    """Probability after each hidden layer, drawn for each head."""

    batch_norm: bool = False
    """Normalise over the batch before each ReLU, each head by itself."""

    def __post_init__(self) -> None:
        self.refuse(
            positive("heads", self.heads),
            positive_each("hidden", self.hidden),
            None if self.hidden else "hidden: give at least one width; it is hidden layers that the heads share",
            probability("dropout", self.dropout),
        )

    def build(self, *, num_dense: int, num_features: int, dim: int) -> nn.Module:
        """The member for these input shapes."""
        return HeadsMember(
            in_features=num_dense + num_features * dim,
            heads=self.heads,
            hidden=self.hidden,
            structure=self.structure,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
        )

    def cost(self, *, num_dense: int, num_features: int, dim: int) -> Cost:
        """Each layer's weights once and its products for every head; the factors, and the heads' biases and outputs."""
        width = num_dense + num_features * dim
        total = Cost(self.heads * width, self.heads * width)  # r of the first layer
        for place, next_width in enumerate(self.hidden):
            layer = linear_cost(width, next_width, bias=self.structure == "mini")
            total += Cost(layer.parameters, self.heads * layer.multiply_adds)
            if self.structure == "tabm":
                factors = next_width + (width if place else 0)
                total += Cost(self.heads * (factors + next_width), self.heads * factors)
            total += Cost(2 * self.heads * next_width * self.batch_norm, 0)
            width = next_width
        return total + Cost(self.heads * (width + 1), self.heads * width)


class Factors(nn.Module):
    """Each head's factor of each column, and where wanted a bias behind it.

    Args:
        factors_HI: Where the factors start.
        biases_I: Where every head's biases start; None: there are none.
    """

    def __init__(self, factors_HI: Tensor, biases_I: Tensor | None = None) -> None:
        super().__init__()
        self.factors = nn.Parameter(factors_HI)
        self.biases = None if biases_I is None else nn.Parameter(biases_I.repeat(len(factors_HI), 1))

    def forward(self, values: Tensor) -> Tensor:
        """[B, H or 1, I] to [B, H, I]."""
        scaled = values * self.factors
        return scaled if self.biases is None else scaled + self.biases


class HeadsNorm(nn.Module):
    """Batch norm of each head's columns by themselves.

    Args:
        heads: H.
        width: I.
    """

    def __init__(self, *, heads: int, width: int) -> None:
        super().__init__()
        self.shape = (heads, width)
        self.norm = BatchNorm(heads * width)

    def forward(self, values_BHI: Tensor) -> Tensor:
        """[B, H, I] to the same shape."""
        return self.norm(values_BHI.flatten(1)).unflatten(1, self.shape)


class HeadsOutput(nn.Module):
    """One linear model for each head; starts as `nn.Linear` does.

    Args:
        heads: H.
        width: I.
    """

    def __init__(self, *, heads: int, width: int) -> None:
        super().__init__()
        bound = width**-0.5
        self.weight = nn.Parameter(torch.empty(heads, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(heads).uniform_(-bound, bound))

    def forward(self, values_BHI: Tensor) -> Tensor:
        """[B, H, I] to logits [B, H]."""
        logits_HB1 = torch.baddbmm(self.bias[:, None, None], values_BHI.transpose(0, 1), self.weight.unsqueeze(2))
        return logits_HB1.squeeze(2).t()


class HeadsMember(nn.Module):
    """TabM; `forward` gives one logit per row, in training one of each head.

    Args:
        in_features: Width of the input.
        heads: Predictions.
        hidden: Widths of the hidden layers, at least one.
        structure: tabm or mini.
        dropout: Probability after each hidden layer.
        batch_norm: Normalise over the batch before each ReLU.
    """

    first_order: ClassVar[bool] = False

    def __init__(
        self,
        *,
        in_features: int,
        heads: int,
        hidden: Sequence[int],
        structure: Structure = "tabm",
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [Factors(random_signs(heads, in_features))]
        width = in_features
        for place, next_width in enumerate(hidden):
            if structure == "mini":
                layers.append(nn.Linear(width, next_width))
            else:
                if place:
                    layers.append(Factors(torch.ones(heads, width)))
                start = torch.empty(next_width).uniform_(-(width**-0.5), width**-0.5)  # as a Linear's bias
                layers.append(nn.Linear(width, next_width, bias=False))
                layers.append(Factors(torch.ones(heads, next_width), start))
            if batch_norm:
                layers.append(HeadsNorm(heads=heads, width=next_width))
            layers.append(nn.ReLU())
            if dropout:
                layers.append(Dropout(dropout))
            width = next_width
        self.layers = nn.Sequential(*layers)
        self.output = HeadsOutput(heads=heads, width=width)

    def forward(self, inputs: MemberInput) -> Tensor:
        """Logits [B] in evaluation, [B, H] in training."""
        values = torch.cat([inputs.dense_BN, inputs.embedded_BFD.flatten(1)], dim=1)
        logits_BH: Tensor = self.output(self.layers(values.unsqueeze(1)))
        return logits_BH if self.training else logits_BH.mean(dim=1)


def random_signs(rows: int, columns: int) -> Tensor:
    """1.0 or -1.0 each, [rows, columns]."""
    return 2.0 * torch.randint(0, 2, (rows, columns)).float() - 1.0
