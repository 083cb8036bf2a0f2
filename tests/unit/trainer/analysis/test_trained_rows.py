"""Rows that a checkpoint was trained on: by the data's root, by the dictionary, or not known any more."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.made_predictions import DICTIONARY, made_predictions
from trainer.analysis.trained_rows import trained_note, trained_on
from trainer.predictions.manifest import PredictionManifest, ScoredCheckpoint


@pytest.fixture
def manifest(tmp_path: Path) -> PredictionManifest:
    made = PredictionManifest.read(made_predictions(tmp_path / "made", [0, 1], {"a": np.zeros(2)}))
    (tmp_path / "step").mkdir()
    checkpoint = ScoredCheckpoint(label="", folder=str(tmp_path / "step"), step=7)
    return dataclasses.replace(made, checkpoints=(checkpoint,))


def found(manifest: PredictionManifest, run: str, dictionary: object = None) -> list[dict[str, Any]]:
    folder = Path(manifest.checkpoints[0].folder)
    (folder / "run.toml").write_text(run)
    (folder / "manifest.json").write_text(json.dumps({"model": {"dictionary": dictionary}}))
    return trained_on(manifest, parts=["day_0", "day_1"])


def test_a_part_is_the_same_by_root_or_dictionary(manifest: PredictionManifest) -> None:
    folder = manifest.checkpoints[0].folder
    wanted = [{"checkpoint": folder, "parts": ["day_1"]}]
    assert found(manifest, '[data]\nroot = "data/made"\ntrain = ["day_1", "day_5"]') == wanted
    assert found(manifest, '[data]\nroot = "moved"\ntrain = ["day_1"]', DICTIONARY) == wanted
    assert found(manifest, '[data]\nroot = "moved"\ntrain = ["day_1"]', "another") == []
    assert found(manifest, '[data]\nroot = "data/made"\ntrain = ["day_5"]', DICTIONARY) == []
    assert trained_note(wanted[0]) == (
        f"{folder} was trained on day_1: these rows were trained on; figures on them flatter."
    )


@pytest.mark.parametrize("run", ["", "[data", "data = 3", "[data]\ntrain = 3", "[data]\ntrain = ['day_1']"])
def test_what_cannot_be_read_says_nothing(run: str, manifest: PredictionManifest) -> None:
    assert found(manifest, run) == []
    Path(manifest.checkpoints[0].folder, "run.toml").unlink()
    assert trained_on(manifest, parts=["day_1"]) == []
