"""Day-by-day learning on one rank: every day is judged before it is learned, and new days may follow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from configs.command import TRAIN, parse_command
from configs.errors import CheckpointError, ConfigError
from configs.schema import RunConfig
from tests.support.prepared import write_prepared
from trainer.assembly import assemble_training
from trainer.command_line import training_config
from trainer.days import train_days
from trainer.loop import LoopEnd
from trainer.reporting import Reporter
from trainer.runtime import Runtime

RUN = """
[data]
shuffle_window = 20
[train]
batch_size = 16
day_by_day = true
[tables.shared]
dim = 4
[members.deep]
arch = {kind = "mlp", hidden = [8]}
[members.fm]
arch = {kind = "deepfm", hidden = [8]}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("days")
    write_prepared(root, parts={"day_0": 40, "day_1": 33, "day_2": 20})
    return str(root)


def config(folder: Path, data: str, *days: str, overrides: tuple[str, ...] = ()) -> RunConfig:
    path = folder / "given.toml"
    path.write_text(RUN)
    words = (f"--data.root={data}", f"--data.train={json.dumps(days)}", *overrides)
    return training_config(parse_command(["--config", str(path), *words], program=TRAIN))


def run(folder: Path, runtime: Runtime, chosen: RunConfig) -> tuple[LoopEnd, dict[str, Any]]:
    assembled = assemble_training(chosen, folder=str(folder), runtime=runtime)
    training = assembled.training
    reporter = Reporter(folder=str(folder), resumed_step=training.progress.step, runtime=runtime)
    end = train_days(training, config=chosen, folder=str(folder), reporter=reporter, runtime=runtime)
    reporter.close()
    return end, training.progress.as_json()


def days_of(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "days.json").read_text())["days"]
    return found


def test_days_are_trained_in_order_each_judged_before(tmp_path: Path, runtime: Runtime, data: str) -> None:
    end, progress = run(tmp_path, runtime, config(tmp_path, data, "day_0", "day_1", "day_2"))
    assert progress == {"step": 3 + 3 + 2, "epoch": 3, "row": 0, "rows_total": 93}
    assert end.rows == 93
    days = days_of(tmp_path)
    # Nothing is known before the first day.
    assert [(day["day"], day["rows"], day["step"]) for day in days] == [("day_1", 33, 3), ("day_2", 20, 6)]
    assert set(days[0]["columns"]) == {"deep", "fm", "merged"}


def test_a_days_figures_are_those_of_the_model_that_has_not_seen_it(
    tmp_path: Path, runtime: Runtime, data: str
) -> None:
    apart, whole = tmp_path / "apart", tmp_path / "whole"
    for folder in (apart, whole):
        folder.mkdir()
    run(whole, runtime, config(whole, data, "day_0", "day_1"))
    # A run on the first day alone that evaluates on the second one.
    alone = config(apart, data, "day_0", overrides=("--train.day_by_day=true", '--data.valid=["day_1"]'))
    end, _ = run(apart, runtime, alone)
    (second,) = days_of(whole)
    for name, column in end.quality.items():
        assert second["columns"][name]["log_loss_nats"] == column.metrics.log_loss_nats
        assert second["columns"][name]["auc"] == column.metrics.auc


def test_new_days_go_on_where_the_old_ones_ended(tmp_path: Path, runtime: Runtime, data: str) -> None:
    grown, whole = tmp_path / "grown", tmp_path / "whole"
    for folder in (grown, whole):
        folder.mkdir()
    run(grown, runtime, config(grown, data, "day_0", "day_1"))
    end, progress = run(grown, runtime, config(grown, data, "day_0", "day_1", "day_2"))
    assert end.rows == 20
    _, uninterrupted = run(whole, runtime, config(whole, data, "day_0", "day_1", "day_2"))
    assert progress == uninterrupted
    assert days_of(grown) == days_of(whole)
    hashes = [
        {name: proof for name, proof in json.loads(path.read_text())["files"].items() if name.endswith("safetensors")}
        for path in sorted(tmp_path.glob("*/checkpoints/step_0000000008/manifest.json"))
    ]
    assert len(hashes) == 2 and hashes[0] == hashes[1]
    again, _ = run(grown, runtime, config(grown, data, "day_0", "day_1", "day_2"))
    assert again.rows == 0
    assert days_of(grown) == days_of(whole)


def test_trained_days_must_stay(tmp_path: Path, runtime: Runtime, data: str) -> None:
    run(tmp_path, runtime, config(tmp_path, data, "day_0", "day_1"))
    for days in (("day_1", "day_2"), ("day_0",), ("day_1", "day_0")):
        with pytest.raises(
            CheckpointError, match=r"was trained on day_0 \(40 rows\), day_1 \(33 rows\); name these first"
        ):
            run(tmp_path, runtime, config(tmp_path, data, *days))
    with pytest.raises(CheckpointError, match="train.day_by_day: True in .*, False in this run"):
        run(tmp_path, runtime, config(tmp_path, data, "day_0", "day_1", overrides=("--train.day_by_day=false",)))


def test_the_stream_has_no_days(tmp_path: Path, runtime: Runtime) -> None:
    path = tmp_path / "given.toml"
    path.write_text(RUN + "[data.synthetic]\ntrain_rows = 20\nvalid_rows = 8\nmax_table_rows = 9\n")
    chosen = training_config(parse_command(["--config", str(path)], program=TRAIN))
    with pytest.raises(ConfigError, match=r"train\.day_by_day: the synthetic stream has no days; give data\.root"):
        run(tmp_path, runtime, chosen)


@pytest.mark.parametrize("words", [(), ("--train.evaluate_every.steps=2",)])
def test_a_target_ends_the_days_for_good(tmp_path: Path, runtime: Runtime, data: str, words: tuple[str, ...]) -> None:
    words = (*words, "--train.watch.target=5.0", '--data.valid=["day_2"]')
    chosen = config(tmp_path, data, "day_0", "day_1", overrides=words)
    end, progress = run(tmp_path, runtime, chosen)
    assert end.reached_target
    assert progress["step"] == (2 if len(words) == 3 else 3)
    again, after = run(tmp_path, runtime, chosen)
    assert (again.rows, after) == (0, progress)
    assert not (tmp_path / "days.json").exists()


def test_a_day_that_is_judged_again_after_a_restart_is_told_once(tmp_path: Path, runtime: Runtime, data: str) -> None:
    chosen = config(tmp_path, data, "day_0", "day_1", overrides=("--checkpoint.keep_last=9",))
    run(tmp_path, runtime, chosen)
    (tmp_path / "checkpoints" / "step_0000000006" / "manifest.json").unlink()  # cut off before the second day's end
    run(tmp_path, runtime, chosen)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "day/merged/auc" in line] == [3]
    assert [day["day"] for day in days_of(tmp_path)] == ["day_1"]
