"""Multi-layer perceptron: Linear, batch norm, ReLU, dropout, repeated."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from modules.layers.batch_norm import BatchNorm
from modules.layers.dropout import Dropout


class MLP(nn.Module):
    """Hidden layers of Linear, batch norm where wanted, ReLU and dropout; with `out_features`, a last plain Linear.

    Args:
        in_features: Width of the input.
        hidden: Widths of the hidden layers; may be empty.
        out_features: Width of the last, linear layer; None: the last hidden layer is the output.
        dropout: Probability after each hidden layer.
        batch_norm: Normalise over the batch before each ReLU.
    """

    def __init__(
        self,
        *,
        in_features: int,
        hidden: Sequence[int],
        out_features: int | None = None,
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = in_features
        for next_width in hidden:
            layers.append(nn.Linear(width, next_width))
            if batch_norm:
                layers.append(BatchNorm(next_width))
            layers.append(nn.ReLU())
            if dropout:
                layers.append(Dropout(dropout))
            width = next_width
        if out_features is not None:
            layers.append(nn.Linear(width, out_features))
            width = out_features
        self.layers = nn.Sequential(*layers)
        self.out_features = width

    def forward(self, values: Tensor) -> Tensor:
        """[B, in_features] to [B, out_features]."""
        return self.layers(values)
