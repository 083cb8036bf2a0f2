"""A rank that dies or hangs ends the job with its name; restarts recover with nobody watching, or do not happen."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.commands import run_torchrun
from tests.support.runs import SMALL_PATH
from tests.support.step_with_fault import HANG_SECONDS, TIMEOUT_SECONDS

STEPPING = "tests/support/step_with_fault.py"
TRAINING = "tests/support/train_with_fault.py"
RANK = r"rank {} \([^ ]+, pid \d+\)"
# What ending takes beyond the limit: the last words, a second or two for stacks, torchrun; not its 30 s for SIGKILL.
ENDING_SECONDS = 15


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What the ranks said."""
    return [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error: ")]


def attempts(done: subprocess.CompletedProcess[str]) -> list[str]:
    return re.findall(r"^attempt \d+$", done.stdout, flags=re.MULTILINE)


def hang(folder: Path, fault: str, *, rank: int, moment: str, limit: float) -> subprocess.CompletedProcess[str]:
    """A job that must end soon after the limit; says how."""
    done = run_torchrun(STEPPING, fault, str(rank), moment, str(folder), ranks=2)
    spent = time.time() - (folder / "struck").stat().st_mtime
    assert done.returncode != 0
    assert limit < spent < limit + ENDING_SECONDS, done.stderr
    (told,) = errors(done)
    assert (folder / "outcome").read_text() == f"1 {told}"
    return done


def test_a_stopped_rank_ends_the_job_and_is_named(tmp_path):
    done = hang(tmp_path, "stop", rank=1, moment="step 20", limit=HANG_SECONDS)
    told = rf"{RANK.format(1)} is stopped by a signal; it was last seen at \w+.*"
    assert re.fullmatch(told, errors(done)[0])


def test_a_rank_in_an_endless_loop_ends_the_job_and_shows_where_it_is(tmp_path):
    done = hang(tmp_path, "spin", rank=0, moment="step 20", limit=HANG_SECONDS)
    told = rf"{RANK.format(0)} has not moved for \d s \(run.hang_seconds = 3\) at step 20, in .*faults.py:\d+ \(spin\)"
    assert re.fullmatch(told, errors(done)[0])
    assert re.search(r"faults.py\", line \d+ in spin", done.stderr), "its stacks"


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["block", "stop"])
@pytest.mark.parametrize("rank", [0, 1])
def test_what_lasts_has_the_longer_limit(tmp_path, fault, rank):
    done = hang(tmp_path, fault, rank=rank, moment="restoring", limit=TIMEOUT_SECONDS)
    assert re.match(RANK.format(rank), errors(done)[0])


@pytest.mark.slow
def test_a_rank_that_others_wait_for_in_vain_is_named_too(tmp_path):
    """Outside of steps and of what is announced only the wait of the others has a limit."""
    done = run_torchrun(STEPPING, "spin", "1", "opening", str(tmp_path), ranks=3)
    assert time.time() - (tmp_path / "struck").stat().st_mtime < TIMEOUT_SECONDS + 45
    (told,) = errors(done)
    assert re.match(rf"{RANK.format(1)} has not moved for 6 s \(run.timeout_seconds = 6\) at opening", told)


def test_a_rank_killed_while_it_restores_is_named_and_the_restart_goes_on(tmp_path):
    done = run_torchrun(STEPPING, "kill", "1", "restoring", str(tmp_path), ranks=2, restarts=2)
    assert done.returncode == 0, done.stderr
    (told,) = errors(done)
    assert re.match(rf"{RANK.format(1)} ended without a word; it was last seen at \w+", told)
    assert attempts(done) == ["attempt 0", "attempt 1"]
    assert "at the end after step 40" in done.stdout


@pytest.mark.parametrize(("fault", "code", "told"), [("refuse", 2, ["row 7 of day_0: label 3"]), ("terminate", 75, [])])
def test_what_would_end_in_the_same_way_is_not_started_again(tmp_path, fault, code, told):
    done = run_torchrun(STEPPING, fault, "1", "step 20", str(tmp_path), ranks=2, restarts=3)
    assert done.returncode != 0
    assert attempts(done) == ["attempt 0"], done.stderr
    assert errors(done) == told
    assert ("at the end" in done.stdout) == (code == 75)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["fail", "kill", "spin", "stop"])
@pytest.mark.parametrize("moment", ["restoring", "the first step", "step 20"])
def test_what_may_end_in_another_way_is(tmp_path, fault, moment):
    done = run_torchrun(STEPPING, fault, "0", moment, str(tmp_path), ranks=3, restarts=1)
    assert done.returncode == 0, done.stderr
    assert attempts(done)[-1] == "attempt 1"
    assert "at the end after step 40" in done.stdout
    assert len(errors(done)) == 1


def test_a_refused_config_is_not_started_again():
    done = run_torchrun("trainer/main.py", "--train.batch_sise=7", ranks=2, restarts=3)
    assert done.returncode != 0
    assert len(errors(done)) == 1 and "did you mean 'batch_size'" in done.stderr


ENOUGH = ("--train.until={steps=14}", "--checkpoint.every={steps=3}", "--train.evaluate_every={steps=7}")


def final_state(folder: Path) -> dict[str, str]:
    """Hashes of the state that a run ended with."""
    assert json.loads((folder / "outcome.json").read_text())["progress"]["step"] == 14
    manifest = json.loads((folder / "checkpoints" / "step_0000000014" / "manifest.json").read_text())
    state = {name: file["sha256"] for name, file in manifest["files"].items() if name.startswith("state/")}
    assert state
    return state


def train(folder: Path, *fault: str) -> subprocess.CompletedProcess[str]:
    words = (f"--run.folder={folder}", "--run.hang_seconds=5", *ENOUGH)
    done = run_torchrun(TRAINING, *fault, "--config", str(SMALL_PATH), *words, ranks=2, restarts=2)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(folder, "none", "0", "never")
    return final_state(folder)


def recover(folder: Path, uninterrupted: dict[str, str], *fault: str) -> None:
    done = train(folder, *fault)
    assert re.match(RANK.format(fault[1]), errors(done)[0])
    assert final_state(folder) == uninterrupted


@pytest.mark.slow  # the corner of the soak in test_soak.py is the quick one
def test_a_killed_rank_and_a_restart_end_in_the_same_bits(tmp_path, uninterrupted):
    recover(tmp_path, uninterrupted, "kill", "1", "step 11")


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize(
    ("fault", "moment"),
    [
        ("kill", "the first step"),
        ("kill", "step 2"),
        ("kill", "a checkpoint"),
        ("kill", "an evaluation"),
        ("kill", "the end of the last checkpoint"),
        ("stop", "step 8"),
        ("spin", "step 8"),
        ("block", "step 8"),
    ],
)
def test_other_faults_and_moments_too(tmp_path, uninterrupted, fault, rank, moment):
    recover(tmp_path, uninterrupted, fault, rank, moment)
