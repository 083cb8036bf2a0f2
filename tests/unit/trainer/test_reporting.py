"""Reporter: one line of plain JSON a time, and no line of steps that will be trained again."""

from __future__ import annotations

import errno
import json
import math
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.support.processes import wait_until
from tests.unit.trainer.ranks import OneOfMany
from trainer.reporting import Reporter, Stopwatch


def reporter(folder: Path, *, resumed_step: int = 0, rank: int = 0) -> Reporter:
    return Reporter(folder=str(folder), resumed_step=resumed_step, runtime=OneOfMany(rank=rank))  # type: ignore[arg-type]


def lines(folder: Path) -> list[dict[str, float | None]]:
    text = (folder / "metrics.jsonl").read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]


def write(folder: Path, *steps: int, resumed_step: int = 0) -> None:
    report = reporter(folder, resumed_step=resumed_step)
    for step in steps:
        report.write(step, {"train/deep/loss_nats": step / 10})
    report.close()


def test_figures_go_to_json_lines_and_tensorboard(tmp_path: Path) -> None:
    report = reporter(tmp_path)
    report.write(1, {"train/deep/loss_nats": 0.5, "eval/merged/auc": math.nan, "a": math.inf, "b": -math.inf})
    report.write(2, {"train/deep/loss_nats": 0.25})
    report.close()
    first, second = lines(tmp_path)
    assert first["seconds"] is not None and first.pop("seconds") >= 0
    assert first == {"step": 1, "train/deep/loss_nats": 0.5, "eval/merged/auc": None, "a": None, "b": None}
    assert second["train/deep/loss_nats"] == 0.25
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(point.step, point.value) for point in board.Scalars("train/deep/loss_nats")] == [(1, 0.5), (2, 0.25)]


def test_a_resumed_run_drops_what_it_will_write_again(tmp_path: Path) -> None:
    write(tmp_path, 10, 20, 30, 40)
    second = int(time.time())
    wait_until(lambda: int(time.time()) > second)  # TensorBoard reads files by name, which begins with the second
    write(tmp_path, 25, 30, resumed_step=20)
    assert [line["step"] for line in lines(tmp_path)] == [10, 20, 25, 30]
    board = EventAccumulator(str(tmp_path / "tensorboard"), purge_orphaned_data=True).Reload()
    assert [point.step for point in board.Scalars("train/deep/loss_nats")] == [10, 20, 25, 30]


@pytest.mark.parametrize("tail", ['{"step": 15, "seco', '{"step": 15, "seconds": 1.0', "{"])
def test_a_line_that_was_cut_off_goes_too(tmp_path: Path, tail: str) -> None:
    write(tmp_path, 10)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(tail)
    write(tmp_path, 30, resumed_step=20)
    assert [line["step"] for line in lines(tmp_path)] == [10, 30]


def test_a_run_that_begins_anew_begins_an_empty_file(tmp_path: Path) -> None:
    write(tmp_path, 10)
    write(tmp_path)
    assert lines(tmp_path) == []


def test_a_resumed_run_without_metrics_is_fine(tmp_path: Path) -> None:
    write(tmp_path, 30, resumed_step=20)
    assert [line["step"] for line in lines(tmp_path)] == [30]


def test_a_full_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = reporter(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("trainer.reporting.storage.open_file", fail)
    with pytest.raises(OSError) as full:
        report.write(1, {"a": 1.0})
    report.close()
    assert (full.value.errno, full.value.filename) == (errno.ENOSPC, str(tmp_path / "metrics.jsonl"))


def test_only_rank_0_writes(tmp_path: Path) -> None:
    report = reporter(tmp_path, rank=1)
    report.write(1, {"a": 1.0})
    report.close()
    assert list(tmp_path.iterdir()) == []


def test_pauses_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [50.0]
    monkeypatch.setattr("trainer.reporting.time.monotonic", lambda: now[0])
    watch = Stopwatch(rows=100)
    now[0] += 4.0
    lap = watch.lap(rows=140)
    assert (lap.seconds, lap.rows_per_second) == (4.0, 10.0)
    with watch.paused():
        now[0] += 1_000.0
    now[0] += 2.0
    lap = watch.lap(rows=200)
    assert (lap.seconds, lap.rows_per_second) == (2.0, 30.0)
    assert watch.seconds == 6.0
    assert watch.mean_seconds(steps=3) == 2.0
    assert watch.mean_seconds(steps=0) == 6.0
