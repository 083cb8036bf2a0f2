"""Parquet tables: row groups into rows by the schema, whatever types their columns have."""

from __future__ import annotations

import datetime
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import DataError
from configs.table_schema import CategoricalFeature, MultiFeature, NumericFeature, TableFiles, TableLabel, TableSchema
from tests.support.table_pieces import read_pieces
from trainer.data.tables.table_parquet import ParquetTable

SCHEMA = TableSchema(
    table=TableFiles(format="parquet"),
    label=TableLabel(column="click", positive=("true",), negative=("false",)),
    numeric={"age": NumericFeature(transform="identity")},
    categorical={"site": CategoricalFeature(), "user": CategoricalFeature(column="user.id", type="integer")},
    multi={"genres": MultiFeature()},
)
TABLE = ParquetTable(SCHEMA)
COLUMNS = {
    "click": pa.array([True, False, True]),
    "age": pa.array([0.1, None, 3.0], pa.float64()),
    "site": pa.array(["a", "", None]).dictionary_encode(),
    "user.id": pa.array([2**53 + 1, -1, None], pa.int64()),
    "genres": pa.array([["x", "y", None], None, []], pa.list_(pa.string())),
    "unused": pa.array([{"a": 1}] * 3),
}


def _write(path, *, row_group_size: int = 100, repeat: int = 1, **changed):
    table = pa.table({**COLUMNS, **changed})
    pq.write_table(pa.concat_tables([table] * repeat), path, row_group_size=row_group_size)
    return path


def test_values_of_all_types_come_as_they_are(tmp_path):
    (rows,) = read_pieces(TABLE, _write(tmp_path / "a.parquet"))
    assert rows.labels.tolist() == [1, 0, 1]
    assert rows.dense[:, 0].tolist() == [np.float32(0.1), 0.0, 3.0]
    assert rows.missing.tolist() == [[False, True, True], [False, False, True]]
    assert rows.values[1].view(np.int64).tolist() == [2**53 + 1, -1, 0]
    assert rows.bags[0].lengths.tolist() == [2, 0, 0]
    assert sorted(rows.texts["genres"].values()) == ["x", "y"]


def test_texts_with_separators_do_where_there_are_no_lists(tmp_path):
    (rows,) = read_pieces(TABLE, _write(tmp_path / "a.parquet", genres=pa.array(["x|y|", "", None])))
    assert rows.bags[0].lengths.tolist() == [2, 0, 0]


def test_row_groups_are_pieces_and_are_read_by_themselves(tmp_path):
    path = _write(tmp_path / "a.parquet", repeat=5, row_group_size=4)
    table = pickle.loads(pickle.dumps(ParquetTable(SCHEMA, block_rows=3)))
    assert table.num_pieces(str(path)) == 4
    assert sum(rows.num_rows for rows in read_pieces(table, path)) == 15
    (_, num_bytes, block), *rest = table.blocks(str(path), first_piece=2, done=frozenset())
    assert block.num_lines == 3 and num_bytes == path.stat().st_size * 3 // 15
    assert rest[-1] == (2, path.stat().st_size * 4 // 15, None)


def test_bad_rows_are_told_with_what_they_hold(tmp_path):
    path = _write(
        tmp_path / "a.parquet",
        click=pa.array([None, False, True]),
        age=pa.array([1.0, float("nan"), 2.0]),
        site=pa.array([b"a", b"b", b"\xff"], pa.binary()),
    )
    (rows,) = read_pieces(TABLE, path)
    assert rows.num_rows == 0
    assert [(bad.line, bad.reason, bad.detail) for bad in rows.bad] == [
        (0, "label is neither positive nor negative", "click: None"),
        (1, "age is not a number", "age: 'NaN'"),
        (2, "not UTF-8 text", ""),
    ]
    assert rows.bad[1].text.startswith(b"False, nan, b'b', -1")


def test_bad_bytes_leave_the_lines_of_other_rows_right(tmp_path):
    path = _write(
        tmp_path / "a.parquet", click=pa.array([True, None, None]), site=pa.array([b"\xff", b"a", b"b"], pa.binary())
    )
    (rows,) = read_pieces(TABLE, path)
    assert [bad.line for bad in rows.bad] == [0, 1, 2]


def test_times_are_moments(tmp_path):
    moments = pa.array([datetime.datetime(2014, 10, 21, 7), None, datetime.datetime(2014, 10, 26, 23, 59, 59)])
    feature = CategoricalFeature(column="site", time_format="%Y-%m-%d %H:%M:%S", part_of_time="hour")
    table = ParquetTable(TableSchema(table=TableFiles(format="parquet"), categorical={"hour": feature}))
    (rows,) = read_pieces(table, _write(tmp_path / "a.parquet", site=moments))
    assert rows.values.tolist() == [[7, 0, 23]]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"age": pa.array([[1.0]] * 3)}, "column 'age' holds List.*, not single values"),
        ({"genres": pa.array([{"a": 1}] * 3)}, "column 'genres' holds Struct.*, not single values, or lists"),
        ({"genres": pa.array([[["a"]]] * 3)}, "column 'genres' holds List"),
        ({"age": pa.array([datetime.timedelta(1)] * 3)}, "column 'age' holds Duration"),
    ],
)
def test_columns_that_hold_no_values_are_refused(tmp_path, changed, message):
    path = _write(tmp_path / "a.parquet", **changed)
    with pytest.raises(DataError, match=message):
        TABLE.num_pieces(str(path))


def test_a_column_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"click": [True], "agee": [1]}), path)
    with pytest.raises(DataError, match=r"has no column 'age'; did you mean 'agee'\?"):
        TABLE.num_pieces(str(path))


def test_files_that_are_none_are_refused(tmp_path):
    (tmp_path / "text.parquet").write_text("a,b\n")
    (tmp_path / "empty.parquet").write_bytes(b"")
    pq.write_table(pa.table(COLUMNS)[:0], tmp_path / "rowless.parquet")
    whole = _write(tmp_path / "a.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:-20])
    for name, message in [
        ("text", "cannot be read as Parquet"),
        ("empty", "cannot be read as Parquet"),
        ("cut", "cannot be read as Parquet"),
        ("rowless", "holds no rows"),
        ("gone", "no such file"),
    ]:
        with pytest.raises(DataError, match=message):
            TABLE.num_pieces(str(tmp_path / f"{name}.parquet"))
    with pytest.raises(DataError, match="is a folder"):
        TABLE.num_pieces(str(tmp_path))


def test_damage_inside_a_file_is_an_error_that_names_it(tmp_path):
    path = _write(tmp_path / "a.parquet", repeat=1000)
    data = bytearray(path.read_bytes())
    data[4:2000] = b"\xff" * 1996
    path.write_bytes(data)
    with pytest.raises(DataError, match="a.parquet: cannot be read as Parquet"):
        list(TABLE.blocks(str(path), first_piece=0, done=frozenset()))


def test_text_that_is_not_utf8_in_a_text_column_is_damage(tmp_path):
    broken = pa.StringArray.from_buffers(3, pa.py_buffer(np.array([0, 1, 2, 3], np.int32)), pa.py_buffer(b"a\xffb"))
    path = _write(tmp_path / "a.parquet", site=broken)
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        list(TABLE.blocks(str(path), first_piece=0, done=frozenset()))
