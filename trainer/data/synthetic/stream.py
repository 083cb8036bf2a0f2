"""SyntheticSource: rows of the planted teacher, made on the fly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.data.criteo import DENSE_NAMES, SPARSE_NAMES
from trainer.data.reading.batch import Rows
from trainer.data.reading.kept_columns import check_names
from trainer.data.reading.source import SourceFeatures, SourcePart
from trainer.data.synthetic.teacher import Teacher


class SyntheticSource:
    """A run of rows of the planted teacher; its ids are in their tables by the way they are made.

    Args:
        teacher: Makes row i from (seed, i) alone.
        name: The part's name.
        first_row: Where the run begins in the teacher's endless stream.
        num_rows: Its length.
    """

    def __init__(self, *, teacher: Teacher, name: str, first_row: int, num_rows: int) -> None:
        self.teacher = teacher
        self.features = SourceFeatures(
            dense_names=DENSE_NAMES,
            table_rows=dict(zip(SPARSE_NAMES, teacher.table_rows, strict=True)),
            dictionary=f"synthetic seed {teacher.seed}, tables up to {teacher.max_table_rows} rows",
        )
        self.parts = (SourcePart(name=name, num_rows=num_rows, files={}),)
        self._first_row = first_row

    @property
    def num_rows(self) -> int:
        """Rows of the run."""
        return self.parts[0].num_rows

    def teacher_rows(self) -> NDArray[np.int64]:
        """The run's rows, as numbered by the teacher."""
        return np.arange(self._first_row, self._first_row + self.num_rows, dtype=np.int64)

    def read(self, rows: range | NDArray[np.int64]) -> Rows:
        """The rows of these numbers, in this order."""
        row = np.arange(rows.start, rows.stop, dtype=np.int64) if isinstance(rows, range) else rows
        made = self.teacher.rows(row + self._first_row)
        return Rows.of_single_ids(
            made.ids,
            dense=made.dense,
            labels=made.label.astype(np.float32),
            part=np.zeros(len(row), dtype=np.int32),
            row=row,
        )

    def fetch(self, rows: range) -> None:
        """There is no disk."""

    def check_keepable(self, names: Sequence[str]) -> None:
        """Refuses names that are no features.

        Raises:
            ConfigError: names score.keep, and the features.
        """
        check_names(names, there=(*DENSE_NAMES, *SPARSE_NAMES))

    def kept(self, names: Sequence[str], rows: range) -> dict[str, NDArray]:
        """Features [n] that pass through: numbers float32, ids int32.

        Raises:
            ConfigError: as `check_keepable`.
        """
        self.check_keepable(names)
        made = self.teacher.rows(np.arange(rows.start, rows.stop, dtype=np.int64) + self._first_row)
        columns = {name: made.dense[:, place].astype(np.float32) for place, name in enumerate(DENSE_NAMES)}
        columns |= {name: made.ids[:, place].astype(np.int32) for place, name in enumerate(SPARSE_NAMES)}
        return {name: columns[name] for name in names}
