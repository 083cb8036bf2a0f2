"""Figures of one tensor, added up block by block in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TensorFigures:
    """What is said of a tensor. Values that are not finite are counted and left out of the rest."""

    num_values: int = 0
    sum_squares: float = 0.0
    sum_abs: float = 0.0
    max_abs: float = 0.0
    num_not_finite: int = 0

    @staticmethod
    def of_block(block: Tensor) -> TensorFigures:
        """Of one block."""
        values, num_not_finite = block.reshape(-1), 0
        max_abs = _norm(values, torch.inf)
        if not math.isfinite(max_abs):
            is_finite = torch.isfinite(values)
            num_not_finite = int((~is_finite).sum())
            values = values[is_finite]
            max_abs = _norm(values, torch.inf)
        return TensorFigures(
            num_values=block.numel(),
            sum_squares=_norm(values, 2) ** 2,
            sum_abs=_norm(values, 1),
            max_abs=max_abs,
            num_not_finite=num_not_finite,
        )

    def __add__(self, other: TensorFigures) -> TensorFigures:
        return TensorFigures(
            num_values=self.num_values + other.num_values,
            sum_squares=self.sum_squares + other.sum_squares,
            sum_abs=self.sum_abs + other.sum_abs,
            max_abs=max(self.max_abs, other.max_abs),
            num_not_finite=self.num_not_finite + other.num_not_finite,
        )

    @property
    def norm(self) -> float:
        """The L2 norm."""
        return self.sum_squares**0.5

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        num_finite = self.num_values - self.num_not_finite
        return {
            "norm": self.norm,
            "mean_abs": self.sum_abs / num_finite if num_finite else 0.0,
            "max_abs": self.max_abs,
            "num_not_finite": self.num_not_finite,
        }


def _norm(values: Tensor, order: float) -> float:
    """Taken in float64, without a copy of the values; 0 of none."""
    if not values.is_floating_point():
        values = values.double()
    return float(torch.linalg.vector_norm(values, order, dtype=torch.float64)) if len(values) else 0.0
