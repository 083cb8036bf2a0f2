"""Batches for one rank: the r-th slice of each global batch, always of the same size."""

from __future__ import annotations

from collections.abc import Iterator

from trainer.data.batch import Batch, make_batch
from trainer.data.order import RowOrder
from trainer.data.source import RowSource


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

    def batches(self, order: RowOrder, *, first_row: int = 0) -> Iterator[Batch]:
        """This rank's slices from a row of the epoch to its end."""
        for start in range(first_row, self._source.num_rows, self._batch_size):
            count = self.rows_of_step(start)
            begin = min(self._rank * self._slice, count)
            end = min(begin + self._slice, count)
            rows = self._source.read(order.rows(start + begin, start + end))
            yield make_batch(rows, keys=self._keys, num_rows=self._slice, loss_weight=self._world_size / count)
