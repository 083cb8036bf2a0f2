"""Completeness: whether ranges hold each row of each part exactly once, and what is missing or doubled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trainer.predictions.manifest import PredictionFile
from trainer.predictions.row_hash import hash_range

_MOST_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class WholePart:
    """What a part must come to."""

    num_rows: int
    label_sum: int | None  # None: not known, or without labels


def problems_of(
    pieces: Sequence[PredictionFile],
    parts: Mapping[str, WholePart],
    *,
    beat: Callable[[str], None] = lambda _doing: None,
) -> list[str]:
    """A sentence for everything that keeps the pieces from being all rows of the parts once; empty: they are.

    Args:
        pieces: What files hold.
        parts: What they should hold.
        beat: Told of the work part by part.
    """
    problems = [
        f"{piece.path}: is of part {piece.part!r}, which is not among the parts"
        for piece in pieces
        if piece.part not in parts
    ]
    for name, part in parts.items():
        beat(f"checking {name}")
        mine = sorted((piece for piece in pieces if piece.part == name), key=lambda piece: piece.first_row)
        found = _untiled(mine, name, part.num_rows)
        if not found:  # what follows would only say it again
            found = _wrong_sums(mine, name, part)
        problems += found
    return problems


def _untiled(pieces: Sequence[PredictionFile], part: str, num_rows: int) -> list[str]:
    missing, doubled, reached, before = [], [], 0, ""
    for piece in pieces:
        stop = piece.first_row + piece.num_rows
        if piece.first_row > reached:
            missing.append((reached, piece.first_row))
        elif piece.first_row < reached:
            doubled.append(
                f"rows {piece.first_row:,} to {min(stop, reached) - 1:,} of {part} are in {before} and in {piece.path}"
            )
        if stop > reached:
            reached, before = stop, piece.path
    if reached < num_rows:
        missing.append((reached, num_rows))
    told = [f"rows {first:,} to {stop - 1:,} of {part} are missing" for first, stop in missing]
    told = _some(told) + _some(doubled)
    if reached > num_rows:
        told.append(f"{before}: ends at row {reached - 1:,} of {part}, which has {num_rows:,} rows")
    return told


def _wrong_sums(pieces: Sequence[PredictionFile], part: str, whole: WholePart) -> list[str]:
    told = []
    labels = [piece.label_sum for piece in pieces if piece.label_sum is not None]
    if whole.label_sum is not None and (len(labels) < len(pieces) or sum(labels) != whole.label_sum):
        without = len(pieces) - len(labels)
        if without:
            told.append(f"{without} files of {part} have no labels, and the data have")
        else:
            told.append(f"labels of {part} add up to {sum(labels):,}, in the data to {whole.label_sum:,}")
    hashed = sum(int(piece.row_hash, 16) for piece in pieces) % (1 << 64)
    if hashed != hash_range(part, first_row=0, num_rows=whole.num_rows):
        told.append(f"the row ids of {part} are not 0 to {whole.num_rows - 1:,}, each once")
    return told


def _some(lines: list[str]) -> list[str]:
    more = len(lines) - _MOST_NAMED
    return lines[:_MOST_NAMED] + ([f"and {more} more such"] if more > 0 else [])
