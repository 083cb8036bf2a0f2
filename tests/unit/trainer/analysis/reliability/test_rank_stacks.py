"""A stack tells the phase that a rank is in."""

from __future__ import annotations

import signal
import sys
import time

import pytest

from trainer.analysis.reliability.processes import ROOT, JobProcess, end_all, launch
from trainer.analysis.reliability.rank_stacks import RankStacks, place_of


def _stack(*frames: tuple[str, str]) -> str:
    return "Current thread 0x1 (most recent call first):\n" + "".join(
        f'  File "{ROOT}/{path}", line 7 in {name}\n' for path, name in frames
    )


MAIN = ("trainer/main.py", "main")
LOOP = (("trainer/loop.py", "train"), MAIN)


@pytest.mark.parametrize(
    ("frames", "phase", "line"),
    [
        ([("trainer/evaluation.py", "evaluate"), *LOOP], "evaluation", "trainer/evaluation.py:7 (evaluate)"),
        ([("trainer/checkpoints/staging.py", "copy"), *LOOP], "steps", "trainer/checkpoints/staging.py:7 (copy)"),
        ([("trainer/restoring.py", "restore"), ("trainer/assembly.py", "assemble_training"), MAIN], "restoring", None),
        ([("sharding/planner.py", "f"), ("trainer/task_plan.py", "plan_task"), MAIN], "planning", None),
        ([("trainer/assembly.py", "build_task"), MAIN], "assembling", None),
        ([("trainer/runtime.py", "__enter__"), MAIN], "meeting", None),
        ([("trainer/runtime.py", "__exit__"), MAIN], "end", None),
        ([(".venv/lib/torch/__init__.py", "<module>"), ("trainer/main.py", "<module>")], "importing", None),
    ],
)
def test_a_stack_tells_the_phase(frames, phase, line):
    place = place_of(_stack(*frames))
    assert place.phase == phase
    assert line is None or place.line == line


def test_a_rank_tells_where_it_is_and_lives_on(tmp_path):
    code = "import time\ndef wait():\n    print('up', flush=True)\n    time.sleep(60)\nwait()"
    stacks = RankStacks(str(tmp_path / "stacks"))
    command = [sys.executable, "-c", code]
    variables = {**stacks.environment(), "RANK": "0"}
    process = launch(command, mark=str(tmp_path), output=str(tmp_path / "out"), variables=variables)
    rank = JobProcess(pid=process.pid, rank=0)
    try:
        while "up" not in (tmp_path / "out").read_text():
            time.sleep(0.01)
        for _ in range(2):
            assert stacks.ask(rank) == place_of('  File "<string>", line 4 in wait\n')
        assert process.poll() is None
        rank.signal(signal.SIGSTOP)
        assert stacks.ask(rank) is None
    finally:
        end_all(str(tmp_path))


def test_a_process_that_is_not_ready_is_not_asked(tmp_path):
    process = launch([sys.executable, "-c", "import time; time.sleep(60)"], mark=str(tmp_path), output="/dev/null")
    try:
        assert RankStacks(str(tmp_path / "stacks")).ask(JobProcess(pid=process.pid, rank=0)) is None
        time.sleep(0.1)
        assert process.poll() is None
    finally:
        end_all(str(tmp_path))
