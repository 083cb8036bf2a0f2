"""The synthetic stream as a source of rows."""

from __future__ import annotations

import numpy as np

from trainer.data.reading.batch import Rows
from trainer.data.synthetic.stream import SyntheticSource
from trainer.data.synthetic.teacher import Teacher


def test_the_synthetic_stream_is_the_teachers_rows() -> None:
    teacher = Teacher(seed=3, max_table_rows=50)
    source = SyntheticSource(teacher=teacher, name="held_out", first_row=100, num_rows=20)
    assert source.num_rows == 20
    rows: Rows = source.read(np.array([5, 0], dtype=np.int64))
    made = teacher.rows(np.array([105, 100], dtype=np.int64))
    assert np.array_equal(rows.ids, made.ids) and np.array_equal(rows.dense, made.dense)
    assert rows.labels.tolist() == made.label.tolist()
    assert rows.row.tolist() == [5, 0]
    assert np.array_equal(source.read(range(3, 7)).ids, source.read(np.arange(3, 7)).ids)
    assert source.teacher_rows().tolist() == list(range(100, 120))
    assert (rows.ids < np.array(list(source.features.table_rows.values()))).all()
