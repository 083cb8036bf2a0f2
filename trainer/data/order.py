"""RowOrder: which row comes when in an epoch, a function of (seed, epoch) alone.

Rows are cut into blocks, the blocks are permuted, and rows are permuted within windows of the
result: reads stay near each other, memory stays bounded, any position is found without replaying
what came before, and neither the number of ranks nor the batch size matters.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCK_ROWS = 4_096
_BLOCKS_STREAM = 0
_WINDOW_STREAM = 1


class RowOrder:
    """The order of one epoch.

    Args:
        num_rows: Rows in the epoch.
        seed: data.seed.
        epoch: 0-based.
        window: Rows permuted together; 0: file order.
    """

    def __init__(self, *, num_rows: int, seed: int = 0, epoch: int = 0, window: int = 0) -> None:
        self._num_rows = num_rows
        self._key = (seed, epoch)
        self._window = window
        self._cached: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, dtype=np.int64))
        if window:
            block = min(_BLOCK_ROWS, window)
            first_rows = np.arange(0, num_rows, block, dtype=np.int64)
            order = np.random.default_rng([*self._key, _BLOCKS_STREAM]).permutation(len(first_rows))
            self._block_first = first_rows[order]
            lengths = np.minimum(self._block_first + block, num_rows) - self._block_first
            self._block_ends = np.cumsum(lengths)
            self._block_starts = self._block_ends - lengths

    def rows(self, start: int, stop: int) -> NDArray[np.int64]:
        """Row numbers at positions [start, stop) of the epoch."""
        stop = min(stop, self._num_rows)
        if not self._window:
            return np.arange(start, stop, dtype=np.int64)
        pieces = []
        while start < stop:
            window, offset = divmod(start, self._window)
            piece = self._window_rows(window)[offset : offset + stop - start]
            pieces.append(piece)
            start += len(piece)
        return np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int64)

    def _window_rows(self, window: int) -> NDArray[np.int64]:
        if self._cached[0] != window:
            start = window * self._window
            positions = np.arange(start, min(start + self._window, self._num_rows), dtype=np.int64)
            block = np.searchsorted(self._block_ends, positions, side="right")
            rows = self._block_first[block] + positions - self._block_starts[block]
            shuffled = np.random.default_rng([*self._key, _WINDOW_STREAM, window]).permutation(rows)
            self._cached = (window, shuffled)
        return self._cached[1]
