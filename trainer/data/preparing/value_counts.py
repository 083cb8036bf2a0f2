"""Value counts: how often each value occurs, counted piece by piece and merged within a memory limit.

Values are kept mixed (trainer/data/mixing.py) and in ascending order. Mixed values are spread evenly, so a
merge can be cut into ranges of equal size that fit into memory, whatever the values are.

Legend: E entries of a run, K distinct values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer import storage
from trainer.data.mixing import mix

# What a merge holds for an entry at its peak: value, count, place, the sorted copies of each and their order.
_BYTES_PER_ENTRY = 80
PLACE_BITS = 32  # a place is piece << 32 | row in the piece
_MERGE_AT = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Distinct mixed values in ascending order."""

    mixed: NDArray  # uint32 or uint64 [K]
    counts: NDArray[np.int64]  # [K]
    first: NDArray[np.int64] | None = None  # [K], the least place each was seen at, where that matters

    def __len__(self) -> int:
        return len(self.mixed)

    @staticmethod
    def of(values: NDArray, places: NDArray[np.int64] | None) -> Counts:
        """Counts values, uint32 or uint64 [N]; `places` int64 [N] ascending, None: they do not matter."""
        mixed = mix(values)
        if places is None:
            mixed.sort()
            starts = _starts(mixed)
            first = None
        else:
            order = np.argsort(mixed, kind="stable")
            mixed = mixed[order]
            starts = _starts(mixed)
            first = places[order[starts]]
        return Counts(mixed=mixed[starts], counts=np.diff(np.append(starts, len(mixed))), first=first)

    def of_at_least(self, min_count: int) -> Counts:
        """Without the values that are rarer."""
        if min_count <= 1:
            return self
        kept = self.counts >= min_count
        first = None if self.first is None else self.first[kept]
        return Counts(mixed=self.mixed[kept], counts=self.counts[kept], first=first)

    @staticmethod
    def merged(pieces: Sequence[Counts]) -> Counts:
        """The sum of several counts, at least one; empty ones may lack places."""
        some = [piece for piece in pieces if len(piece)]
        if len(some) <= 1:
            return some[0] if some else pieces[0]
        pieces = some
        mixed = np.concatenate([piece.mixed for piece in pieces])
        order = np.argsort(mixed, kind="stable")
        mixed = mixed[order]
        starts = _starts(mixed)
        counts = np.concatenate([piece.counts for piece in pieces])[order]
        counts = np.add.reduceat(counts, starts)
        places = [piece.first for piece in pieces if piece.first is not None]
        first = np.minimum.reduceat(np.concatenate(places)[order], starts) if places else None
        return Counts(mixed=mixed[starts], counts=counts, first=first)


class ValueCounter:
    """Counts one feature's values over the blocks of a piece."""

    def __init__(self, *, dtype: type[np.generic]) -> None:
        self._known = Counts(mixed=np.empty(0, dtype), counts=np.empty(0, np.int64))
        self._pending: list[Counts] = []
        self._num_pending = 0

    def add(self, values: NDArray, places: NDArray[np.int64] | None = None) -> None:
        """Counts more values; missing ones are left out by the caller."""
        counted = Counts.of(values, places)
        self._pending.append(counted)
        self._num_pending += len(counted)
        # Merging only when as much is pending as is known keeps the total work near linear.
        if self._num_pending > max(_MERGE_AT, len(self._known)):
            self.counts()

    def counts(self) -> Counts:
        """All that was added."""
        self._known = Counts.merged([self._known, *self._pending])
        self._pending, self._num_pending = [], 0
        return self._known


@dataclass(frozen=True, kw_only=True)
class Run:
    """The counts of one feature in one piece, in a file."""

    path: str
    offset: int  # bytes
    num_entries: int
    dtype: str  # of the mixed values
    first_place: int | None = None  # added to the places in the file; None: there are none

    def range(self, low: int, high: int) -> Counts:
        """The entries of the mixed values in [low, high]."""
        itemsize = np.dtype(self.dtype).itemsize
        with storage.open_file(self.path, "rb") as file:
            if low == 0 and high >= (1 << 8 * itemsize) - 1:
                start, stop = 0, self.num_entries
            else:
                mixed = (
                    np.memmap(file, dtype=self.dtype, mode="r", offset=self.offset, shape=(self.num_entries,))
                    if self.num_entries
                    else np.empty(0, self.dtype)
                )
                start = int(np.searchsorted(mixed, np.dtype(self.dtype).type(low), side="left"))
                stop = int(np.searchsorted(mixed, np.dtype(self.dtype).type(high), side="right"))

            def column(before: int, dtype: str) -> NDArray:
                size = np.dtype(dtype).itemsize
                file.seek(self.offset + before * self.num_entries + start * size)
                return np.frombuffer(file.read((stop - start) * size), dtype)

            return Counts(
                mixed=column(0, self.dtype),
                counts=column(itemsize, "<u4").astype(np.int64),
                first=None
                if self.first_place is None
                else column(itemsize + 4, "<u4").astype(np.int64) + self.first_place,
            )


def write_runs(file: Any, counted: Sequence[Counts]) -> list[tuple[int, int]]:
    """Appends the counts of each feature to an open file; gives (offset, entries) of each."""
    places = []
    for counts in counted:
        places.append((file.tell(), len(counts)))
        file.write(np.ascontiguousarray(counts.mixed).data)
        file.write(counts.counts.astype("<u4").data)
        if counts.first is not None:
            file.write(counts.first.astype("<u4").data)
    return places


def merge_runs(runs: Sequence[Run], *, min_count: int, memory_bytes: int) -> Iterator[Counts]:
    """The sum of all runs as ascending, separate ranges, without values rarer than `min_count`."""
    bits = 8 * np.dtype(runs[0].dtype).itemsize if runs else 32
    num_entries = sum(run.num_entries for run in runs)
    num_ranges = max(1, -(-num_entries * _BYTES_PER_ENTRY // memory_bytes))
    edges = [(number << bits) // num_ranges for number in range(num_ranges + 1)]
    for low, high in zip(edges, edges[1:], strict=False):
        pieces = [run.range(low, high - 1) for run in runs]
        if not pieces:
            continue
        yield Counts.merged(pieces).of_at_least(min_count)


def _starts(ordered: NDArray) -> NDArray[np.int64]:
    """Where each run of equal values begins."""
    if not len(ordered):
        return np.empty(0, np.int64)
    return np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1])
