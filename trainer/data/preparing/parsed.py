"""What a parser makes of a block of input: rows, and the lines that are none; the seam between inputs and preparation.

Legend: N accepted rows of the block, D dense features, I discretised numerics, F categorical features of one value a
row, T values of all bags of a feature.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class NumericIds:
    """A numeric feature discretised into ids."""

    name: str
    rows: int  # of its table
    transform: str


@dataclass(frozen=True, kw_only=True)
class KeptValues:
    """A column that passes through."""

    name: str
    dtype: str  # int64, or S36 for texts of at most 36 bytes in UTF-8


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What the rows of an input hold, the same for every block."""

    dense: tuple[tuple[str, str], ...]  # name, transform
    ids: tuple[str, ...]  # categorical features of one value a row
    value_bits: Literal[32, 64]  # of a categorical value
    numeric_ids: tuple[NumericIds, ...] = ()
    bags: tuple[str, ...] = ()  # categorical features of any number of values a row; none means missing
    has_labels: bool = True
    has_weights: bool = False
    parts: tuple[str, ...] = ()  # where a column says which part a row belongs to: their names
    hashed_text: tuple[str, ...] = ()  # categorical features whose values stand for texts
    kept: tuple[KeptValues, ...] = ()  # columns that pass through
    num_header_lines: int = 0  # of each file, which no block counts

    @property
    def row_bytes(self) -> int:
        """Bytes that a row takes at least: of bags only that there are some."""
        single = len(self.dense) + len(self.ids) + len(self.numeric_ids) + self.has_labels + self.has_weights
        return 4 * single + 8 * len(self.bags) + sum(np.dtype(kept.dtype).itemsize for kept in self.kept)


@dataclass(frozen=True, kw_only=True)
class BagValues:
    """The values of one multi-valued feature."""

    lengths: NDArray[np.int32]  # [N]
    values: NDArray[np.uint64]  # [T], row by row; as wide as Layout.value_bits


@dataclass(frozen=True, kw_only=True)
class BadLine:
    """A line that is not a row."""

    line: int  # in its block, from 0
    reason: str  # the same words for the same kind of fault, so that they can be counted
    detail: str  # what was found, shortened
    text: bytes  # the line, shortened


@dataclass(frozen=True, kw_only=True)
class ParsedRows:
    """A block, parsed; where a value is missing, its place holds 0."""

    num_rows: int
    labels: NDArray[np.int32] | None  # [N]
    dense: NDArray[np.float32] | NDArray[np.int32]  # [N, D], transformed; int32: raw, to be transformed on writing
    values: NDArray[np.uint32] | NDArray[np.uint64]  # [F, N]
    missing: NDArray[np.bool_]  # [F, N]
    numeric_ids: NDArray[np.int32] | None = None  # [N, I]
    bags: tuple[BagValues, ...] = ()  # in the order of Layout.bags
    weights: NDArray[np.float32] | None = None  # [N]
    part: NDArray[np.int16] | None = None  # [N], index in Layout.parts
    kept: tuple[NDArray, ...] = ()  # [N] each, in the order of Layout.kept
    texts: dict[str, dict[int, str]] = field(default_factory=dict)  # feature -> value -> the text it stands for
    bad: tuple[BadLine, ...] = ()


class Block(Protocol):
    """A piece of an input file, as whole lines."""

    @property
    def num_lines(self) -> int:
        """Lines of the block that are rows or bad: what has to be accounted for."""
        ...

    @property
    def fault(self) -> BadLine | None:
        """Set where the block is a single line that was found bad while it was read; such a block is not parsed."""
        ...


def no_rows(layout: Layout, *, bad: tuple[BadLine, ...] = ()) -> ParsedRows:
    """A block in which no line is a row."""
    wide: Any = np.uint32 if layout.value_bits == 32 else np.uint64
    return ParsedRows(
        num_rows=0,
        labels=np.empty(0, np.int32) if layout.has_labels else None,
        dense=np.empty((0, len(layout.dense)), np.float32),
        values=np.empty((len(layout.ids), 0), wide),
        missing=np.empty((len(layout.ids), 0), bool),
        numeric_ids=np.empty((0, len(layout.numeric_ids)), np.int32) if layout.numeric_ids else None,
        bags=tuple(BagValues(lengths=np.empty(0, np.int32), values=np.empty(0, np.uint64)) for _ in layout.bags),
        weights=np.empty(0, np.float32) if layout.has_weights else None,
        part=np.empty(0, np.int16) if layout.parts else None,
        kept=tuple(np.empty(0, kept.dtype) for kept in layout.kept),
        bad=bad,
    )


class InputFormat(Protocol):
    """How files of one kind are cut and parsed. Picklable: it is sent to the worker processes.

    A file is cut into pieces 0, 1, 2 ... that are a function of its bytes alone, so that an interrupted preparation
    finds the same pieces again.
    """

    @property
    def layout(self) -> Layout:
        """What its rows hold."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """All that decides what comes out, for the manifest; equal settings are equal dicts."""
        ...

    def num_pieces(self, path: str) -> int | None:
        """How many pieces a file has; None where that is only known at its end, as of gzip files.

        Raises:
            DataError: no such file, or not of this format.
        """
        ...

    def about_num_rows(self, path: str) -> int:
        """How many rows a file may have, without reading it.

        Raises:
            DataError: unreadable.
        """
        ...

    def blocks(self, path: str, *, first_piece: int, done: frozenset[int]) -> Iterator[tuple[int, int, Any]]:
        """Reads a file from a piece on: (piece, bytes of the file read by this call so far, block); block None ends
        a piece.

        Where `num_pieces` is known, it ends after `first_piece`. Else it goes on to the end of the file, passing over
        the pieces in `done` without giving their blocks. A piece without rows gives its ending None alone.

        Raises:
            DataError: unreadable.
        """
        ...

    def parse(self, block: Any) -> ParsedRows:
        """The rows of a block; it never fails on account of a line."""
        ...
