"""Bags of ids: cut out of the arrays they lie in, or made from their first id.

Legend: n rows, T ids of all their bags.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modules.seeding import derive_seed
from trainer.data.mixing import mix

_CHUNK_IDS = 16_384  # so many stay in the nearest cache
_STEP = np.uint64(0x9E3779B97F4A7C15)  # odd: 2^64 over the golden ratio
_MULTIPLIER = np.uint64(0xBF58476D1CE4E5B9)


@dataclass(frozen=True, kw_only=True)
class Bags:
    """The bags of one feature."""

    values: NDArray[np.int32]  # [T], row by row
    lengths: NDArray[np.int32]  # [n]


def cut_bags(values: NDArray[np.int32], offsets: NDArray[np.int64], rows: slice | NDArray[np.int64]) -> Bags:
    """The bags of some rows.

    Args:
        values: Ids of all rows, one after the other.
        offsets: Where each row's begin, and behind the last.
        rows: A slice with both ends, or row numbers.
    """
    if isinstance(rows, slice):
        of_rows = offsets[rows.start : rows.stop + 1]
        return Bags(values=values[of_rows[0] : of_rows[-1]], lengths=np.diff(of_rows).astype(np.int32))
    starts = np.take(offsets, rows)
    lengths = np.take(offsets, rows + 1) - starts
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    at = np.repeat(starts - ends + lengths, lengths) + np.arange(total, dtype=np.int64)
    return Bags(values=np.take(values, at), lengths=lengths.astype(np.int32))


def joined(pieces: list[Bags], *, order: NDArray[np.int64] | None = None) -> Bags:
    """Bags of several pieces, one after the other; with `order` row i of the result is row order[i] of them."""
    values = pieces[0].values if len(pieces) == 1 else np.concatenate([piece.values for piece in pieces])
    lengths = pieces[0].lengths if len(pieces) == 1 else np.concatenate([piece.lengths for piece in pieces])
    if order is None:
        return Bags(values=values, lengths=lengths)
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return cut_bags(values, offsets, order)


class BagExpander:
    """Makes a bag of a fixed number of ids from its first id, the same for the same id, without any table of bags.

    Place 0 is the id itself. The id at place p is a hash of (feature name, id, p) modulo the table's rows, drawn
    uniformly as MLPerf's bags are. MLPerf's own come from one MT19937 stream over whole tables: these have the same
    sizes and distribution, not the same ids.

    Args:
        feature: Name of the feature.
        bag_size: Ids of a bag.
        table_rows: Rows of the feature's table.
    """

    def __init__(self, *, feature: str, bag_size: int, table_rows: int) -> None:
        self._size = bag_size
        self._rows = np.uint64(table_rows)
        self._seed = np.uint64(derive_seed("bag", feature))
        self._steps = np.arange(1, bag_size, dtype=np.uint64) * _STEP

    def expand(self, first_ids: NDArray[np.int32], out: NDArray[np.int32]) -> None:
        """Writes the bags of ids [n] into out [n, bag size]."""
        out[:, 0] = first_ids
        if self._size == 1:
            return
        seeds = mix(first_ids.astype(np.uint64) * _STEP + self._seed)
        chunk = max(1, _CHUNK_IDS // self._size)
        buffers = np.empty((2, chunk, self._size - 1), dtype=np.uint64)
        for start in range(0, len(first_ids), chunk):
            count = min(chunk, len(first_ids) - start)
            hashed, spare = buffers[0, :count], buffers[1, :count]
            np.add(seeds[start : start + count, None], self._steps, out=hashed)
            # The seeds are mixed well already, so one round tells neighbouring places apart.
            np.right_shift(hashed, np.uint64(32), out=spare)
            np.bitwise_xor(hashed, spare, out=hashed)
            np.multiply(hashed, _MULTIPLIER, out=hashed)
            np.right_shift(hashed, np.uint64(29), out=spare)
            np.bitwise_xor(hashed, spare, out=hashed)
            np.floor_divide(hashed, self._rows, out=spare)  # numpy divides by a scalar faster than it takes remainders
            np.multiply(spare, self._rows, out=spare)
            np.subtract(hashed, spare, out=hashed)
            out[start : start + count, 1:] = hashed
