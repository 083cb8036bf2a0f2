"""Splits: which row goes into which part.

Legend: a piece is a run of rows of one input file, as it was parsed; N its rows.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from trainer.data.mixing import salted

NAME_PATTERN = re.compile(r"[A-Za-z0-9_]+")


def part_name(path: str) -> str:
    """The name of the part made from one file: day_0 for any/where/day_0.tsv.gz.

    Raises:
        DataError: the name holds other characters than a part's name may.
    """
    base = path.rstrip("/").rsplit("/", 1)[-1]
    stem = base.removesuffix(".gz")
    stem = stem.rsplit(".", 1)[0] if "." in stem else stem
    if not NAME_PATTERN.fullmatch(stem):
        raise DataError(
            f"{path}: {stem!r} cannot name a part (A-Z, a-z, 0-9 and _ only); rename the file or give a split"
        )
    return stem


@dataclass(frozen=True, kw_only=True)
class PieceRows:
    """A parsed piece, as far as splitting goes."""

    file: int
    num_rows: int
    rows_by_part: tuple[int, ...] = ()  # where a column says the part


@dataclass(frozen=True, kw_only=True)
class PieceCut:
    """What of a piece goes into one part: rows [start, stop) of the piece, or those that `members` names."""

    part: int
    first_row: int  # of the part, where they go
    num_rows: int
    start: int = 0
    scattered: bool = False


@dataclass(frozen=True, kw_only=True)
class BoundSplit:
    """A split of rows that are there."""

    num_rows: tuple[int, ...]  # of each part
    cuts: tuple[tuple[PieceCut, ...], ...]  # of each piece
    first_rows: tuple[int, ...]  # of each piece, counted over all


@dataclass(frozen=True, kw_only=True)
class Split:
    """A rule that sends every row to one part.

    Args:
        kind: file: a part a file; time: shares in the order of the rows; random: shares by a hash of (seed, row);
            column: as the input says; last_in_halves: a part a file, the last one in two halves, as MLPerf does.
        names: The parts.
        shares: Of all rows, for time and random.
        seed: For random.
    """

    kind: Literal["file", "time", "random", "column", "last_in_halves"]
    names: tuple[str, ...]
    shares: tuple[str, ...] = ()  # decimal text: 0.29 of 100 rows is 29, which floats make 28
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.names:
            if not NAME_PATTERN.fullmatch(name):
                raise DataError(f"split: {name!r} cannot name a part; use A-Z, a-z, 0-9 and _ only")
        doubled = sorted({name for name in self.names if self.names.count(name) > 1})
        if doubled:
            raise DataError(f"inputs: several files would make a part {doubled[0]!r}; rename one of them")
        for name, share in zip(self.names, self.shares, strict=False):
            if not 0 < Fraction(share) <= 1:
                raise DataError(f"split: {name}={share} must be above 0 and at most 1")
        if self.shares and sum(Fraction(share) for share in self.shares) != 1:
            total = float(sum(Fraction(share) for share in self.shares))
            raise DataError(f"split: the shares sum to {total:.6g}, not 1; correct them")

    @staticmethod
    def by_file(paths: Sequence[str]) -> Split:
        """A part for each file, by its name."""
        return Split(kind="file", names=tuple(part_name(path) for path in paths))

    @staticmethod
    def last_in_halves(paths: Sequence[str]) -> Split:
        """A part for each file, but NAME_val and NAME_test for the last: its first half, rounded up, and the rest."""
        *days, last = [part_name(path) for path in paths]
        return Split(kind="last_in_halves", names=(*days, f"{last}_val", f"{last}_test"))

    def as_dict(self) -> dict[str, Any]:
        """As a manifest keeps it."""
        found: dict[str, Any] = {"kind": self.kind, "names": list(self.names)}
        if self.shares:
            found["shares"] = list(self.shares)
        if self.kind == "random":
            found["seed"] = self.seed
        return found

    @property
    def known_by_file(self) -> bool:
        """Whether the part of a row is known before the rows are counted."""
        return self.kind in ("file", "column")

    def bind(self, pieces: Sequence[PieceRows]) -> BoundSplit:
        """The split of these pieces' rows.

        Raises:
            DataError: a share is so small that its part would be empty.
        """
        first_rows = (0, *itertools.accumulate(piece.num_rows for piece in pieces))
        if self.kind in ("random", "column"):
            by_part = [
                list(piece.rows_by_part)
                if self.kind == "column"
                else np.bincount(self.members(first, piece.num_rows), minlength=len(self.names)).tolist()
                for first, piece in zip(first_rows, pieces, strict=False)
            ]
            cuts = self._scattered(by_part)
            num_rows = (
                tuple(sum(counts) for counts in zip(*by_part, strict=True)) if by_part else (0,) * len(self.names)
            )
        else:
            edges = self._edges(pieces, first_rows[-1])
            cuts = tuple(
                _contiguous(edges, first, first + piece.num_rows)
                for first, piece in zip(first_rows, pieces, strict=False)
            )
            num_rows = tuple(stop - start for start, stop in itertools.pairwise(edges))
        if self.shares and not all(num_rows):
            empty = self.names[num_rows.index(0)]
            raise DataError(f"split: part {empty!r} would have no row of {first_rows[-1]:,}; give it a larger share")
        return BoundSplit(num_rows=num_rows, cuts=cuts, first_rows=first_rows[:-1])

    def members(self, first_row: int, num_rows: int) -> NDArray[np.int64]:
        """The part of each row of a random split, int64 [N]; rows are counted over all inputs."""
        rows = np.arange(first_row, first_row + num_rows, dtype=np.uint64)
        drawn = salted(salted(rows, self.seed), 0x9E3779B97F4A7C15)
        # Exact 64-bit edges: the same row goes to the same part on every machine.
        edges = [int(edge * 2**64) for edge in itertools.accumulate(Fraction(share) for share in self.shares)][:-1]
        return np.searchsorted(np.array(edges, np.uint64), drawn, side="right").astype(np.int64)

    def _edges(self, pieces: Sequence[PieceRows], total: int) -> list[int]:
        if self.kind == "time":
            shares = itertools.accumulate(Fraction(share) for share in self.shares)
            return [0, *(int(share * total) for share in shares)]
        num_files = len(self.names) - (self.kind == "last_in_halves")
        of_file = [0] * num_files
        for piece in pieces:
            of_file[piece.file] += piece.num_rows
        edges = [0, *itertools.accumulate(of_file)]
        if self.kind == "last_in_halves":
            edges.insert(-1, edges[-2] + -(-of_file[-1] // 2))
        return edges

    def _scattered(self, by_part: Sequence[Sequence[int]]) -> tuple[tuple[PieceCut, ...], ...]:
        before = [0] * len(self.names)
        cuts = []
        for counts in by_part:
            cuts.append(
                tuple(
                    PieceCut(part=part, first_row=before[part], num_rows=count, scattered=True)
                    for part, count in enumerate(counts)
                    if count
                )
            )
            before = [total + count for total, count in zip(before, counts, strict=True)]
        return tuple(cuts)


def _contiguous(edges: Sequence[int], start: int, stop: int) -> tuple[PieceCut, ...]:
    cuts = []
    for part, (low, high) in enumerate(itertools.pairwise(edges)):
        begin, end = max(low, start), min(high, stop)
        if begin < end:
            cuts.append(PieceCut(part=part, first_row=begin - low, num_rows=end - begin, start=begin - start))
    return tuple(cuts)
