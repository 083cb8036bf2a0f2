"""The loop on one rank: how many steps over which rows, what falls due when, and how it ends."""

from __future__ import annotations

import gc
import itertools
import json
import math
import os
import shutil
import signal
import threading
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.command import TRAIN, parse_command
from configs.errors import ChorusError
from configs.schema import RunConfig
from trainer import loop
from trainer.assembly import AssembledTraining, assemble_training
from trainer.command_line import training_config
from trainer.data.reading import loading
from trainer.data.reading.order import RowOrder
from trainer.loop import LoopEnd, train
from trainer.reporting import Reporter
from trainer.runtime import Runtime

ROWS, BATCH = 50, 16
RUN = f"""
[data]
shuffle_window = 20
synthetic = {{train_rows = {ROWS}, valid_rows = 24, max_table_rows = 40}}
[train]
batch_size = {BATCH}
until = {{steps = 6}}
log_every = {{steps = 2}}
[members.deep]
arch = {{kind = "mlp", hidden = [8], dropout = 0.2}}
[members.fm]
arch = {{kind = "deepfm", hidden = [8]}}
"""


def config(folder: Path, *overrides: str) -> RunConfig:
    path = folder / "given.toml"
    path.write_text(RUN)
    return training_config(parse_command(["--config", str(path), *overrides], program=TRAIN))


class Run:
    """One run of the loop and what it left."""

    def __init__(self, folder: Path, runtime: Runtime, *overrides: str, stop_after: int | None = None) -> None:
        chosen = config(folder, *overrides)
        self.assembled: AssembledTraining = assemble_training(chosen, folder=str(folder), runtime=runtime)
        training = self.assembled.training
        self.rows: list[list[int]] = []  # read from the training source, batch by batch
        read = training.source.read

        def keep(rows: Any) -> Any:
            self.rows.append(rows.tolist())
            if stop_after is not None and len(self.rows) > stop_after:
                os.kill(os.getpid(), signal.SIGTERM)
            return read(rows)

        training.source.read = keep  # type: ignore[method-assign]
        resumed = training.progress.step
        reporter = Reporter(folder=str(folder), resumed_step=resumed, runtime=runtime)
        self.end: LoopEnd = train(training, config=chosen, reporter=reporter, runtime=runtime)
        reporter.close()
        self.progress = training.progress
        text = (folder / "metrics.jsonl").read_text()
        self.lines: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]


def expected_rows(*epochs: int) -> list[list[int]]:
    made = []
    for epoch in epochs:
        order = RowOrder(num_rows=ROWS, seed=1, epoch=epoch, window=20)
        made += [order.rows(first, first + BATCH).tolist() for first in range(0, ROWS, BATCH)]
    return made


def test_steps_run_over_epochs_and_ragged_batches(tmp_path: Path, runtime: Runtime) -> None:
    run = Run(tmp_path, runtime)
    assert run.rows == expected_rows(0, 1)[:6]
    assert run.progress.as_json() == {"step": 6, "epoch": 1, "row": 32, "rows_total": 82}
    assert (run.end.rows, run.end.preempted) == (82, False)
    assert list(run.end.quality) == ["deep", "fm", "merged"]
    assert run.end.quality["deep"].metrics.num_rows == 24
    logged = [line["step"] for line in run.lines if "train/deep/loss_nats" in line]
    assert logged == [2, 4, 6]
    assert [line["step"] for line in run.lines if "eval/merged/auc" in line] == [6]
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"step_0000000006"}


def test_epochs_end_with_their_last_row(tmp_path: Path, runtime: Runtime) -> None:
    run = Run(tmp_path, runtime, "--train.until={epochs = 2}", "--train.evaluate_every.steps=3")
    assert run.rows == expected_rows(0, 1)
    assert run.progress.as_json() == {"step": 8, "epoch": 2, "row": 0, "rows_total": 100}
    assert [line["step"] for line in run.lines if "eval/merged/auc" in line] == [3, 6, 8]


@pytest.mark.parametrize("pipeline", ["plain", "sparse_dist"])
def test_a_resumed_run_goes_on_with_the_next_row(tmp_path: Path, runtime: Runtime, pipeline: str) -> None:
    words = (f"--train.pipeline={pipeline}", "--run.folder=x")
    Run(tmp_path, runtime, *words, "--train.until={steps = 2}")
    rest = Run(tmp_path, runtime, *words)
    assert rest.assembled.resumed_from is not None
    assert rest.rows == expected_rows(0, 1)[2:6]
    assert rest.end.rows == 50
    whole = tmp_path / "whole"
    whole.mkdir()
    assert rest.lines[-1]["eval/merged/log_loss_nats"] == pytest.approx(
        Run(whole, runtime, *words).lines[-1]["eval/merged/log_loss_nats"], rel=1e-12
    )
    again = Run(tmp_path, runtime, *words)
    assert (again.rows, again.end.rows) == ([], 0)


@pytest.mark.parametrize("pipeline", ["plain", "sparse_dist"])
def test_the_step_line_says_what_share_of_the_time_went_into_waiting_for_data(
    tmp_path: Path, runtime: Runtime, capsys: pytest.CaptureFixture[str], pipeline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = loading.make_batch

    def slow(*arguments: Any, **keys: Any) -> Any:
        time.sleep(0.2)
        return make(*arguments, **keys)

    monkeypatch.setattr(loading, "make_batch", slow)
    Run(tmp_path, runtime, f"--train.pipeline={pipeline}", "--train.log_every.steps=6", "--data.prefetch_batches=1")
    waited = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["time/data_fraction"]
    assert 0.3 < waited <= 1.0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step 6/6")]
    assert f"rows/s  data {waited:.0%}  ETA" in line


@pytest.mark.parametrize("pipeline", ["plain", "sparse_dist"])
def test_steps_leave_the_garbage_collector_nothing(
    tmp_path: Path, runtime: Runtime, pipeline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a batch would be held until it runs, which is seldom."""
    after_step, found = loop._BetweenSteps.after_step, []

    def count(*arguments: Any, **keys: Any) -> None:
        after_step(*arguments, **keys)
        step = arguments[0]._training.progress.step
        if step == 3:  # the first ones build, the last one evaluates
            gc.collect()
            gc.disable()
        if step == 8:
            found.append(gc.collect())
            gc.enable()

    monkeypatch.setattr(loop._BetweenSteps, "after_step", count)
    Run(tmp_path, runtime, f"--train.pipeline={pipeline}", "--train.until={steps = 9}", "--train.log_every.steps=100")
    assert found == [0]


@pytest.mark.parametrize("prefetch", [0, 2])
def test_no_thread_outlives_the_loop(tmp_path: Path, runtime: Runtime, prefetch: int) -> None:
    word = f"--data.prefetch_batches={prefetch}"
    Run(tmp_path, runtime, word)
    assert "prefetch" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(ChorusError, match="member deep: loss is"):
        Run(tmp_path, runtime, word, "--train.until={steps = 60}", "--members.deep.lr=1e38")
    assert "prefetch" not in {thread.name for thread in threading.enumerate()}


def test_a_stop_signal_leaves_a_checkpoint(tmp_path: Path, runtime: Runtime) -> None:
    run = Run(tmp_path, runtime, "--train.pipeline=plain", "--data.prefetch_batches=0", stop_after=2)
    assert run.end.preempted
    step = run.progress.step
    assert 2 <= step < 6
    assert (tmp_path / "checkpoints" / f"step_{step:010d}" / "manifest.json").is_file()
    assert run.end.quality == {}


def test_checkpoints_fall_due(tmp_path: Path, runtime: Runtime) -> None:
    Run(tmp_path, runtime, "--checkpoint.every.steps=2", "--checkpoint.keep_last=9")
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step_0000000002",
        "step_0000000004",
        "step_0000000006",
    ]


def test_a_checkpoint_follows_the_step_with_the_lowest_rate(tmp_path: Path, runtime: Runtime) -> None:
    """Snapshots; and a run that is taken up in the middle of a cycle ends with the same bits."""
    words = (
        "--train.schedule={kind = 'cyclic', cycle_epochs = 0.5, final_factor = 0.1, warmup_steps = 1}",
        *("--train.until={epochs = 3}", "--data.synthetic.train_rows=80"),  # 5 steps each
        *("--checkpoint.every={cycles = 1, steps = 9}", "--checkpoint.keep_last=9", "--train.log_every.steps=1"),
    )
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    factors = lr_factors(Run(whole, runtime, *words))
    assert saved_steps(whole) == [3, 5, 8, 9, 10, 13, 15]  # 9 is that of every.steps
    assert [step for step in range(1, 15) if factors[step + 1] > factors[step]] == [3, 5, 8, 10, 13]
    assert factors[5] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 2)) / 2)  # of 2 steps

    shutil.copytree(whole / "checkpoints" / "step_0000000009", cut / "checkpoints" / "step_0000000009")
    assert lr_factors(Run(cut, runtime, *words)) == {step: factors[step] for step in range(10, 16)}
    assert_same_files(*(folder / "checkpoints" / "step_0000000015" / "state" for folder in (whole, cut)))


def test_checkpoints_fall_due_by_epochs(tmp_path: Path, runtime: Runtime) -> None:
    words = ("--checkpoint.every.epochs=0.5", "--checkpoint.keep_last=9", "--train.until={epochs = 2}")
    Run(tmp_path, runtime, *words)
    assert saved_steps(tmp_path) == [2, 4, 6, 8]


def test_a_loss_that_is_not_finite_names_its_member(tmp_path: Path, runtime: Runtime) -> None:
    with pytest.raises(ChorusError) as refused:
        Run(tmp_path, runtime, "--members.deep.lr=1e38", "--dense.optimizer=sgd")
    assert str(refused.value).startswith("member deep: loss is ")
    assert not (tmp_path / "checkpoints").exists()


def test_training_lowers_the_loss(tmp_path: Path, runtime: Runtime) -> None:
    run = Run(
        tmp_path,
        runtime,
        "--train.until={steps = 60}",
        "--data.synthetic.train_rows=4096",
        "--train.batch_size=64",
        "--train.log_every.steps=20",
    )
    losses = [line["train/fm/loss_nats"] for line in run.lines if "train/fm/loss_nats" in line]
    assert np.all(np.isfinite(losses))
    assert losses[-1] < losses[0] - 0.02


def lr_factors(run: Run) -> dict[int, float]:
    return {line["step"]: line["train/lr_factor"] for line in run.lines if "train/lr_factor" in line}


def assert_same_files(a: Path, b: Path) -> None:
    assert {path.name: path.read_bytes() for path in a.iterdir()} == {
        path.name: path.read_bytes() for path in b.iterdir()
    }


def saved_steps(folder: Path) -> list[int]:
    return sorted(int(path.parent.name[-10:]) for path in folder.glob("checkpoints/*/manifest.json"))


def test_checkpoints_fall_due_by_the_clock(tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--checkpoint.every.seconds=30", "--checkpoint.keep_last=9", "--train.log_every.steps=1")
    seconds = itertools.count(step=10.0)
    monkeypatch.setattr("trainer.loop.time", types.SimpleNamespace(monotonic=lambda: next(seconds)))
    Run(tmp_path, runtime, *words, "--train.until={steps = 20}")
    steps = saved_steps(tmp_path)
    assert steps[-1] == 20
    # The clock is asked once when it starts, once a step, and once after saving.
    assert len(set(np.diff(steps[:-1]))) == 1 and 2 <= steps[0] <= 4


def test_the_target_ends_the_run_which_is_done_from_then_on(tmp_path: Path, runtime: Runtime) -> None:
    words = ("--train.until={steps = 40}", "--train.evaluate_every.steps=3", "--train.watch.target=5.0")
    run = Run(tmp_path, runtime, *words)
    assert (run.end.reached_target, run.end.preempted, run.progress.step) == (True, False, 3)
    assert saved_steps(tmp_path) == [3]
    again = Run(tmp_path, runtime, *words)
    assert (again.rows, again.progress.step) == ([], 3)
    further = Run(tmp_path, runtime, *words[:2], "--train.watch.target=0.0001")
    assert (further.end.reached_target, further.progress.step) == (False, 40)


def test_the_best_checkpoints_are_kept(tmp_path: Path, runtime: Runtime) -> None:
    words = ("--train.until={steps = 30}", "--train.evaluate_every.steps=3", "--dense.lr=0.05")
    run = Run(tmp_path, runtime, *words, "--checkpoint.keep_best=2", "--checkpoint.keep_last=1")
    losses = {line["step"]: line["eval/merged/log_loss_nats"] for line in run.lines if "eval/merged/auc" in line}
    best = sorted(losses, key=lambda step: losses[step])[:2]
    assert saved_steps(tmp_path) == sorted({*best, 30})


def test_an_end_that_is_none_leaves_no_trace_in_the_schedule(tmp_path: Path, runtime: Runtime) -> None:
    words = (
        "--train.schedule={kind = 'plateau', plateau_factor = 0.5}",
        "--train.evaluate_every.steps=4",
        "--dense.lr=0.3",
        "--checkpoint.keep_last=1",
    )
    folders = [tmp_path / name for name in ("whole", "parts")]
    for folder in folders:
        folder.mkdir()
    whole = Run(folders[0], runtime, *words, "--train.until={steps = 16}")
    for steps in (3, 7, 16):
        parts = Run(folders[1], runtime, *words, f"--train.until={{steps = {steps}}}")
    factors = [[line["train/lr_factor"] for line in run.lines if "train/lr_factor" in line] for run in (whole, parts)]
    assert factors[0][-1] < 1.0
    assert parts.assembled.training.schedule.state() == whole.assembled.training.schedule.state()
    assert parts.assembled.training.watch.state() == whole.assembled.training.watch.state()


def test_a_checkpoint_that_cannot_be_written_ends_the_run(
    tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.checkpoints.state_files.StateWriter.write_data", fail)
    with pytest.raises(ChorusError, match=r"cannot save .*step_0000000002: rank 0: .*No space left on device"):
        Run(tmp_path, runtime, "--checkpoint.every.steps=2", "--train.until={steps = 500}")
    assert saved_steps(tmp_path) == []


def test_a_resumed_runs_mean_losses_are_those_of_one_that_never_stopped(tmp_path: Path, runtime: Runtime) -> None:
    words = ("--train.log_every.steps=4", "--checkpoint.every.steps=3", "--checkpoint.keep_last=9")
    folders = [tmp_path / name for name in ("whole", "parts")]
    for folder in folders:
        folder.mkdir()
    whole = Run(folders[0], runtime, *words, "--train.until={steps = 8}")
    Run(folders[1], runtime, *words, "--train.until={steps = 8}")
    for step in (6, 8):
        (folders[1] / "checkpoints" / f"step_{step:010d}" / "manifest.json").unlink()
    parts = Run(folders[1], runtime, *words, "--train.until={steps = 8}")
    assert parts.rows == whole.rows[3:]
    losses = [
        [line["train/deep/loss_nats"] for line in run.lines if "train/deep/loss_nats" in line] for run in (whole, parts)
    ]
    assert losses[0] == losses[1]
