"""Batch normalisation that leaves padding rows out of its statistics (Ioffe and Szegedy, ICML 2015)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm


class BatchNorm(nn.Module):
    """Normalises each feature over the batch in training, by running statistics in evaluation.

    At more than one rank the batch is this rank's rows; running statistics are averaged over ranks with the gradients,
    so they are the same on every rank. With fewer than two rows, training too goes by running statistics.

    Args:
        num_features: Width of the values.
        eps: Added to the variance.
        momentum: Weight of a new batch in the running statistics.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self._num_rows: int | None = None

    def set_rows(self, num_rows: int | None) -> None:
        """Says how many rows of the next batch are real; those behind only pad it. None: all are."""
        self._num_rows = num_rows

    def forward(self, values: Tensor) -> Tensor:
        """[B, num_features] to the same shape."""
        if not self.training:
            return self._normalised(values, by_batch=False)
        count = len(values) if self._num_rows is None else self._num_rows
        if count == len(values) and count > 1:
            return self._normalised(values, by_batch=True)
        real = self._normalised(values[:count], by_batch=count > 1)
        return torch.cat([real, self._normalised(values[count:], by_batch=False)])

    def _normalised(self, values: Tensor, *, by_batch: bool) -> Tensor:
        return batch_norm(
            values,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=by_batch,
            momentum=self.momentum,
            eps=self.eps,
        )

    def extra_repr(self) -> str:
        """Shown by print(module)."""
        return f"{len(self.weight)}, eps={self.eps}, momentum={self.momentum}"
