"""A whole benchmark, from a file of rows to its page, run twice as a user runs it."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from tests.support.commands import ROOT, environment, run_python
from tools import run_benchmark
from trainer import storage
from trainer.predictions.reading import Predictions

SCHEMA = """
[table]
format = "csv"
[label]
column = "click"
[numeric]
age = {}
[categorical]
user = {}
item = {}
"""
RUN = """
[run]
name = "tiny"
[train]
batch_size = 64
until = { epochs = 1 }
[tables.own]
dim = 4
[members.deep]
tables = "own"
arch = { kind = "mlp", hidden = [8], batch_norm = true }
[members.wide]
tables = "own"
arch = { kind = "wide_deep", hidden = [8] }
"""
BENCHMARK = """
title = "tiny: a made table"
about = "Made rows."
run = "{folder}/run.toml"
groups = 2
single = "single"
headline = "kinds"
[data]
layout = "table"
schema = "{folder}/schema.toml"
files = ["rows.csv"]
options = ["--min-count", "1"]
origin = "Made by this test."
licence = "None."
judged = "the last fifth"
[data.windows.all]
split = {{ train = 0.8, test = 0.2 }}
train = ["train"]
test = ["test"]
[pools.kinds]
members = ["deep", "wide"]
[pools.cycles]
members = ["deep"]
checkpoints = 2
keys = ["--train.schedule={{kind = 'cyclic', cycle_steps = 5}}", "--checkpoint.every={{cycles = 1}}"]
[pools.mean]
members = ["deep"]
average = {{ pool = "cycles", over = "checkpoints", count = 2, batch_norm_rows = 256 }}
[strategies.single]
title = "one model"
family = "single"
pools = ["kinds"]
sizes = [1]
[strategies.kinds]
title = "two kinds"
family = "kinds"
pools = ["kinds"]
[strategies.cycles]
title = "snapshots"
family = "snapshots"
pools = ["cycles"]
sizes = [1, 2]
[strategies.mean]
title = "mean weights"
family = "averaged"
pools = ["mean"]
"""

ONE = """
[strategies.single]
title = "one model"
family = "single"
pools = ["kinds"]
sizes = [1]
"""


@pytest.fixture(name="benchmark", scope="module")
def fixture_benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmark")
    random = np.random.default_rng(1)
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["click", "age", "user", "item"])
        draws = random.integers(20, size=800), random.integers(9, size=800), random.random(800)
        for user, item, draw in zip(*draws, strict=True):
            writer.writerow([int(draw < (0.7 if (user + item) % 3 else 0.2)), user % 7, f"u{user}", f"i{item}"])
    (folder / "schema.toml").write_text(SCHEMA)
    (folder / "run.toml").write_text(RUN)
    (folder / "tiny.toml").write_text(BENCHMARK.format(folder=folder))
    return folder


def refused_report(file: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What it says."""
    before = signal.getsignal(signal.SIGTERM)
    places = ["--folder", str(folder / "runs"), "--output", str(folder / "pages")]
    assert run_benchmark.main([str(file), *places, "--only", "report"]) == 2
    signal.signal(signal.SIGTERM, before)
    return capsys.readouterr().err


def run(folder: Path, *words: str) -> str:
    places = ["--folder", str(folder / "runs"), "--output", str(folder / "pages")]
    ended = run_python("tools/run_benchmark.py", str(folder / "tiny.toml"), *places, *words, timeout=240)
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


@pytest.fixture(name="first", scope="module")
def fixture_first(benchmark: Path) -> str:
    """What the first run of the whole benchmark says."""
    return run(benchmark, "--source", str(benchmark))


def test_from_rows_to_a_page_and_nothing_twice(benchmark: Path, first: str) -> None:
    assert "8 jobs, 8 to do" in first
    done = {path: path.stat().st_mtime_ns for path in benchmark.glob("runs/tiny/jobs/*/done.json")}
    assert len(done) == 8
    (lost, *_) = done
    lost.unlink()  # as a crash between scoring and the job's record leaves it
    assert "8 jobs, 1 to do" in run(benchmark, "--only", "train")  # the rows are prepared: no --source
    assert {path: path.stat().st_mtime_ns for path in done if path != lost} == {
        path: changed for path, changed in done.items() if path != lost
    }
    assert "8 jobs, all done before" in run(benchmark)
    page = (benchmark / "pages" / "tiny.md").read_text()
    assert page.startswith("# tiny: a made table")
    assert str(benchmark / "runs") not in page

    points = {
        (one["strategy"], one["size"]): one for one in json.loads((benchmark / "pages/tiny.json").read_text())["points"]
    }
    assert set(points) == {("single", 1), ("kinds", 2), ("cycles", 1), ("cycles", 2), ("mean", 1)}
    for group in (1, 2):
        folders = [next(benchmark.glob(f"runs/tiny/jobs/all.kinds.{name}.g{group}.*")) for name in ("deep", "wide")]
        of = [Predictions(str(folder / "predictions")) for folder in folders]
        merged = 1 / (1 + np.exp(-np.mean([one.logits()[:, 0].astype(np.float64) for one in of], axis=0)))
        figures = points["kinds", 2]["groups"][group - 1]
        assert figures["auc"] == pytest.approx(roc_auc_score(of[0].labels(), merged), abs=1e-6)
        assert figures["log_loss_nats"] == pytest.approx(log_loss(of[0].labels(), merged), abs=1e-6)


def test_altered_predictions_are_refused_by_the_name_of_their_job(
    benchmark: Path, first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = next(benchmark.glob("runs/tiny/jobs/all.kinds.wide.g2.*/predictions/*.parquet"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    said = refused_report(benchmark / "tiny.toml", benchmark, capsys)
    file.write_bytes(whole)
    assert "all.kinds.wide.g2" in said
    assert "the same command trains it again" in said


def test_a_job_whose_settings_change_is_a_new_one(
    benchmark: Path, first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = (benchmark / "tiny.toml").read_text().replace('members = ["deep", "wide"]', 'members = ["deep"]')
    changed = changed.replace(
        'pools = ["kinds"]\n[strategies.cycles]', 'pools = ["kinds"]\nsizes = [1]\n[strategies.cycles]'
    )
    other = benchmark / "other"
    other.mkdir(exist_ok=True)
    (other / "tiny.toml").write_text(changed.replace("cycle_steps = 5", "cycle_steps = 10"))
    said = refused_report(other / "tiny.toml", benchmark, capsys)
    assert "jobs are not done, as all.cycles.deep.g1" in said


def test_a_killed_benchmark_leaves_no_job_running(benchmark: Path) -> None:
    folder = benchmark / "killed"
    folder.mkdir()
    words = (
        (benchmark / "tiny.toml")
        .read_text()
        .replace('run = "', 'keys = ["--train.until.epochs=1000000", "--train.log_every={steps = 5}"]\nrun = "', 1)
        .replace('headline = "kinds"', 'headline = "single"')
    )
    (folder / "tiny.toml").write_text(words.split("[pools.cycles]")[0] + ONE)
    command = ["tools/run_benchmark.py", str(folder / "tiny.toml"), "--source", str(benchmark), "--slots", "1"]
    log = "runs/tiny/jobs/*/log.txt"
    process = subprocess.Popen(
        [sys.executable, *command, "--folder", str(folder / "runs")], cwd=ROOT, env=environment()
    )
    try:
        wait_for(lambda: any("\nstep " in path.read_text() for path in folder.glob(log)))
    finally:
        process.kill()
        process.wait()
    (found,) = folder.glob(log)
    wait_for(lambda: "stopped on request" in found.read_text())
    wait_for(lambda: storage.try_to_lock(str(found.parent / "run")) is not None)


def wait_for(true: Callable[[], bool], *, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.2)
