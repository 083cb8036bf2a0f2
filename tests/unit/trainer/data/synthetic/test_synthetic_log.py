"""Synthetic lines: what a plain formatter would write, and ceilings that chunks add up to."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from trainer.data.synthetic.synthetic_log import Ceiling, lines, make_chunk
from trainer.data.synthetic.teacher import Teacher, TeacherRows
from trainer.data.synthetic.teacher_tables import terabyte_tables


def plain_lines(rows: TeacherRows, teacher: Teacher) -> bytes:
    hashes = np.stack([teacher.hashes(f, np.maximum(rows.sparse_index[:, f], 0)) for f in range(26)], axis=1)
    text = []
    for row, label in enumerate(rows.label):
        numbers = [
            "" if gone else str(raw) for raw, gone in zip(rows.dense_raw[row], rows.dense_missing[row], strict=True)
        ]
        values = [
            "" if at < 0 else f"{value:08x}" for at, value in zip(rows.sparse_index[row], hashes[row], strict=True)
        ]
        text.append("\t".join([str(label), *numbers, *values]) + "\n")
    return "".join(text).encode()


@pytest.mark.parametrize("max_table_rows", [3, 20_000])
def test_lines_are_what_a_plain_formatter_writes(max_table_rows: int) -> None:
    teacher = Teacher(5, max_table_rows)
    rows = teacher.rows(np.arange(3_000))
    assert lines(rows, teacher) == plain_lines(rows, teacher)


def test_every_length_of_number() -> None:
    teacher = Teacher(5, 100)
    rows = teacher.rows(np.arange(16))
    rows.dense_raw[:, 3] = [0, -1, -3, 9, 10, 99, 100, 9_999, 10_000, 10_001, 99_999, 123_456, 10**7, 99_999_999, 7, 8]
    rows.dense_missing[:, 3] = False
    rows.dense_missing[-1, 3] = True
    assert lines(rows, teacher) == plain_lines(rows, teacher)
    assert lines(teacher.rows(np.arange(0)), teacher) == b""


def test_zipped_chunks_make_one_file() -> None:
    teacher = Teacher(5, 300)
    chunks = [
        make_chunk(teacher, first_row=first, num_rows=500, compression="gz", auc="exact").content
        for first in (0, 500, 1_000)
    ]
    assert gzip.decompress(b"".join(chunks)) == lines(teacher.rows(np.arange(1_500)), teacher)


@pytest.mark.parametrize("label_rate", [0.033, 0.25])
def test_ceilings_of_chunks_add_up(label_rate: float) -> None:
    teacher = Teacher(5, 300, terabyte_tables(scale=0.001), label_rate)
    exact, binned = Ceiling(), Ceiling()
    for first in range(0, 20_000, 2_500):
        for ceiling, auc in ((exact, "exact"), (binned, "bins")):
            ceiling.add(make_chunk(teacher, first_row=first, num_rows=2_500, compression="none", auc=auc).scores)
    whole = teacher.ceiling(np.arange(20_000)).as_json()
    for name, value in whole.items():
        assert exact.as_json()[name] == pytest.approx(value, rel=1e-12)
    found = binned.as_json()
    assert 0 < found["auc_error"] < 1e-3
    assert abs(found["auc"] - whole["auc"]) <= found["auc_error"]
    assert found["log_loss_nats"] == exact.as_json()["log_loss_nats"]
    assert exact.as_json()["auc_method"] == "exact" and "bins" in found["auc_method"]


@pytest.mark.parametrize("auc", ["exact", "bins"])
def test_a_day_of_one_class_has_no_auc(auc: str) -> None:
    teacher = Teacher(5, 300, label_rate=0.001)
    ceiling = Ceiling()
    ceiling.add(make_chunk(teacher, first_row=0, num_rows=1, compression="none", auc=auc).scores)  # type: ignore[arg-type]
    assert ceiling.as_json()["auc"] is None and ceiling.as_json()["num_rows"] == 1
