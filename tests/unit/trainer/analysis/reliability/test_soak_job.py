"""SoakJob against a small program that starts, loses and starts again its ranks as torchrun does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trainer.analysis.reliability.job_output import JobOutput
from trainer.analysis.reliability.kills import Kill
from trainer.analysis.reliability.processes import processes_of
from trainer.analysis.reliability.soak_job import JobPlan, SoakJob
from trainer.analysis.reliability.soak_log import SoakLog

AGENT = """
import os, subprocess, sys, time
folder, rank_code, out_of_order = sys.argv[1:4]
while True:
    command = [sys.executable, "-c", rank_code, folder, out_of_order]
    ranks = [subprocess.Popen(command, env={**os.environ, "RANK": str(rank)}) for rank in range(2)]
    while any(rank.poll() is None for rank in ranks) and not any(rank.poll() for rank in ranks):
        time.sleep(0.01)
    if all(rank.poll() == 0 for rank in ranks):
        break
    for rank in ranks:
        rank.kill()
        rank.wait()
    if out_of_order == "gives up":
        sys.exit(3)
"""
# Takes steps, from where the one before came to; ends with its parent.
RANK = """
import os, pathlib, subprocess, sys, time
folder, out_of_order = pathlib.Path(sys.argv[1]), sys.argv[2]
main, parent = os.environ["RANK"] == "0", os.getppid()
at = folder / "at"
first = int(at.read_text()) if at.exists() else 0
if out_of_order == "leaves one" and main:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env={**os.environ, "RANK": "7"})
for step in range(first + 1, 41):
    time.sleep(0.08)
    if os.getppid() != parent:
        sys.exit(1)
    if out_of_order == "hangs" and step == 10:
        time.sleep(60)
    if main and step in (14, 28):  # a checkpoint: the folder, and behind two more steps its manifest
        (folder / "checkpoints" / f"step_{step}").mkdir(parents=True, exist_ok=True)
    if main and step == 30:
        (folder / "checkpoints" / "step_28" / "manifest.json").write_text("")
    if main:
        print(f"step {step}/40  x", flush=True)
        (folder / "new").write_text(str(step))
        (folder / "new").rename(at)
if main:
    print("trained 40 rows", flush=True)
"""


def _run(folder: Path, kills: dict[int, Kill], *, out_of_order: str = "", limit_seconds: float = 20.0):
    run = folder / "run"
    run.mkdir(parents=True)
    plan = JobPlan(
        number=1,
        command=[sys.executable, "-c", AGENT, str(run), RANK, out_of_order],
        folder=str(run),
        output=str(folder / "output.txt"),
        mark=str(folder),
        world_size=2,
        limit_seconds=limit_seconds,
        attempts_before=0,
    )
    log = SoakLog(str(folder))
    output = JobOutput(plan.output, evaluates=lambda step: False)
    job = SoakJob(plan, output=output, log=log, draw=lambda attempt, _step: kills.get(attempt), say=lambda _text: None)
    end = job.run()
    assert processes_of(str(folder)) == []
    return end, log


def _kill(kind: str, *, step: int = 12, rank: int = 1) -> Kill:
    return Kill(kind=kind, step=step, seconds=0.0, rank=rank, lag_seconds=0.0)


def test_a_job_that_nobody_kills_ends(tmp_path):
    end, log = _run(tmp_path, {})
    assert (end.problems, end.attempts, end.kills, log.events) == ([], 1, 0, [])


@pytest.mark.parametrize("kind", ["rank", "agent", "host"])
def test_a_killed_job_goes_on_and_ends(tmp_path, kind):
    end, log = _run(tmp_path, {1: _kill(kind), 2: _kill("rank", step=25, rank=0)})
    assert (end.problems, end.kills, end.attempts) == ([], 2, 3)
    first, second = log.of("kill")
    assert (first["kind"], first["attempt"], second["attempt"]) == (kind, 1, 2)
    assert 12 <= first["step"] < second["step"] <= 40 and second["step"] >= 25
    recovered = log.of("recovered")
    assert [line["kill"] for line in recovered] == [1, 2]
    assert all(0 < line["seconds"] < 10 for line in recovered)


def test_a_kill_at_the_start_comes_before_any_step(tmp_path):
    end, log = _run(tmp_path, {1: _kill("rank", step=0)})
    assert not end.problems
    assert log.of("kill")[0]["seconds_into_attempt"] < 5


def test_an_aimed_kill_comes_while_this_attempt_writes_a_checkpoint(tmp_path):
    # What step 14 left unfinished is no checkpoint being written once the first kill is over.
    end, log = _run(tmp_path, {1: _kill("rank", step=15), 2: _kill("writing", step=16)})
    assert (end.problems, end.attempts) == ([], 3)
    _, second = log.of("kill")
    assert second["writing"]
    assert second["step"] in (27, 28, 29)


def test_a_job_that_hangs_is_ended_with_its_stacks(tmp_path):
    end, _ = _run(tmp_path, {}, out_of_order="hangs", limit_seconds=5.0)
    assert "hung: no new step and no end for 5 s" in end.problems[0]
    assert any("most recent call first" in line for line in end.tail)


def test_torchrun_that_gives_up_is_a_problem(tmp_path):
    end, _ = _run(tmp_path, {1: _kill("rank")}, out_of_order="gives up")
    assert end.problems == ["torchrun ended with code 3, and nobody had killed it"]


def test_a_process_that_is_left_is_a_problem(tmp_path):
    end, _ = _run(tmp_path, {}, out_of_order="leaves one")
    assert "(rank 7) were still there" in end.problems[0]
