"""tools/prepare_table.py: tables into the prepared format, new rows with known ids, and what it says of mistakes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tools import prepare_table
from trainer.data.manifest import DataManifest

SCHEMA = """
[table]
format = "csv"
[label]
column = "click"
[weight]
column = "weight"
[numeric]
age = {}
[categorical]
site = {}
user = { type = "integer" }
[multi]
tags = {}
"""
SPLIT = '[split]\ncolumn = "day"\nparts = { train = ["mon", "tue"], valid = ["wed"] }\n'
TABLES = Path(__file__).resolve().parents[3] / "configs" / "tables"


def _rows(num_rows: int = 60) -> pl.DataFrame:
    row = range(num_rows)
    return pl.DataFrame(
        {
            "click": [number % 2 for number in row],
            "weight": [0.5 + number for number in row],
            "age": [number % 7 or None for number in row],
            "site": [f"site {number % 3}" for number in row],
            "user": [10**12 + number % 5 for number in row],
            "tags": ["|".join("abc"[: number % 4]) for number in row],
            "day": ["mon", "tue", "wed"] * (num_rows // 3),
        }
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("schema.toml").write_text(SCHEMA + SPLIT)
    _rows().write_csv("log.csv")
    return tmp_path


def _prepare(output: str, *words: str, schema: str = "schema.toml", log: str = "log.csv") -> int:
    flags = ["--schema", schema, "--input", log, "--output", output, "--workers", "1", *words]
    return prepare_table.main(flags)


def _array(output: str, name: str) -> np.ndarray:
    return np.load(f"{output}/{name}.npy")


def test_all_columns_end_where_the_manifest_says(folder):
    assert _prepare("out", "--min-count", "1") == 0
    manifest = DataManifest.read("out")
    assert [(part.name, part.num_rows, part.label_sum) for part in manifest.parts] == [
        ("train", 40, 20),
        ("valid", 20, 10),
    ]
    assert [(feature.name, feature.kind) for feature in manifest.features if feature.kind != "weight"] == [
        ("age", "dense"),
        ("site", "id"),
        ("user", "id"),
        ("tags", "bag"),
    ]
    train = _rows().filter(pl.col("day") != "wed")
    assert _array("out", "train_labels")[:, 0].tolist() == train["click"].to_list()
    assert _array("out", "train_weights")[:, 0].tolist() == train["weight"].to_list()
    assert _array("out", "train_dense")[:, 0] == pytest.approx(np.log1p(train["age"].fill_null(0).to_numpy()))
    words = {feature: _dictionary("out", feature) for feature in ("site", "user", "tags")}
    sparse = _array("out", "train_sparse")
    assert [words["site"][number] for number in sparse[:, 0].tolist()] == train["site"].to_list()
    assert [words["user"][number] for number in sparse[:, 1].tolist()] == train["user"].to_list()
    offsets, values = _array("out", "train_tags_offsets"), _array("out", "train_tags_values")
    tags = ["|".join(words["tags"][number] for number in values[a:b].tolist()) for a, b in itertools.pairwise(offsets)]
    assert tags == train["tags"].to_list()


def _dictionary(output: str, feature: str) -> dict[int, object]:
    frame = pl.read_parquet(f"{output}/dictionary/{feature}.parquet")
    return dict(
        zip(frame["id"].to_list(), frame["text" if "text" in frame.columns else "value"].to_list(), strict=True)
    )


def test_parquet_gives_the_same_as_csv(folder):
    _rows().with_columns(pl.col("tags").str.split("|")).write_parquet("log.parquet", row_group_size=7)
    Path("parquet.toml").write_text((SCHEMA + SPLIT).replace('"csv"', '"parquet"'))
    assert _prepare("text") == 0
    assert _prepare("binary", schema="parquet.toml", log="log.parquet") == 0
    names = sorted(path.name for path in Path("text").glob("*.npy"))
    assert len(names) == 12
    for name in names:
        assert (Path("text") / name).read_bytes() == (Path("binary") / name).read_bytes(), name


def test_new_rows_without_labels_get_the_ids_of_the_old_ones(folder):
    Path("schema.toml").write_text(SCHEMA)
    assert _prepare("out") == 0
    _rows().drop("click").write_csv("new.csv")
    assert _prepare("new", "--unlabelled", "--dictionary", "out", log="new.csv") == 0
    assert np.array_equal(_array("new", "new_sparse"), _array("out", "log_sparse"))
    assert DataManifest.read("new").dictionary_sha256 == DataManifest.read("out").dictionary_sha256
    assert not Path("new/new_labels.npy").exists()


def test_bad_lines_are_found_by_the_files_own_line_numbers(folder, capsys):
    lines = Path("log.csv").read_text().splitlines()
    lines[10:10] = ["1,2,3", "7" + lines[1][1:]]
    Path("log.csv").write_text("\n".join(lines) + "\n")
    assert _prepare("out") == 2
    assert "2 of 62 lines are no rows" in capsys.readouterr().err
    assert _prepare("out", "--max-bad-fraction", "0.1") == 0
    quarantined = [json.loads(line) for line in Path("out/quarantine.jsonl").read_text().splitlines()]
    assert [entry["line"] for entry in quarantined] == [11, 12]
    assert sum(part.num_rows for part in DataManifest.read("out").parts) == 60


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--split", "a=0.5", "b=0.5"), "--split: a column says it already"),
        (("--schema", "gone.toml"), "gone.toml: no such file; there are "),
        (("--input", "gone.csv"), "gone.csv"),
    ],
)
def test_mistakes_are_sentences(folder, capsys, words, sentence):
    assert _prepare("out", *words) == 2
    assert sentence in capsys.readouterr().err


def test_a_schema_without_label_has_none_to_leave_out(folder, capsys):
    Path("schema.toml").write_text('[table]\nformat = "csv"\n[categorical]\nsite = {}\n')
    assert _prepare("out", "--unlabelled") == 2
    assert "--unlabelled: schema.toml has no [label]" in capsys.readouterr().err


def test_the_file_of_kdd_cup_2012_as_its_columns_are_documented(folder):
    lines = [
        "0\t1\t4298118681424644510\t7686695\t385\t3\t3\t1601\t5521\t7709\t576\t490234",
        "2\t5\t14340390157469404125\t4\t5\t1\t1\t6\t7\t8\t9\t0",
    ]
    Path("training.txt").write_text("".join(f"{line}\n" for line in lines))
    assert _prepare("out", "--min-count", "1", schema=str(TABLES / "kdd12.toml"), log="training.txt") == 0
    assert _array("out", "training_labels")[:, 0].tolist() == [0, 1]
    user = [feature.name for feature in DataManifest.read("out").id_features].index("user")
    assert _array("out", "training_sparse")[:, user].tolist() == [2, 0]
    urls = pl.read_parquet("out/dictionary/display_url.parquet")
    assert sorted(urls["text"].to_list()) == ["14340390157469404125", "4298118681424644510"]
