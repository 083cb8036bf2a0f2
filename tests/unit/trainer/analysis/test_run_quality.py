"""What a finished run has reached, read from its folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.errors import ConfigError
from tests.support.runs import small_run
from tests.support.training import train_run
from trainer import storage
from trainer.analysis.run_quality import run_quality
from trainer.runtime import Runtime


def test_figures_and_sizes_of_a_real_run(tmp_path: Path, runtime: Runtime) -> None:
    config = small_run("--train.evaluate_every={steps=3}", "--train.log_every={steps=3}")
    state, _ = train_run(runtime, config, str(tmp_path))
    with pytest.raises(ConfigError, match="metrics.jsonl"):
        run_quality(str(tmp_path / "checkpoints"))
    (tmp_path / "run.toml").write_text((tmp_path / "checkpoints" / "step_0000000006" / "run.toml").read_text())
    found = run_quality(str(tmp_path))
    last = [json.loads(line) for line in storage.read_text(str(tmp_path / "metrics.jsonl")).splitlines()][-1]
    assert list(found["members"]) == ["deep", "cross", "dot", "factor"]
    factor = found["members"]["factor"]
    assert factor["kind"] == "deepfm" and factor["epochs"] == 2
    assert found["merged"]["auc"] == last["eval/merged/auc"]
    ours = {key: value for key, value in state.items() if key.startswith("model/")}
    dense = sum(value.size for key, value in ours.items() if ".members.factor." in key)
    tables = sum(value.size for key, value in ours.items() if "bags.factor/" in key)
    weights = sum(len(value) for key, value in ours.items() if "bags.factor+first_order/" in key)
    assert factor["parameters"] == dense + tables + weights
