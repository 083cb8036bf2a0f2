"""Dropout whose randomness is set from outside each step, so that it needs no saved state."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_LEVELS = 1 << 16  # a value is kept or not by 16 random bits


class Dropout(nn.Module):
    """Zeroes each value with a probability in training and scales the rest; identity in evaluation.

    The mask is a function of the seed last given to `reseed`, which must be called before each
    training forward. Probabilities are whole multiples of 2^-16; the scale is that of the nearest one.

    Args:
        probability: In [0, 1).
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0.0 <= probability < 1.0:
            raise ValueError(f"dropout: {probability} is not in [0, 1)")
        self.probability = probability
        self._dropped_levels = min(round(probability * _LEVELS), _LEVELS - 1)
        self._seed: int | None = None

    def reseed(self, seed: int) -> None:
        """Sets the seed of the next forward's mask."""
        self._seed = seed

    def forward(self, values: Tensor) -> Tensor:
        """Same shape out as in."""
        if not self.training or self.probability == 0.0:
            return values
        return self._scaled(values, self._keep(values.shape, device=values.device))

    def _scaled(self, values: Tensor, keep: Tensor) -> Tensor:
        # A product with booleans would convert them anew in the backward pass, and slowly.
        return values * keep.to(values.dtype) * (_LEVELS / (_LEVELS - self._dropped_levels))

    def _keep(self, shape: Sequence[int], *, device: torch.device) -> Tensor:
        """What is kept, as a mask of this shape."""
        assert self._seed is not None, "begin_step() must come before a training forward"
        generator = torch.Generator(device=device).manual_seed(self._seed)
        if device.type != "cpu":
            return torch.rand(shape, generator=generator, device=device) >= self._dropped_levels / _LEVELS
        # Four values of each 64 random bits: a CPU draws them one after the other, which takes a fifth of a step.
        count = math.prod(shape)
        words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(1 << 63), None, generator=generator)
        return words.view(torch.int16)[:count].view(*shape) >= self._dropped_levels - _LEVELS // 2

    def extra_repr(self) -> str:
        """Shown by print(module)."""
        return f"probability={self.probability}"
