"""Columns that pass through: as they were in the table, by row number, and nothing that a prediction cannot hold."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from configs.errors import ConfigError, DataError
from tests.support.preparing import contents, interrupt_in, quarantine, settings_for
from tests.support.table_pieces import schema_of
from tests.unit.trainer.data.prepared import mixed_arrays, mixed_folder
from trainer.data.manifest import DataManifest
from trainer.data.preparing.preparation import prepare
from trainer.data.preparing.preparation_settings import VocabularyChoice
from trainer.data.preparing.splits import Split
from trainer.data.reading.batch import Rows
from trainer.data.reading.opening import Alone
from trainer.data.reading.scan import check_values
from trainer.data.reading.source import PreparedSource
from trainer.data.synthetic.stream import SyntheticSource
from trainer.data.synthetic.teacher import Teacher
from trainer.data.tables.table_csv import CsvTable
from trainer.data.tables.table_parquet import ParquetTable

SCHEMA = """
[table]
format = "{format}"
[label]
column = "click"
[split]
column = "fold"
[split.parts]
train = ["t"]
valid = ["v"]
[numeric]
age = {{}}
[categorical]
user = {{}}
[multi]
tags = {{}}
[keep]
request = {{ max_bytes = 8 }}
raw_user = {{ column = "user" }}
stamp = {{ type = "integer" }}
"""
NUM_ROWS = 90
TEXTS = ["", "a", "żółw", "8 bytes!", "🙂🙂", "-", "0012", '"q"']
STAMPS = [-(2**63), 2**63 - 1, 0, -1, 1_700_000_000_123]


def _table() -> pa.Table:
    rows = np.arange(NUM_ROWS)
    return pa.table(
        {
            "click": [str(row % 2) for row in rows],
            "fold": ["v" if row % 3 == 0 else "t" for row in rows],
            "age": [str(row) for row in rows],
            "user": [f"u{row % 7}" for row in rows],
            "tags": ["x|y" if row % 5 else "" for row in rows],
            "request": [TEXTS[row % len(TEXTS)] for row in rows],
            "stamp": pa.array([STAMPS[row % len(STAMPS)] for row in rows], pa.int64()),
        }
    )


def _write(folder: Path, kind: str) -> list[str]:
    """The table in two files."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number, start in enumerate((0, 50)):
        path = folder / f"day_{number}.{kind}"
        piece = _table().slice(start, 50)
        paths.append(str(path))
        if path.exists():  # one of another time would be read again
            continue
        if kind == "csv":
            pyarrow.csv.write_csv(piece, path)
        else:
            pq.write_table(piece, path, row_group_size=20)
    return paths


def _settings(tmp_path: Path, kind: str, output: str, *, split: str = "column", keep_rows: bool = True):
    schema = schema_of(tmp_path, SCHEMA.format(format=kind))
    if split != "column":
        schema = dataclasses.replace(schema, split=None, multi={})
    table = CsvTable(schema, piece_bytes=700) if kind == "csv" else ParquetTable(schema, block_rows=15)
    inputs = _write(tmp_path / kind, kind)
    how = Split(kind="column", names=("train", "valid")) if split == "column" else Split.by_file(inputs)
    return settings_for(
        inputs,
        tmp_path / output,
        input_format=table,
        split=how,
        vocabulary=VocabularyChoice(parts=how.names[:1]),
        keep_rows=keep_rows,
    )


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_through_a_preparation_split_by_a_column_and_resumed(tmp_path, kind):
    for stage in ("parse", "write"):
        with pytest.raises(KeyboardInterrupt):
            prepare(_settings(tmp_path, kind, "data"), on_progress=interrupt_in(stage, after_calls=2))
    manifest = prepare(_settings(tmp_path, kind, "data"))
    prepare(_settings(tmp_path, kind, "whole"))
    assert contents(tmp_path / "data") == contents(tmp_path / "whole")
    assert [feature.name for feature in manifest.kept_features] == ["request", "raw_user", "stamp"]
    root = str(tmp_path / "data")
    source = PreparedSource(root=root, parts=["valid", "train"])
    check_values([source], ranks=Alone())
    order = [row for row in range(NUM_ROWS) if row % 3 == 0] + [row for row in range(NUM_ROWS) if row % 3]
    table = _table().take(order)
    for rows in (range(NUM_ROWS), range(20, 45), range(31, 32), range(7, 7)):  # across the parts, within one, none
        found = source.kept(["request", "stamp", "raw_user"], rows)
        wanted = table.slice(rows.start, len(rows))
        assert [text.decode() for text in found["request"].tolist()] == wanted["request"].to_pylist()
        assert [text.decode() for text in found["raw_user"].tolist()] == wanted["user"].to_pylist()
        assert found["stamp"].tolist() == wanted["stamp"].to_pylist() and found["stamp"].dtype == np.int64
        assert found["request"].dtype == "S8" and found["request"].ndim == 1


@pytest.mark.parametrize("keep_rows", [True, False])
def test_a_part_a_file_and_texts_read_twice(tmp_path, keep_rows):
    prepare(_settings(tmp_path, "csv", "data", split="file", keep_rows=keep_rows))
    found = PreparedSource(root=str(tmp_path / "data"), parts=["day_1"]).kept(["request"], range(40))
    assert [text.decode() for text in found["request"].tolist()] == _table()["request"].to_pylist()[50:]


def test_features_with_one_value_a_row(tmp_path):
    root = mixed_folder(tmp_path / "data", {"a": mixed_arrays(30, seed=1), "b": mixed_arrays(20, seed=2)})
    source = PreparedSource(root=root, parts=["a", "b"])
    found = source.kept(["C1", "I1", "N1", "weight"], range(10, 40))
    rows: Rows = source.read(range(10, 40))
    np.testing.assert_array_equal(found["I1"], rows.dense[:, 0])
    np.testing.assert_array_equal(found["weight"], rows.weights)
    first, second = (mixed_arrays(n, seed=seed) for n, seed in ((30, 1), (20, 2)))
    ids = np.concatenate([first["sparse"], second["sparse"]])[10:40, 1]
    np.testing.assert_array_equal(found["C1"], ids)
    assert {name: column.dtype.name for name, column in found.items()} == {
        "C1": "int32",
        "I1": "float32",
        "N1": "int32",
        "weight": "float32",
    }
    assert all(column.flags.owndata for column in found.values())  # a file's own memory may go
    for name in ("genres", "E1", "M1"):
        with pytest.raises(ConfigError, match=f"score.keep: '{name}' has several ids a row.*choose from I1, C1, N1"):
            source.check_keepable(["C1", name])
    with pytest.raises(
        ConfigError, match=r"score.keep: there is no column 'request'.*schema that has \[keep.request\]"
    ):
        source.kept(["request"], range(2))


def test_synthetic_rows():
    source = SyntheticSource(teacher=Teacher(seed=1, max_table_rows=50), name="s", first_row=100, num_rows=40)
    found = source.kept(["C3", "I2"], range(5, 25))
    rows = source.read(range(5, 25))
    np.testing.assert_array_equal(found["I2"], rows.dense[:, 1])
    np.testing.assert_array_equal(found["C3"], rows.values.reshape(26, 20)[2])
    with pytest.raises(ConfigError, match="score.keep: there is no column 'user'; choose from I1, "):
        source.check_keepable(["user"])


def test_values_that_do_not_fit_are_bad_lines(tmp_path):
    """Nothing is cut, and an empty integer is none."""
    schema = schema_of(tmp_path, SCHEMA.format(format="parquet"))
    table = pa.table(
        {
            **{name: ["1", "0", "1", "0", "1"] for name in ("click", "age", "user", "tags")},
            "fold": ["t"] * 5,
            "request": ["fine", "9 bytes!!", "żółwiów", "n\0", None],
            "stamp": ["7", "1", "1", "1", "8"],
        }
    )
    more = table.set_column(6, "stamp", pa.array(["", "1.5", str(2**63), "x", None]))
    pq.write_table(
        pa.concat_tables([table, more.set_column(5, "request", pa.array(["a"] * 5))]), tmp_path / "a.parquet"
    )
    prepare(
        settings_for(
            [str(tmp_path / "a.parquet")],
            tmp_path / "data",
            input_format=ParquetTable(schema),
            split=Split(kind="column", names=("train", "valid")),
            max_bad_fraction=1.0,
        )
    )
    assert [(bad["line"], bad["reason"]) for bad in quarantine(tmp_path / "data")] == [
        (2, "request is longer than its max_bytes, 8"),
        (3, "request is longer than its max_bytes, 8"),
        (4, "request is text with a NUL character"),
        *((line, "stamp is not a whole number of 64 bits") for line in range(6, 11)),
    ]
    found = PreparedSource(root=str(tmp_path / "data"), parts=["train"]).kept(["request", "stamp"], range(2))
    assert found["request"].tolist() == [b"fine", b""] and found["stamp"].tolist() == [7, 8]


def test_new_rows_may_keep_other_columns(tmp_path):
    """And have other parts; folders that were prepared before columns could be kept are dictionaries all the same."""
    old = _settings(tmp_path, "csv", "old", split="file")
    bare = dataclasses.replace(old.input_format.schema, keep={})
    prepare(dataclasses.replace(old, input_format=CsvTable(bare)))
    assert "keep" not in json.loads((tmp_path / "old" / "manifest.json").read_text())["provenance"]["input"]["schema"]
    new = _settings(tmp_path, "csv", "new", split="file")
    new = dataclasses.replace(new, vocabulary=VocabularyChoice(kind="saved", saved=str(tmp_path / "old")))
    found = prepare(new)
    assert found.dictionary_sha256 == DataManifest.read(str(tmp_path / "old")).dictionary_sha256


@pytest.mark.parametrize("changed", [{"dtype": "float64"}, {"dtype": None}, {"file": "sparse"}, {"column": 1}])
def test_a_manifest_that_lies(tmp_path, changed):
    prepare(_settings(tmp_path, "csv", "data", split="file"))
    path = tmp_path / "data" / "manifest.json"
    body = json.loads(path.read_text())
    body["features"][-1].update(changed)
    path.write_text(json.dumps(body))
    with pytest.raises(DataError, match="feature stamp of kind 'kept' lies in column .* prepare the folder again"):
        PreparedSource(root=str(tmp_path / "data"), parts=["day_0"])


def test_a_file_that_is_not_what_the_manifest_says(tmp_path):
    prepare(_settings(tmp_path, "csv", "data", split="file"))
    np.save(tmp_path / "data" / "day_0_request_kept.npy", np.full((50, 1), b"a", "S9"))
    with pytest.raises(DataError, match=r"day_0_request_kept.npy: holds \|S9 \[50, 1\], not \|S8 of 1 columns"):
        PreparedSource(root=str(tmp_path / "data"), parts=["day_0"])
