"""Dropout whose randomness is set from outside each step, so that it needs no saved state."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Zeroes each value with a probability in training and scales the rest; identity in evaluation.

    The mask is a function of the seed last given to `reseed`, which must be called before each
    training forward.

    Args:
        probability: In [0, 1).
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0.0 <= probability < 1.0:
            raise ValueError(f"dropout: {probability} is not in [0, 1)")
        self.probability = probability
        self._seed: int | None = None

    def reseed(self, seed: int) -> None:
        """Sets the seed of the next forward's mask."""
        self._seed = seed

    def forward(self, values: Tensor) -> Tensor:
        """Same shape out as in."""
        if not self.training or self.probability == 0.0:
            return values
        return values * self._keep(values.shape, device=values.device) / (1.0 - self.probability)

    def _keep(self, shape: Sequence[int], *, device: torch.device) -> Tensor:
        """What is kept, as a mask of this shape."""
        assert self._seed is not None, "begin_step() must come before a training forward"
        generator = torch.Generator(device=device).manual_seed(self._seed)
        return torch.rand(shape, generator=generator, device=device) >= self.probability

    def extra_repr(self) -> str:
        """Shown by print(module)."""
        return f"probability={self.probability}"
