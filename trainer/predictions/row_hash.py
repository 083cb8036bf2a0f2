"""A hash of sets of row ids: the sum, modulo 2^64, of a hash of each (part, row), so that order does not matter.

A missing, a doubled or an exchanged row changes it; sums of ranges add up to that of all rows.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_CHUNK_ROWS = 1 << 20


def hash_rows(part: str, rows: NDArray[np.int64]) -> int:
    """The hash of these rows of a part, in any order; 64 bits. SplitMix64 (Steele, Lea & Flood, OOPSLA 2014)."""
    start = np.uint64(int.from_bytes(hashlib.sha256(part.encode()).digest()[:8], "big"))
    total = 0
    with np.errstate(over="ignore"):
        for first in range(0, len(rows), _CHUNK_ROWS):
            mixed = rows[first : first + _CHUNK_ROWS].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + start
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            total += int((mixed ^ (mixed >> np.uint64(31))).sum(dtype=np.uint64))
    return total % (1 << 64)


def hash_range(part: str, *, first_row: int, num_rows: int) -> int:
    """The hash of rows [first_row, first_row + num_rows) of a part."""
    total = 0
    for first in range(first_row, first_row + num_rows, _CHUNK_ROWS):
        stop = min(first + _CHUNK_ROWS, first_row + num_rows)
        total += hash_rows(part, np.arange(first, stop, dtype=np.int64))
    return total % (1 << 64)
