"""Folders that are not finished: how far the job is, in one sentence, whatever is left of its plan."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.made_predictions import made_predictions
from tools.verify_predictions import main
from trainer.predictions.manifest import PredictionManifest
from trainer.predictions.unfinished_job import how_far


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    labels, logits = np.arange(25) % 2, {"x": np.arange(25.0)}
    return Path(made_predictions(tmp_path / "p", labels, logits, parts={"b": 15, "a": 10}, range_rows=5))


def test_an_unfinished_folder_says_how_far_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert how_far(str(folder)) is None
    manifest = PredictionManifest.read(str(folder))
    (folder / "manifest.json").unlink()
    (folder / "unfinished").mkdir()
    plan = {"settings": {"range_rows": 5}, "data": {"parts": {"b": {"num_rows": 15}, "a": {"num_rows": 10}}}}
    (folder / "unfinished" / "plan.json").write_text(json.dumps(plan))
    for file in manifest.files[:3]:
        (folder / "unfinished" / file.path.replace("parquet", "json")).write_text("{}")
    (folder / manifest.files[0].path).unlink()
    assert main([str(folder)]) == 1
    assert capsys.readouterr().out == (
        f"{folder}: not finished: 2 of 5 ranges, 10 of 25 rows, are there; start the same command again to go on\n"
    )


@pytest.mark.parametrize(
    "plan",
    [
        "[]",
        "{",
        "{}",
        "7",
        '{"settings": [], "data": 1}',
        '{"settings": {"range_rows": 0}, "data": {"parts": {}}}',
        '{"settings": {"range_rows": 5}, "data": {"parts": {"b": 15}}}',
    ],
)
def test_a_plan_that_is_none_is_a_sentence(folder: Path, plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "manifest.json").unlink()
    (folder / "unfinished").mkdir()
    path = folder / "unfinished" / "plan.json"
    path.write_text(plan)
    assert main([str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path} is no plan of a scoring job (") and line.endswith("and score again")
