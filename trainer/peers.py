"""Peer: one process of the job, as the others know it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A rank's process. Its number alone would not do: another host has the same, and a number is given again."""

    rank: int
    host: str
    machine: str  # the boot and the space of process numbers; empty where the system does not tell
    pid: int
    started: int  # clock ticks after the boot

    @staticmethod
    def this_process(rank: int) -> Peer:
        """This process as a rank."""
        return Peer.of(os.getpid(), rank=rank)

    @staticmethod
    def of(pid: int, *, rank: int) -> Peer:
        """A process of this host as a rank."""
        machine = ""
        with contextlib.suppress(OSError):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            machine = f"{boot} {os.readlink('/proc/self/ns/pid')}"
        return Peer(
            rank=rank,
            host=socket.gethostname(),
            machine=machine,
            pid=pid,
            started=_stat(pid)[1],
        )

    def __str__(self) -> str:
        return f"rank {self.rank} ({self.host}, pid {self.pid})"

    @property
    def home(self) -> str:
        """What the processes of a host have in common."""
        return self.machine or self.host

    def is_beside(self, other: Peer) -> bool:
        """Whether both processes run where one can signal the other by its number."""
        return self.machine != "" and self.machine == other.machine

    def state(self) -> Literal["there", "stopped", "gone"]:
        """How the process is; asked from beside it alone."""
        letter, started = _stat(self.pid)
        if started != self.started or letter in "ZXx":
            return "gone"
        return "stopped" if letter in "Tt" else "there"

    def kill(self) -> None:
        """Ends the process with SIGKILL, from beside it alone."""
        if self.state() != "gone":
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def _stat(pid: int) -> tuple[str, int]:
    """State letter and start of a process; ("X", -1) where there is none (proc(5), /proc/PID/stat)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "X", -1
    return fields[0], int(fields[19])
