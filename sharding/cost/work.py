"""DenseWork: what members compute in a step, as matrix products and tensors moved, whoever computes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, kw_only=True)
class Matmul:
    """`count` times `batch` products [m, k] x [k, n]."""

    m: int
    k: int
    n: int
    batch: int = 1
    precision: str = "fp32"
    count: int = 1

    @property
    def flops(self) -> float:
        """Multiplications and additions of all of them."""
        return 2.0 * self.count * self.batch * self.m * self.k * self.n

    @property
    def moved_bytes(self) -> float:
        """Read and written by all of them, each operand once."""
        value_bytes = 2 if self.precision == "bf16" else 4
        elements = self.m * self.k + self.k * self.n + self.m * self.n
        return float(self.count * self.batch * elements * value_bytes)


@dataclass(frozen=True, kw_only=True)
class Pass:
    """`count` times an operation that reads and writes `moved_bytes` of tensors without a matrix product."""

    moved_bytes: int
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class DenseWork:
    """All operations of members for one rank's batch; equal ones are counted rather than repeated."""

    matmuls: tuple[Matmul, ...] = ()
    passes: tuple[Pass, ...] = ()
    saved_bytes: int = 0
    """Kept from the forward pass for the backward pass: activations, weights left out."""

    peak_bytes: int = 0
    """The most that lives at once of what the operations allocate, saved_bytes included; parameters, their gradients
    and what comes in (embeddings, numbers, labels) left out."""

    forward_of: Mapping[str, DenseWork] = field(default_factory=dict, compare=False)
    """Member -> its own operations of the forward pass; members that are computed as one are not in it."""

    @property
    def num_ops(self) -> int:
        """Operations, products included."""
        return sum(one.count for one in self.matmuls) + sum(one.count for one in self.passes)

    @property
    def flops(self) -> float:
        """Of all products."""
        return sum(one.flops for one in self.matmuls)


def counted_matmuls(found: Iterable[Matmul]) -> tuple[Matmul, ...]:
    """Equal ones added up, the largest first."""
    counts: dict[Matmul, int] = {}
    for one in found:
        alike = replace(one, count=1)
        counts[alike] = counts.get(alike, 0) + one.count
    return tuple(sorted((replace(one, count=n) for one, n in counts.items()), key=lambda one: -one.flops))


def counted_passes(found: Iterable[Pass]) -> tuple[Pass, ...]:
    """Equal ones added up, the largest first."""
    counts: dict[int, int] = {}
    for one in found:
        counts[one.moved_bytes] = counts.get(one.moved_bytes, 0) + one.count
    return tuple(Pass(moved_bytes=size, count=n) for size, n in sorted(counts.items(), reverse=True))
