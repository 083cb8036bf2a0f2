"""Lookup tables: from values to ids, as files mapped into memory and shared by all processes.

A table is a hash table by linear probing whose home slots grow with the mixed value; so it is written from front to
back while values come in ascending order, and needs no memory to build. Its pages belong to the file: the machine keeps
what is used and drops what is not.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer import storage
from trainer.data.manifest import RARE_ID
from trainer.data.mixing import mix, scaled

_SLOTS_PER_VALUE = 1.75
_SLACK = 1 << 16  # slots behind the last home, for what is pushed on; far more than probing needs
_CHUNK = 1 << 14  # values looked up at a time: their temporary arrays stay in the cache


@dataclass(frozen=True, kw_only=True)
class LookupFile:
    """Where a table lies. Of 32-bit values a slot is value << 32 | id + 1; else come all keys, then id + 1 of each."""

    path: str
    num_slots: int  # homes; the file has _SLACK more
    value_bits: int


class LookupWriter:
    """Writes a table from values in ascending mixed order.

    Args:
        path: A local file.
        num_values: How many will come.
        value_bits: 32 or 64.
    """

    def __init__(self, path: str, *, num_values: int, value_bits: int) -> None:
        slots = int(num_values * _SLOTS_PER_VALUE) + 16
        self.file = LookupFile(path=path, num_slots=slots, value_bits=value_bits)
        self._columns = _mapped(self.file, mode="w+")
        self._next_free = 0

    def append(self, mixed: NDArray, ids: NDArray[np.int32]) -> None:
        """The next values and their ids."""
        if not len(mixed):
            return
        steps = np.arange(len(mixed))
        home = scaled(mixed, self.file.num_slots)
        home[0] = max(home[0], self._next_free)
        # Each value takes its home or the first slot behind its predecessor's.
        slots = np.maximum.accumulate(home - steps) + steps
        self._next_free = int(slots[-1]) + 1
        assert self._next_free < self.file.num_slots + _SLACK, "mixed values are not spread evenly"
        if self.file.value_bits == 32:
            self._columns[0][slots] = (mixed.astype(np.uint64) << np.uint64(32)) | (
                ids.astype(np.uint64) + np.uint64(1)
            )
        else:
            self._columns[0][slots] = mixed
            self._columns[1][slots] = ids + np.int32(1)

    def close(self) -> LookupFile:
        """Gives what was written."""
        self._columns = ()
        return self.file


class Lookup:
    """An open table."""

    def __init__(self, file: LookupFile) -> None:
        self._file = file
        self._columns = _mapped(file, mode="r")

    def ids(self, values: NDArray) -> NDArray[np.int32]:
        """Ids int32 [N] of values [N]; 1 where a value is not in the table."""
        ids = np.empty(len(values), np.int32)
        for start in range(0, len(values), _CHUNK):
            ids[start : start + _CHUNK] = self._chunk(values[start : start + _CHUNK])
        return ids

    def _chunk(self, values: NDArray) -> NDArray[np.int32]:
        mixed = mix(values)
        slots = scaled(mixed, self._file.num_slots)
        found, ids = self._probe(slots)
        left = np.flatnonzero(found != mixed)
        while len(left):
            left = left[ids[left] >= 0]  # an empty slot: the value is not in the table
            slots[left] += 1
            found, ids[left] = self._probe(slots[left])
            left = left[found != mixed[left]]
        # In an empty slot every value ends, and the value 0 seems to be found.
        ids[ids < 0] = RARE_ID
        return ids

    def _probe(self, slots: NDArray[np.int64]) -> tuple[NDArray, NDArray[np.int32]]:
        """The mixed values and ids in these slots; -1 in an empty one."""
        entries = self._columns[0][slots]
        if self._file.value_bits == 32:
            ids = entries.astype(np.uint32).view(np.int32)
            return (entries >> np.uint64(32)).astype(np.uint32), ids - np.int32(1)
        return entries, self._columns[1][slots] - np.int32(1)


def _mapped(file: LookupFile, *, mode: Any) -> tuple[NDArray, ...]:
    length = file.num_slots + _SLACK
    dtypes = ("<u8",) if file.value_bits == 32 else ("<u8", "<i4")
    columns, offset = [], 0
    path = storage.local_path(file.path) if mode == "r" else file.path
    if mode != "r":
        with storage.open_file(path, "wb") as new:
            # Room is taken now: writing to a mapped page that a full disk has none for would kill the process.
            os.posix_fallocate(new.fileno(), 0, length * sum(np.dtype(dtype).itemsize for dtype in dtypes))
    for dtype in dtypes:
        column = np.memmap(path, dtype=dtype, mode="r" if mode == "r" else "r+", offset=offset, shape=(length,))
        if mode == "r":
            column._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]  # neighbours are of no use
        # A plain view: indexing the memmap class costs more than the lookup of a small block.
        columns.append(column.view(np.ndarray))
        offset += length * np.dtype(dtype).itemsize
    return tuple(columns)
