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
        {"format_version": 1},
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


@pytest.mark.parametrize("name", ["part", "row", "label", "merged", logit_column("x"), probability_column("x")])
def test_names_of_the_predictions_own_columns_are_reserved(name: str) -> None:
    assert is_reserved(name)


@pytest.mark.parametrize("name", ["C1", "request_id", "rows", "labels", "mylogit_x"])
def test_other_names_are_free(name: str) -> None:
    assert not is_reserved(name)
