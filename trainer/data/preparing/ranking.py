"""Ranking: the order in which counted values get their ids, worked out on disk whatever their number.

Legend: K values.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer import storage
from trainer.data.mixing import unmix
from trainer.data.preparing.value_counts import PLACE_BITS, Counts

CHUNK = 1 << 20  # values held at a time


class CountStream:
    """A stream of counts on disk, in the order of the mixed values."""

    def __init__(self, path: str, *, dtype: np.dtype) -> None:
        self._paths = [f"{path}.{column}" for column in ("mixed", "counts", "first")]
        self._dtypes = [dtype, np.dtype("<i8"), np.dtype("<i8")]
        self._files = [storage.open_file(path, "wb") for path in self._paths]
        self.num_values = 0

    def append(self, counted: Counts) -> None:
        for file, column in zip(self._files, (counted.mixed, counted.counts, counted.first), strict=True):
            if column is not None:
                file.write(np.ascontiguousarray(column).data)
        self.num_values += len(counted)

    def close(self) -> int:
        for file in self._files:
            file.close()
        return self.num_values

    def chunks(self) -> Iterator[Counts]:
        for start in range(0, self.num_values, CHUNK):
            columns = [
                np.fromfile(path, dtype, count=min(CHUNK, self.num_values - start), offset=start * dtype.itemsize)
                for path, dtype in zip(self._paths, self._dtypes, strict=True)
            ]
            yield Counts(mixed=columns[0], counts=columns[1], first=columns[2] if len(columns[2]) else None)

    def remove(self) -> None:
        for path in self._paths:
            storage.remove_file(path)


class RankedValues:
    """Values and counts on disk, put in any order and read by rank."""

    def __init__(self, path: str, *, num_values: int, dtype: np.dtype) -> None:
        self.path = path
        self._paths = [f"{path}.ranked_values", f"{path}.ranked_counts"]
        self._columns = [
            new_map(path, dtype=kind, shape=(max(num_values, 1),))
            for path, kind in zip(self._paths, (dtype, np.dtype("<i8")), strict=True)
        ]

    @property
    def values(self) -> NDArray:
        """By rank; writing to it writes the file."""
        return self._columns[0]

    def put(self, ranks: NDArray[np.int64], values: NDArray, counts: NDArray[np.int64]) -> None:
        self._columns[0][ranks] = values
        self._columns[1][ranks] = counts

    def get(self, start: int, stop: int) -> tuple[NDArray, NDArray[np.int64]]:
        return np.array(self._columns[0][start:stop]), np.array(self._columns[1][start:stop])

    def remove(self) -> None:
        self._columns = []
        for path in self._paths:
            storage.remove_file(path)


def new_map(path: str, *, dtype: Any, shape: tuple[int, ...]) -> NDArray:
    """A file of its full length, mapped; its room is taken now, as that of lookup tables."""
    with storage.open_file(path, "wb") as new:
        os.posix_fallocate(new.fileno(), 0, math.prod(shape) * np.dtype(dtype).itemsize)
    return np.memmap(path, dtype=dtype, mode="r+", shape=shape)


def _ranks_in_classes(classes: NDArray[np.int64], next_rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ranks of a chunk: in each class they go on from `next_rank`, which is moved on."""
    order = np.argsort(classes, kind="stable")
    ordered = classes[order]
    starts = _first_of_each(ordered)
    lengths = np.diff(np.append(starts, len(ordered)))
    ranks = np.empty(len(classes), np.int64)
    ranks[order] = next_rank[ordered] + np.arange(len(ordered)) - np.repeat(starts, lengths)
    next_rank[ordered[starts]] += lengths
    return ranks


def _first_of_each(ordered: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each class begins among classes in order, at least one."""
    return np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))


def _class_starts(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)


def by_count(stream: CountStream, ranked: RankedValues) -> Iterator[tuple[Counts, NDArray[np.int64]]]:
    """The stream with the rank of each value: by descending count, then by value; fills `ranked`."""
    seen, sizes = np.empty(0, np.int64), np.empty(0, np.int64)
    for counted in stream.chunks():
        found, number = np.unique(counted.counts, return_counts=True)
        seen, place = np.unique(np.concatenate([seen, found]), return_inverse=True)
        sizes = np.bincount(place, weights=np.concatenate([sizes, number])).astype(np.int64)
    # A counting sort brings values of one count together on disk, where they are sorted in place.
    starts = _class_starts(sizes[::-1])
    next_rank = starts.copy()
    for counted in stream.chunks():
        ranks = _ranks_in_classes(len(seen) - 1 - np.searchsorted(seen, counted.counts), next_rank)
        ranked.put(ranks, unmix(counted.mixed), counted.counts)
    for start, stop in zip(starts, next_rank, strict=True):
        ranked.values[start:stop].sort()
    for counted in stream.chunks():
        classes = len(seen) - 1 - np.searchsorted(seen, counted.counts)
        values = unmix(counted.mixed)
        ranks = np.empty(len(classes), np.int64)
        order = np.argsort(classes, kind="stable")
        edges = np.append(_first_of_each(classes[order]), len(order))
        for group in (order[start:stop] for start, stop in itertools.pairwise(edges)):
            known = ranked.values[starts[classes[group[0]]] : next_rank[classes[group[0]]]]
            group = group[np.argsort(values[group])]  # looked for in order, they are found several times as fast
            ranks[group] = starts[classes[group[0]]] + np.searchsorted(known, values[group])
        yield counted, ranks


def by_first_row(stream: CountStream, ranked: RankedValues) -> Iterator[tuple[Counts, NDArray[np.int64]]]:
    """The stream with the rank of each value: by the place where it was first seen; fills `ranked`."""
    sizes = np.zeros(0, np.int64)
    for counted in stream.chunks():
        found = np.bincount(_places(counted) >> PLACE_BITS, minlength=len(sizes))
        found[: len(sizes)] += sizes
        sizes = found
    if not stream.num_values:
        return
    # Sorted by piece on disk, then each piece in memory; `position` says where in the stream a value stands.
    places_path, ranks_path = f"{ranked.path}.places", f"{ranked.path}.ranks"
    places = new_map(places_path, dtype="<i8", shape=(stream.num_values, 2))
    ranks = new_map(ranks_path, dtype="<i8", shape=(stream.num_values,))
    next_rank = _class_starts(sizes)
    position = 0
    for counted in stream.chunks():
        slots = _ranks_in_classes(_places(counted) >> PLACE_BITS, next_rank)
        places[slots] = np.stack([_places(counted), np.arange(position, position + len(counted))], axis=1)
        position += len(counted)
    for start, size in zip(_class_starts(sizes), sizes, strict=True):
        piece = np.array(places[start : start + size])
        ranks[piece[np.argsort(piece[:, 0]), 1]] = np.arange(start, start + size)
    position = 0
    for counted in stream.chunks():
        of_chunk = np.array(ranks[position : position + len(counted)])
        ranked.put(of_chunk, unmix(counted.mixed), counted.counts)
        yield counted, of_chunk
        position += len(counted)
    storage.remove_file(places_path)
    storage.remove_file(ranks_path)


def _places(counted: Counts) -> NDArray[np.int64]:
    assert counted.first is not None, "places were not counted"
    return counted.first
