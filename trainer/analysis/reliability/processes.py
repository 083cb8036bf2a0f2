"""Launches of torchrun, and the processes of a launch: found by a mark in their environment, counted and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TRAINER = str(ROOT / "trainer" / "main.py")
_MARK = "CHORUS_RELIABILITY_MARK"
_OF_A_JOB = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_POLL_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class JobProcess:
    """A process of a launch."""

    pid: int
    rank: int | None  # None: torchrun itself, or a rank that torchrun is just starting

    def signal(self, number: int) -> bool:
        """Sends a signal; gives whether the process was there."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def torchrun(script: str, *words: str, ranks: int, max_restarts: int = 0) -> list[str]:
    """The command that runs a script on so many ranks of this machine; one that nobody restarts needs no torchrun."""
    if ranks == 1 and not max_restarts:
        return [sys.executable, script, *words]
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*program, f"--max-restarts={max_restarts}", f"--nproc-per-node={ranks}", script, *words]


def launch(
    command: Sequence[str], *, mark: str, output: str, variables: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Starts a command in a session of its own.

    Args:
        command: Program and words.
        mark: What its processes are found by.
        output: A file to which all that it prints is appended.
        variables: More of its environment.
    """
    environment = {key: value for key, value in os.environ.items() if key not in _OF_A_JOB}
    environment |= {_MARK: mark, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1", **(variables or {})}
    with open(output, "ab") as file:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def processes_of(mark: str) -> list[JobProcess]:
    """The processes of this machine that carry a mark, ended ones left out, ranks first and in order."""
    wanted = f"{_MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # ended meanwhile, or another user's
            continue
        if wanted in variables:
            ranks = [int(variable.removeprefix(b"RANK=")) for variable in variables if variable.startswith(b"RANK=")]
            found.append(JobProcess(pid=int(folder.name), rank=ranks[0] if ranks else None))
    return sorted(found, key=lambda process: (process.rank is None, process.rank or 0, process.pid))


def ranks_of(mark: str) -> list[JobProcess]:
    """The ranks among them, in order."""
    return [process for process in processes_of(mark) if process.rank is not None]


def wait_until_gone(mark: str, *, seconds: float) -> list[JobProcess]:
    """Waits for the end of all processes of a mark; gives those that are left after so long."""
    deadline = time.monotonic() + seconds
    while (left := processes_of(mark)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return left


def show_stacks(mark: str, *, seconds: float = 5.0) -> None:
    """Ends the ranks by SIGABRT, upon which Python prints the stacks of all threads."""
    for process in ranks_of(mark):
        process.signal(signal.SIGCONT)
        process.signal(signal.SIGABRT)
    deadline = time.monotonic() + seconds
    while ranks_of(mark) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def interrupt_on_sigterm() -> None:
    """Has SIGTERM stop this program as Ctrl-C does, so that it ends what it has launched."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: signal.raise_signal(signal.SIGINT))


def end_all(mark: str) -> None:
    """Ends the processes of a mark at once; torchrun first, which would start its ranks again."""
    deadline = time.monotonic() + 10
    # Again and again: a torchrun may start a rank between the look and the signal.
    while (left := processes_of(mark)) and time.monotonic() < deadline:
        for process in reversed(left):
            with contextlib.suppress(PermissionError):
                process.signal(signal.SIGKILL)
        time.sleep(_POLL_SECONDS)
