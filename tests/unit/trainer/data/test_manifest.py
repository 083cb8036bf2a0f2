"""The manifest of a prepared folder: a round trip, and each way it can be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.errors import EXIT_REFUSED, DataError
from tests.unit.trainer.data.prepared import DENSE_NAMES, TABLE_ROWS, part_arrays, prepared_folder
from trainer.data.manifest import DataManifest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    prepared_folder(tmp_path / "data", {"day_0": part_arrays(5), "day_1": part_arrays(0)})
    return tmp_path / "data"


def refusal(root: Path) -> str:
    with pytest.raises(DataError) as refused:
        DataManifest.read(str(root))
    assert refused.value.exit_code == EXIT_REFUSED
    return str(refused.value)


def test_a_manifest_is_read_as_it_was_written(root: Path, tmp_path: Path) -> None:
    manifest = DataManifest.read(str(root))
    assert tuple(feature.name for feature in manifest.dense_features) == DENSE_NAMES
    assert {feature.name: feature.rows for feature in manifest.id_features} == TABLE_ROWS
    assert [(part.name, part.num_rows) for part in manifest.parts] == [("day_0", 5), ("day_1", 0)]
    manifest.write(str(tmp_path))
    assert DataManifest.read(str(tmp_path)) == manifest
    assert manifest.part("day_1") is manifest.parts[1]
    body = json.loads((tmp_path / "manifest.json").read_text())
    assert (body["format"], body["format_version"]) == ("chorus-data", 2)


def test_an_unknown_part_is_refused_with_those_there_are(root: Path) -> None:
    with pytest.raises(DataError) as refused:
        DataManifest.read(str(root)).part("day_9")
    assert str(refused.value) == (
        "no part 'day_9' in the prepared folder, which has day_0, day_1; correct data.train, data.valid or score.parts"
    )


def test_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "nowhere"
    assert refusal(path) == f"data.root: no folder {str(path)!r}; prepare it with tools/prepare_criteo.py"


def test_an_unfinished_folder(root: Path) -> None:
    (root / "manifest.json").unlink()
    assert refusal(root) == (
        f"data.root: {str(root)!r} has no manifest.json, so its preparation did not finish;"
        " run tools/prepare_criteo.py again"
    )


def test_another_version(root: Path) -> None:
    path = root / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": 2', '"format_version": 1'))
    assert refusal(root) == f"{path}: format version 1, this program reads 2; prepare it again"


def drop(key: str) -> Callable[[Any], Any]:
    return lambda body: {name: value for name, value in body.items() if name != key}


def put(key: str, value: Any) -> Callable[[Any], Any]:
    return lambda body: {**body, key: value}


@pytest.mark.parametrize(
    "change",
    [
        *(drop(key) for key in ("format", "format_version", "features", "parts", "dictionary_sha256", "provenance")),
        put("format", "chorus-predictions"),
        put("features", [{"name": "C1"}]),
        put("features", 3),
        put("features", [{"name": "C1", "kind": "id", "file": "sparse", "column": 0, "width": 2}]),
        put("parts", [{"name": "day_0", "num_rows": 1, "label_sum": 0, "files": ["a"]}]),
        put("parts", [{"name": "day_0"}]),
        put("parts", ["day_0"]),
        lambda body: [body],
        lambda body: None,
    ],
)
def test_what_is_no_manifest_is_refused(root: Path, change: Callable[[Any], Any]) -> None:
    path = root / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    sentence = refusal(root)
    assert sentence.startswith(f"{path}: not a manifest of prepared data (")
    assert sentence.endswith("); prepare it again")


@pytest.mark.parametrize("text", ["", "{", '{"format": "chorus-data", "format_ver'])
def test_a_cut_off_manifest_is_refused(root: Path, text: str) -> None:
    (root / "manifest.json").write_text(text)
    assert "not a manifest of prepared data (JSONDecodeError" in refusal(root)
