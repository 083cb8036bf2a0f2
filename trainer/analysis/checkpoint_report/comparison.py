"""Comparison: two checkpoints tensor by tensor, the bits and the values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from trainer.analysis.checkpoint_report.tensor_figures import TensorFigures
from trainer.checkpoints.stored_checkpoint import StoredCheckpoint
from trainer.checkpoints.verification import Advance

Finding = Literal["equal", "different", "only in A", "only in B", "another shape"]
_INTEGER_OF_BYTES = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, kw_only=True)
class TensorDifference:
    """One tensor of two checkpoints.

    Attributes:
        finding: equal is bit for bit.
        shapes: In A and in B, None where it is not there.
        max_abs: The greatest difference of two values; infinite where one is not finite and the other is another.
        relative_norm: Of the difference, over that of A; infinite where A is all zero.
    """

    key: str
    finding: Finding
    shapes: tuple[tuple[int, ...] | None, tuple[int, ...] | None]
    max_abs: float = 0.0
    relative_norm: float = 0.0

    def within(self, tolerance: float) -> bool:
        """Whether it is equal, or no value differs by more."""
        return self.finding == "equal" or (self.finding == "different" and self.max_abs <= tolerance)

    def as_json(self) -> dict[str, Any]:
        """Plain values; None for what is infinite, which JSON has no word for."""
        shapes = {of: None if shape is None else list(shape) for of, shape in zip("AB", self.shapes, strict=True)}
        values = {
            name: value if math.isfinite(value) else None
            for name, value in (("max_abs", self.max_abs), ("relative_norm", self.relative_norm))
        }
        return {"key": self.key, "finding": self.finding, "shapes": shapes} | values


def keys_to_compare(a: StoredCheckpoint, b: StoredCheckpoint, *, with_state: bool) -> list[str]:
    """Weights of both, with optimizer state if that is asked for; tables first."""
    keys = {*a.index, *b.index} if with_state else {*a.weights, *b.weights}
    tables = {*a.table_weights().values(), *b.table_weights().values()}
    return sorted(keys, key=lambda key: (key not in tables, key))


def compare(
    a: StoredCheckpoint, b: StoredCheckpoint, *, keys: Sequence[str], advance: Advance
) -> list[TensorDifference]:
    """Each tensor's difference.

    Raises:
        CheckpointError: a tensor cannot be read.
    """
    return [_compare(a, b, key=key, advance=advance) for key in keys]


def _compare(a: StoredCheckpoint, b: StoredCheckpoint, *, key: str, advance: Advance) -> TensorDifference:
    mine, theirs = a.index.get(key), b.index.get(key)
    shapes = (None if mine is None else mine.shape, None if theirs is None else theirs.shape)
    if mine is None or theirs is None:
        return TensorDifference(key=key, finding="only in B" if mine is None else "only in A", shapes=shapes)
    if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
        return TensorDifference(key=key, finding="another shape", shapes=shapes)
    same_bits, apart, of_a = True, TensorFigures(), TensorFigures()
    for left, right in zip(a.blocks(key), b.blocks(key), strict=True):
        same_bits &= torch.equal(_bits(left), _bits(right))
        if not torch.equal(left, right):
            apart += TensorFigures.of_block(_difference(left, right))
        of_a += TensorFigures.of_block(left)
        advance(2 * left.numel() * left.element_size())
    infinite = apart.num_not_finite > 0
    ratio = apart.norm / of_a.norm if of_a.norm and not infinite else torch.inf
    return TensorDifference(
        key=key,
        finding="equal" if same_bits else "different",
        shapes=shapes,
        max_abs=torch.inf if infinite else apart.max_abs,
        relative_norm=ratio if infinite or apart.norm else 0.0,
    )


def _difference(left: Tensor, right: Tensor) -> Tensor:
    """In float64; 0 where both are the same infinity or not a number."""
    difference = left.double() - right.double()
    if not torch.isfinite(difference.sum()):
        same = (left == right) | (left.isnan() & right.isnan())
        difference = torch.where(same, 0.0, difference)
    return difference


def _bits(block: Tensor) -> Tensor:
    """The same memory as integers: a NaN equals itself, and 0.0 is not -0.0."""
    return block.reshape(-1).view(_INTEGER_OF_BYTES[block.element_size()])
