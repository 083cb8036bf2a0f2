"""A killed rank, a stop signal, a restart: nothing half-published, and the next start goes on."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.commands import BIN, ROOT, environment
from tests.support.runs import SMALL_PATH
from trainer.failures import guard
from trainer.main import main


def _start(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [str(BIN / "torchrun"), "--standalone", "--nproc-per-node", "2", "trainer/main.py"]
    return subprocess.Popen(
        [*command, "--config", str(SMALL_PATH), f"--run.folder={folder}", *words],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _wait_for_checkpoint(folder: Path, job: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while not list(folder.glob("checkpoints/*/manifest.json")):
        assert job.poll() is None, job.communicate()[0]
        assert time.monotonic() < deadline, "no checkpoint in 90 s"
        time.sleep(0.1)


def _workers(job: subprocess.Popen[str]) -> list[int]:
    """The job's child processes, lowest first."""
    workers = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended meanwhile
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == job.pid:
                workers.append(int(stat.parent.name))
    return sorted(workers)


ENDLESS = ("--train.until={steps=1000000}", "--checkpoint.every={steps=5}", "--train.log_every={steps=1000}")


def test_a_killed_rank_ends_the_job_and_the_next_start_goes_on(tmp_path, capfd):
    job = _start(tmp_path / "run", *ENDLESS)
    _wait_for_checkpoint(tmp_path / "run", job)
    killed_at = time.monotonic()
    os.kill(_workers(job)[1], signal.SIGKILL)
    output, _ = job.communicate(timeout=60)
    assert job.returncode != 0
    assert time.monotonic() - killed_at < 30
    assert re.search(r"error: rank 1 \([^ ]+, pid \d+\) ended without a word; it was last seen at ", output)
    saved = sorted(path.parent.name for path in (tmp_path / "run").glob("checkpoints/*/manifest.json"))
    step = int(saved[-1].removeprefix("step_"))
    more = f"--train.until={{steps={step + 3}}}"
    assert guard(main, ["--config", str(SMALL_PATH), f"--run.folder={tmp_path}/run", more]) == 0
    assert f"resuming from {tmp_path}/run/checkpoints/{saved[-1]}" in capfd.readouterr().out
    assert json.loads((tmp_path / "run" / "outcome.json").read_text())["progress"]["step"] == step + 3


@pytest.mark.parametrize(("send", "number"), [(os.kill, signal.SIGTERM), (os.killpg, signal.SIGINT)])
def test_a_stop_signal_leaves_a_checkpoint_at_the_step_reached(tmp_path, send, number):
    # A scheduler sends SIGTERM to torchrun; Ctrl-C reaches torchrun and its workers.
    job = _start(tmp_path / "run", *ENDLESS)
    _wait_for_checkpoint(tmp_path / "run", job)
    send(job.pid, number)
    output, _ = job.communicate(timeout=60)
    outcome = json.loads((tmp_path / "run" / "outcome.json").read_text())
    assert outcome["exit_code"] == 75, output
    step = outcome["progress"]["step"]
    assert (tmp_path / "run" / "checkpoints" / f"step_{step:010d}" / "manifest.json").exists()
    assert f"stopped on request at step {step}" in output


def test_workers_end_with_a_checkpoint_when_torchrun_itself_is_killed(tmp_path):
    job = _start(tmp_path / "run", *ENDLESS)
    _wait_for_checkpoint(tmp_path / "run", job)
    workers = _workers(job)
    os.kill(job.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, "the workers outlived torchrun"
        time.sleep(0.1)
    output, _ = job.communicate(timeout=10)
    assert (tmp_path / "run" / "outcome.json").exists(), output
    assert json.loads((tmp_path / "run" / "outcome.json").read_text())["exit_code"] == 75
