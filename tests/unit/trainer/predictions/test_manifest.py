"""The manifest of predictions: read as it was written, and nothing else is taken for one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from configs.errors import DataError
from tests.support.made_predictions import made_predictions
from trainer.predictions.columns import is_reserved, logit_column, probability_column
from trainer.predictions.manifest import PredictionManifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    logits = {"deep": np.arange(25.0), "solo": -np.arange(25.0)}
    return Path(made_predictions(tmp_path, [0, 1] * 12 + [1], logits, parts={"b": 15, "a": 10}, range_rows=10))


def test_it_is_read_as_it_was_written(folder: Path, tmp_path: Path) -> None:
    manifest = PredictionManifest.read(str(folder))
    other = tmp_path / "other"
    other.mkdir()
    manifest.write(str(other))
    assert PredictionManifest.read(str(other)) == manifest
    assert (manifest.num_rows, list(manifest.parts), manifest.has_labels) == (25, ["b", "a"], True)


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as refused:
        PredictionManifest.read(str(folder))
    return str(refused.value)


def test_what_is_no_manifest_is_refused(folder: Path) -> None:
    path = folder / "manifest.json"
    body = json.loads(path.read_text())
    for change in (
        {"format": "chorus-data"},
        {"format_version": 2},
        {"num_rows": 24},
        {"files": [{"path": "a"}]},
        {"more": 1},
    ):
        path.write_text(json.dumps({**body, **change}))
        sentence = refusal(folder)
        assert sentence.startswith(f"{path} is not a manifest of predictions ("), change
        assert sentence.endswith("; run trainer/score.py again")
    for text in ("{", "[]", "{}", '{"format": "chorus-predictions"}'):
        path.write_text(text)
        assert "is not a manifest of predictions" in refusal(folder)
    path.unlink()
    assert refusal(folder) == (
        f"{str(folder)!r} has no manifest.json, so it holds no finished predictions; run trainer/score.py"
    )


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        ("files.1.num_bytes", "abc", "files[1].num_bytes: 'abc' is no whole number from zero up"),
        ("files.1.num_bytes", True, "files[1].num_bytes: True is no whole number from zero up"),
        ("files.1.label_sum", 2.5, "files[1].label_sum: 2.5 is no whole number from zero up"),
        ("files.1.label_sum", 6, "files[1].label_sum: 6 of 5 rows"),
        ("files.1.row_hash", "xyz", "files[1].row_hash: 'xyz' is not 16 hex digits"),
        ("files.1.row_hash", 7, "files[1].row_hash: 7 is no text"),
        ("files.1.sha256", "", "files[1].sha256: '' is not 64 hex digits"),
        (
            "files.1.path",
            "../victim/b-000000000010.parquet",
            "files[1].path: '../victim/b-000000000010.parquet' is not",
        ),
        ("files.1.path", "b-10.parquet", "files[1].path: 'b-10.parquet' is not 'b-000000000010.parquet'"),
        ("files.1.part", "c", "files[1].part: 'c' is not among the parts"),
        ("files.1.part", [], "files[1].part: [] is not among the parts"),
        ("files.1.num_rows", 0, "files[1].num_rows: 0"),
        ("files.1.num_rows", 4, "files: rows 14 to 14 of b are missing"),
        ("files.2.num_rows", 11, "files: end at row 10 of a, which has 10 rows"),
        ("files.1.more", 1, "files[1].more: no such key"),
        ("files.1", None, "files[1]: None is no table of values"),
        ("files", [], "files: rows 0 to 14 of b are missing"),
        ("files", {}, "files: {} is no list"),
        ("parts", {"b": 15, "a": "x"}, "parts.a: 'x' is no whole number"),
        ("parts", {"../b": 15}, "parts: '../b' is no name of a part"),
        ("parts", [], "parts: [] is no table of values"),
        ("members", [], "members: none"),
        ("members", ["deep", "deep"], "members: 'deep' is named twice"),
        ("members", ["deep", "merged"], "members: 'merged' is the merge's name"),
        ("members", "deep", "members: 'deep' is no list"),
        ("members", ["deep", 7], "members: 7 is no text"),
        ("kept", ["x", "x"], "kept: 'x' is named twice"),
        ("merge", {}, "merge.rule: missing"),
        ("merge", None, "merge: None is no table of values"),
        ("merge.members", ["deep", "wide"], "merge.members: 'wide' is not among the members deep, solo"),
        ("merge.rule", "best", "merge.rule: 'best' is not one of"),
        ("settings", None, "settings: None is no table of values"),
        ("data", [], "data: [] is no table of values"),
        ("checkpoints", {}, "checkpoints: {} is no list"),
        ("checkpoints.0.step", "7", "checkpoints[0].step: '7' is no whole number"),
        ("metrics", [], "metrics: [] is no table of values"),
        ("metrics", {"deep": {}}, "metrics: 'merged' is missing"),
        ("metrics.wide", {}, "metrics: 'wide' is no member"),
        ("metrics.deep", 0.5, "metrics.deep: 0.5 is no table of values"),
        ("metrics.deep", {}, "metrics.deep.num_rows: missing"),
        ("metrics.deep.auc", "high", "metrics.deep.auc: 'high' is no number"),
        ("metrics.deep.num_rows", None, "metrics.deep.num_rows: None is no whole number"),
        ("metrics_by_part.c", {}, "metrics_by_part: 'c' is not among the parts"),
        ("metrics_by_part.a.deep.ne", [], "metrics_by_part.a.deep.ne: [] is no number"),
        ("calibration_curves.deep", 3, "calibration_curves.deep: 3 is no list"),
        ("calibration_curves.deep.0", 3, "calibration_curves.deep[0]: 3 is no table of values"),
        ("num_rows", "25", "num_rows: '25', its parts have 25"),
        ("more", 1, "more: no such key"),
    ],
)
def test_a_value_that_does_not_fit_is_named(folder: Path, place: str, value: object, told: str) -> None:
    path = folder / "manifest.json"
    body = json.loads(path.read_text())
    *outer, last = [int(key) if key.isdigit() else key for key in place.split(".")]
    inner = body
    for key in outer:
        inner = inner[key]
    inner[last] = value
    path.write_text(json.dumps(body))
    sentence = refusal(folder)
    assert sentence.startswith(f"{path} is not a manifest of predictions ({told}"), sentence


@pytest.mark.parametrize(
    ("order", "told"),
    [
        ([0, 2], "files: rows 10 to 14 of b are missing"),
        ([1, 2], "files: rows 0 to 9 of b are missing"),
        ([0, 1, 1, 2], "files[2].first_row: rows 10 to 14 of b are there already"),
        ([1, 0, 2], "files: rows 0 to 9 of b are missing"),
        ([2, 0, 1], "files[1].part: 'b' comes behind 'a', and before it in parts"),
    ],
)
def test_files_are_all_rows_once_in_order(folder: Path, order: list[int], told: str) -> None:
    path = folder / "manifest.json"
    body = json.loads(path.read_text())
    path.write_text(json.dumps({**body, "files": [body["files"][place] for place in order]}))
    assert f"({told})" in refusal(folder)


@pytest.mark.parametrize("name", ["part", "row", "label", "merged", logit_column("x"), probability_column("x")])
def test_names_of_the_predictions_own_columns_are_reserved(name: str) -> None:
    assert is_reserved(name)


@pytest.mark.parametrize("name", ["C1", "request_id", "rows", "labels", "mylogit_x"])
def test_other_names_are_free(name: str) -> None:
    assert not is_reserved(name)
