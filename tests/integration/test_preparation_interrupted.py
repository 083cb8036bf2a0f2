"""kill -9 at random moments of a preparation: the same bytes at the end, no process left, and one at a time."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.click_log import synthetic_lines, write_log
from tests.support.commands import ROOT, environment
from tests.support.preparing import contents

NUM_DAYS = 3
# The program itself, with small pieces so that a small log has many, and processes for them.
PROGRAM = """
import sys
from tools import prepare_criteo
from trainer.data.preparing import preparation
from trainer.data.preparing.criteo_format import CriteoFormat
CriteoFormat.__init__.__kwdefaults__["piece_bytes"] = 400_000
preparation._BYTES_WORTH_A_PROCESS = 1
sys.exit(prepare_criteo.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The same days, plain and as .gz: a few seconds' work."""
    folder = tmp_path_factory.mktemp("logs")
    lines = synthetic_lines(3_000)
    days: dict[str, list[str]] = {"plain": [], "gz": []}
    for day in range(NUM_DAYS):
        chosen = [f"{line}{number % 1_000:x}" for number, line in enumerate(lines * 4) if line.endswith("\t")]
        chosen = (chosen + lines) * 4
        random.Random(day).shuffle(chosen)
        chosen[500 + day] = "no row"
        days["plain"].append(write_log(folder / f"day_{day}", chosen))
        days["gz"].append(write_log(folder / f"day_{day}.gz", chosen))
    return days


def start(inputs: Sequence[str], output: Path, *words: str) -> subprocess.Popen[str]:
    flags = ("--output", str(output), "--workers", "2", "--memory-gb", "2", "--max-bad-fraction", "0.01", *words)
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "--input", *inputs, *flags],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(job: subprocess.Popen[str]) -> str:
    output, errors = job.communicate(timeout=120)
    assert job.returncode == 0, errors
    return output


def processes_of(output: Path) -> list[int]:
    """Processes that hold a file below the folder open, or were started for it."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            held = [os.readlink(link) for link in (entry / "fd").iterdir()]
            if str(output) in (entry / "cmdline").read_text() or any(path.startswith(str(output)) for path in held):
                found.append(int(entry.name))
    return found


def children(job: subprocess.Popen[str]) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == job.pid:
                found.append(int(stat.parent.name))
    return found


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill_often(inputs: Sequence[str], folder: Path, *words: str, num_kills: int, seed: int) -> None:
    """Kills at random moments, starts again after each, and compares the end with an uninterrupted preparation."""
    began = time.monotonic()
    finish(start(inputs, folder / "whole", *words))
    seconds = time.monotonic() - began
    wanted = contents(folder / "whole")
    draw = random.Random(seed)
    output, killed, stages = folder / "cut", 0, set()
    while killed < num_kills:
        job = start(inputs, output, *words)
        try:
            job.wait(timeout=draw.uniform(0.15, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            workers = children(job)
            job.send_signal(signal.SIGKILL)
            job.communicate()
            killed += 1
            stages.add(_stage(output))
            deadline = time.monotonic() + 5
            while (left := [worker for worker in workers if is_running(worker)]) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not left, f"processes {left} go on without their parent"
            assert not processes_of(output)
        else:  # it was done before: compare, and begin anew
            finish(job)
            assert contents(output) == wanted
            shutil.rmtree(output)
    finish(start(inputs, output, *words))
    assert contents(output) == wanted
    assert len(stages) > 1 or num_kills < 4, f"all kills fell into {stages}"


def _stage(output: Path) -> str:
    """How far a killed preparation had come, by what lies there."""
    names = {path.name for path in (output / "unfinished").glob("*")} if output.exists() else set()
    if (output / "manifest.json").exists():
        return "finished"
    if any(name.endswith("written.json") for name in names):
        return "write"
    if any(name.startswith("dictionary_") for name in names):
        return "dictionary"
    return "parse" if any(name.startswith("f0") for name in names) else "begin"


def test_killed_a_few_times(logs, tmp_path):
    kill_often(logs["plain"], tmp_path, num_kills=4, seed=1)


@pytest.mark.slow
def test_killed_while_gz_and_hashed(logs, tmp_path):
    kill_often(logs["gz"], tmp_path, "--vocabulary", "hash", num_kills=2, seed=2)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("packing", ["plain", "gz"])
@pytest.mark.parametrize("words", [(), ("--reparse",), ("--vocabulary", "hash"), ("--split", "a=0.7", "b=0.3")])
def test_killed_20_times(logs, tmp_path, packing, words):
    kill_often(logs[packing], tmp_path, *words, num_kills=20, seed=len(words) + len(packing))


def test_another_process_is_refused_while_one_works(logs, tmp_path):
    first = start(logs["plain"], tmp_path / "out")
    deadline = time.monotonic() + 60
    while not (tmp_path / "out" / "unfinished" / "plan.json").exists():
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    first.send_signal(signal.SIGSTOP)
    try:
        for words in ((), ("--overwrite",)):
            second = start(logs["plain"], tmp_path / "out", *words)
            _, errors = second.communicate(timeout=60)
            assert second.returncode == 2
            assert errors.endswith("another process prepares there right now; wait for it or end it\n")
    finally:
        first.send_signal(signal.SIGCONT)
    finish(first)
    assert "already prepared" in finish(start(logs["plain"], tmp_path / "out"))


def test_a_killed_worker_is_told_and_the_rest_goes_on(logs, tmp_path):
    finish(start(logs["plain"], tmp_path / "whole"))
    job = start(logs["plain"], tmp_path / "out")
    deadline = time.monotonic() + 60
    while not any((tmp_path / "out" / "unfinished").glob("f*.json")):
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    workers = [child for child in children(job) if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    os.kill(workers[-1], signal.SIGKILL)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 1
    assert "a worker process was killed, most likely for want of memory" in errors and len(errors.splitlines()) == 1
    assert not any(is_running(worker) for worker in workers)
    finish(start(logs["plain"], tmp_path / "out"))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_shards_of_several_processes_are_one_preparation(logs, tmp_path):
    for words in ((), ("--vocabulary", "hash")):
        whole, shared = tmp_path / f"whole{len(words)}", tmp_path / f"shared{len(words)}"
        finish(start(logs["plain"], whole, *words))
        jobs = [start(logs["plain"], shared, "--shard", f"{index}/3", *words) for index in range(3)]
        for job in jobs:
            assert f"rows + {NUM_DAYS} bad ones" in finish(job)
        assert contents(shared) == contents(whole)
