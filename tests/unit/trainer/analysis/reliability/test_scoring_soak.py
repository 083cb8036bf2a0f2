"""ScoringSoak: what counts as passed, and that kills hit what they are meant for."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from configs.errors import ChorusError
from tests.support.commands import run_python
from tools import soak_scoring
from trainer.analysis.reliability.processes import end_all, launch, processes_of
from trainer.analysis.reliability.scoring_soak import (
    DeliveredKill,
    ScoringSoak,
    ScoringSoakResult,
    ScoringSoakSettings,
)

# Two ranks below a parent, as torchrun has them.
FAMILY = """
import os, subprocess, sys, time
ranks = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env={**os.environ, "RANK": rank})
         for rank in "01"]
time.sleep(60)
"""


def _result(**changes) -> ScoringSoakResult:
    given = {
        "num_rows": 1000,
        "num_ranges": 10,
        "ranks": 2,
        "kills": (
            DeliveredKill(victim="rank", seconds=1.0, ranges_done=2),
            DeliveredKill(victim="host", seconds=2.0, ranges_done=4),
        ),
        "undisturbed_seconds": 60.0,
        "killed_seconds": 90.0,
        "different_files": (),
        "verifier_code": 0,
        "verifier_output": "1,000 rows verified\n",
    }
    return ScoringSoakResult(**given | changes)


def _soak(folder: Path, **changes) -> ScoringSoak:
    given = {"folder": str(folder), "num_rows": 10, "kills": 2, "ranks": 2, "seed": 1, "words": ()}
    return ScoringSoak(ScoringSoakSettings(**given | changes), say=lambda text: None)


def test_it_passes_with_the_same_files_and_a_content_verifier_alone():
    assert _result().passed and _result().as_json()["passed"]
    assert not _result(different_files=("a",)).passed
    assert not _result(verifier_code=1).passed
    text = "\n".join(_result().lines())
    assert "2 kill -9 (1 of a rank, 0 of torchrun, 1 of everything)" in text
    assert "byte for byte" in text and "1,000 rows verified" in text
    assert "1 files differ, the first is a" in "\n".join(_result(different_files=("a",)).lines())


@pytest.mark.parametrize(("victim", "left"), [("rank", 2), ("agent", 2), ("host", 0)])
def test_a_kill_hits_whom_it_is_meant_for(tmp_path, victim, left):
    soak = _soak(tmp_path)
    launch([sys.executable, "-c", FAMILY], mark=soak._mark, output=str(tmp_path / "out"))
    try:
        deadline = time.monotonic() + 20
        while len(processes_of(soak._mark)) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert soak._kill(victim)
        deadline = time.monotonic() + 5
        while len(processes_of(soak._mark)) > left and time.monotonic() < deadline:
            time.sleep(0.02)
        there = processes_of(soak._mark)
        assert len(there) == left
        if victim == "agent":
            assert all(process.rank is not None for process in there)
        if victim == "rank":
            assert sum(process.rank is None for process in there) == 1
    finally:
        end_all(soak._mark)
    assert not soak._kill("rank"), "nobody is there any more"


def test_a_job_that_fails_by_itself_is_told(tmp_path):
    with pytest.raises(ChorusError, match=r"training ended with exit code 3; .*output\.log has what it said"):
        _soak(tmp_path)._run_alone([sys.executable, "-c", "raise SystemExit(3)"], what="training")
    killed = f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"
    with pytest.raises(ChorusError, match="exit code -9"):
        _soak(tmp_path)._run_alone([sys.executable, "-c", killed], what="training")


def test_numbers_must_be_above_zero(capsys, monkeypatch):
    monkeypatch.setattr(soak_scoring, "interrupt_on_sigterm", lambda: None)
    assert soak_scoring.main(["--folder", "x", "--kills", "0"]) == 2
    assert "--kills: 0 must be above zero" in capsys.readouterr().err


@pytest.mark.slow
def test_a_job_killed_three_times_leaves_the_same_files(tmp_path):
    words = ("--rows", "400000", "--kills", "3", "--score.range_rows=8192", "--run.device=cpu")
    done = run_python("tools/soak_scoring.py", "--folder", str(tmp_path / "soak"), *words, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "byte for byte" in done.stdout and "3 kill -9" in done.stdout
