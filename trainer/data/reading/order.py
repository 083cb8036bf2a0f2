"""RowOrder: which row comes when in an epoch, a function of (seed, epoch) alone.

Rows are cut into blocks, the blocks are permuted, and rows are permuted within windows of the
result: reads stay near each other, memory stays bounded, any position is found without replaying
what came before, and neither the number of ranks nor the batch size matters.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

_BLOCK_ROWS = 4_096
_BLOCKS_STREAM = 0
_WINDOW_STREAM = 1
_KEPT_WINDOWS = 2  # the one being read and the one prepared ahead


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
        self.window = window
        self._kept: dict[int, Future[NDArray[np.int64]]] = {}
        self._lock = threading.Lock()
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
        if not self.window:
            return np.arange(start, stop, dtype=np.int64)
        pieces = []
        while start < stop:
            window, offset = divmod(start, self.window)
            piece = self._window_rows(window)[offset : offset + stop - start]
            pieces.append(piece)
            start += len(piece)
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int64)

    def numbers(self, start: int, stop: int) -> range | NDArray[np.int64]:
        """As `rows`; in file order a range, which sources read fastest."""
        return self.rows(start, stop) if self.window else range(start, max(start, min(stop, self._num_rows)))

    def prepare(self, position: int) -> None:
        """Works out the window of a position, so that `rows` need not stop for it. Another thread may call this."""
        if self.window and position < self._num_rows:
            self._window_rows(position // self.window)

    def runs(self, start: int, stop: int) -> list[range]:
        """Runs of row numbers that positions [start, stop) read; for a permuted window all of its runs."""
        stop = min(stop, self._num_rows)
        if not self.window or start >= stop:
            return [range(start, stop)] if start < stop else []
        begin = start // self.window * self.window
        end = min(-(-stop // self.window) * self.window, self._num_rows)
        first, last = self._blocks(begin, end)
        starts = self._block_first[first:last] + np.maximum(begin - self._block_starts[first:last], 0)
        ends = self._block_first[first:last] + np.minimum(end, self._block_ends[first:last])
        ends -= self._block_starts[first:last]
        return [range(a, b) for a, b in sorted(zip(starts.tolist(), ends.tolist(), strict=True))]

    def _blocks(self, start: int, stop: int) -> tuple[int, int]:
        """First and behind the last of the permuted blocks that hold positions [start, stop)."""
        first = int(np.searchsorted(self._block_ends, start, side="right"))
        return first, int(np.searchsorted(self._block_starts, stop, side="left"))

    def _window_rows(self, window: int) -> NDArray[np.int64]:
        with self._lock:  # never held while a window is worked out: the one before it is still being read
            found = self._kept.get(window)
            if found is None:
                while len(self._kept) >= _KEPT_WINDOWS:
                    del self._kept[min(self._kept)]
                mine = self._kept[window] = Future[NDArray[np.int64]]()
        if found is not None:
            return found.result()
        try:
            mine.set_result(self._permuted(window))
        except BaseException as error:
            mine.set_exception(error)
        return mine.result()

    def _permuted(self, window: int) -> NDArray[np.int64]:
        start = window * self.window
        stop = min(start + self.window, self._num_rows)
        first, last = self._blocks(start, stop)
        shift = self._block_first[first:last] - self._block_starts[first:last]  # from a position to its row
        inside = np.minimum(self._block_ends[first:last], stop) - np.maximum(self._block_starts[first:last], start)
        rows = np.arange(start, stop, dtype=np.int64) + np.repeat(shift, inside)
        return np.random.default_rng([*self._key, _WINDOW_STREAM, window]).permutation(rows)
