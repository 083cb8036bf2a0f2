"""Batches for one rank: the r-th slice of each global batch, always of the same size."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor

from trainer.data.reading.batch import Batch, make_batch
from trainer.data.reading.order import RowOrder
from trainer.data.reading.source import RowSource

_STRETCH_ROWS = 65_536  # in file order, fetched at a time
_STRETCHES_AHEAD = 4


def slice_size(*, batch_size: int, world_size: int) -> int:
    """Rows of a rank's slice of a global batch; the last slices may hold fewer and are padded."""
    return -(-batch_size // world_size)


class BatchReader:
    """Cuts a source's rows into global batches and gives this rank its slices.

    A step takes the next `batch_size` rows of the order, rank r the r-th slice of them. The row
    counts of all ranks follow from row numbers, so no communication is needed.

    Args:
        source: The rows.
        batch_size: Rows a step over all ranks.
        rank: This rank.
        world_size: Number of ranks.
    """

    def __init__(self, *, source: RowSource, batch_size: int, rank: int, world_size: int) -> None:
        self._source = source
        self._batch_size = batch_size
        self._rank = rank
        self._world_size = world_size
        self._keys = list(source.features.table_rows)
        self._slice = slice_size(batch_size=batch_size, world_size=world_size)

    @property
    def num_rows(self) -> int:
        """Rows of an epoch."""
        return self._source.num_rows

    def rows_of_step(self, first_row: int) -> int:
        """Rows over all ranks of the step that begins at a row of the epoch."""
        return min(self._batch_size, self._source.num_rows - first_row)

    def local_rows_of_step(self, first_row: int) -> int:
        """Rows of this rank's slice of that step; what its batch has more than these only pads it."""
        begin, end = self._bounds(self.rows_of_step(first_row))
        return end - begin

    def _bounds(self, count: int) -> tuple[int, int]:
        begin = min(self._rank * self._slice, count)
        return begin, min(begin + self._slice, count)

    def batches(self, order: RowOrder, *, first_row: int = 0) -> Generator[Batch]:
        """This rank's slices from a row of the epoch to its end."""
        with _LookAhead(self._source, order=order, first_row=first_row) as ahead:
            for start in range(first_row, self._source.num_rows, self._batch_size):
                count = self.rows_of_step(start)
                ahead.reached(start, start + count)
                begin, end = self._bounds(count)
                rows = self._source.read(order.numbers(start + begin, start + end))
                yield make_batch(rows, keys=self._keys, num_rows=self._slice, loss_weight=self._world_size / count)


class _LookAhead:
    """Fetches the rows that come next from the disk, and permutes the next window, in a thread of its own.

    The order is cut into stretches: windows, or in file order a fixed number of rows. All rows of a stretch are
    fetched, also those of other ranks: they lie between this one's.
    """

    def __init__(self, source: RowSource, *, order: RowOrder, first_row: int) -> None:
        self._source = source
        self._order = order
        self._stretch = order.window or _STRETCH_ROWS
        self._ahead = 1 if order.window else _STRETCHES_AHEAD
        self._next = first_row // self._stretch  # the first stretch not yet asked for
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="look-ahead")
        self._asked: deque[tuple[int, Future[None]]] = deque()

    def __enter__(self) -> _LookAhead:
        return self

    def __exit__(self, *_error: object) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def reached(self, start: int, stop: int) -> None:
        """Waits for the stretches of positions [start, stop), and has the ones behind them fetched.

        Raises:
            Exception: what went wrong in the thread.
        """
        last = max(start, stop - 1) // self._stretch
        while self._next <= last + self._ahead and self._next * self._stretch < self._source.num_rows:
            self._asked.append((self._next, self._thread.submit(self._fetch, self._next * self._stretch)))
            self._next += 1
        while self._asked and self._asked[0][0] <= last:
            self._asked.popleft()[1].result()

    def _fetch(self, position: int) -> None:
        for run in self._order.runs(position, position + self._stretch):
            self._source.fetch(run)
        self._order.prepare(position)
