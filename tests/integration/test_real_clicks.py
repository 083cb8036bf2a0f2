"""The shipped configuration on real Criteo rows: nothing is lost, and merged is ahead of every member."""

from __future__ import annotations

import json

import pytest

from tools.prepare_criteo import main as prepare
from trainer.failures import guard
from trainer.main import main
from trainer.score import main as score


@pytest.mark.real_data
def test_the_criteo_sample_from_log_to_merged_predictions(real_data, tmp_path):
    log = real_data / "criteo-kaggle-0.3pct" / "train.tsv.gz"
    if not log.exists():
        pytest.skip(f"no {log}")
    split = ("--split", "train=0.9", "valid=0.1", "--min-count", "4")
    assert prepare(["--input", str(log), "--output", f"{tmp_path}/data", *split]) == 0
    parts = json.loads((tmp_path / "data" / "manifest.json").read_text())["parts"]
    assert [(part["name"], part["num_rows"]) for part in parts] == [("train", 89_879), ("valid", 9_987)]
    config = ("--config", "configs/criteo_kaggle_sample.toml", f"--data.root={tmp_path}/data")
    assert guard(main, [*config, f"--run.folder={tmp_path}/run"]) == 0
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    words = ("--checkpoint", str(checkpoint), "--output", f"{tmp_path}/out", '--score.parts=["valid"]')
    assert guard(score, words) == 0
    metrics = json.loads((tmp_path / "out" / "manifest.json").read_text())["metrics"]
    merged = metrics.pop("merged")
    assert merged["num_rows"] == 9_987
    assert merged["auc"] > max(of["auc"] for of in metrics.values()) > 0.75
    assert merged["log_loss_nats"] < min(of["log_loss_nats"] for of in metrics.values()) < 0.485
