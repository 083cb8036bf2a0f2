"""Processes are found by their mark, asked for their stacks and ended."""

from __future__ import annotations

import signal
import sys
import time

import pytest

from trainer.analysis.reliability.processes import (
    end_all,
    launch,
    processes_of,
    ranks_of,
    show_stacks,
    torchrun,
    wait_until_gone,
)

# Two ranks below a parent, as torchrun has them.
FAMILY = """
import os, subprocess, sys, time
for rank in "10":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env={**os.environ, "RANK": rank})
time.sleep(60)
"""


@pytest.fixture
def mark(tmp_path):
    """A mark; nothing that carries it outlives the test."""
    yield str(tmp_path)
    end_all(str(tmp_path))


def _until(count: int, mark: str, *, find=processes_of) -> None:
    deadline = time.monotonic() + 20
    while len(find(mark)) != count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_processes_are_found_by_their_mark_and_ended(mark, tmp_path):
    launch([sys.executable, "-c", FAMILY], mark=mark, output=str(tmp_path / "out"))
    _until(2, mark, find=ranks_of)
    assert [process.rank for process in processes_of(mark)] == [0, 1, None]
    assert [process.rank for process in ranks_of(mark)] == [0, 1]
    assert processes_of(mark + "0") == processes_of(mark[:-1]) == []
    assert len(wait_until_gone(mark, seconds=0.1)) == 3
    end_all(mark)
    assert wait_until_gone(mark, seconds=0.0) == []


def test_output_is_appended_and_an_ended_process_is_no_more(mark, tmp_path):
    for _ in range(2):
        command = [sys.executable, "-c", "print('said')"]
        assert launch(command, mark=mark, output=str(tmp_path / "out")).wait(20) == 0
    assert (tmp_path / "out").read_text() == "said\nsaid\n"
    assert processes_of(mark) == []


def test_a_job_does_not_take_itself_for_a_rank_of_ours(mark, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "7")
    code = "import os; print(os.environ.get('RANK'), os.environ['OMP_NUM_THREADS'])"
    launch([sys.executable, "-c", code], mark=mark, output=str(tmp_path / "out")).wait(20)
    assert (tmp_path / "out").read_text() == "None 1\n"


def test_the_stacks_of_a_stopped_rank_are_shown(mark, tmp_path, monkeypatch):
    code = (
        "import os, subprocess, sys\nif 'RANK' in os.environ:\n import time\n print('up', flush=True)\n time.sleep(60)"
    )
    code += "\nelse: subprocess.run([sys.executable, '-c', sys.argv[1], ''], env={**os.environ, 'RANK': '0'})"
    launch([sys.executable, "-c", code, code], mark=mark, output=str(tmp_path / "out"))
    _until(1, mark, find=ranks_of)
    while "up" not in (tmp_path / "out").read_text():
        pass
    (rank,) = ranks_of(mark)
    rank.signal(signal.SIGSTOP)
    show_stacks(mark, seconds=1.0)
    assert "most recent call first" in (tmp_path / "out").read_text()
    assert ranks_of(mark) == []
    deadline = time.monotonic() + 20
    while rank.signal(signal.SIGTERM):  # until whoever inherits it has taken note of its end
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_command_starts_a_script_on_ranks(tmp_path):
    command = torchrun("x.py", "--a=b", ranks=3, max_restarts=5)
    assert command[1:] == [
        *("-m", "torch.distributed.run", "--standalone", "--max-restarts=5", "--nproc-per-node=3", "x.py", "--a=b")
    ]
    assert torchrun("x.py", "--a=b", ranks=1) == [sys.executable, "x.py", "--a=b"]
