"""What torchrun tells its workers, and what they ask of it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, kw_only=True)
class ProcessPlace:
    """Where torchrun put this process; a plain `python` start is rank 0 of 1."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int

    @property
    def ranks_beside(self) -> range:
        """The ranks of this host; torchrun numbers them one after the other."""
        first = self.rank - self.local_rank
        return range(first, first + self.local_world_size)

    @staticmethod
    def from_environment() -> ProcessPlace:
        """Reads torchrun's variables."""
        env = os.environ
        return ProcessPlace(
            rank=int(env.get("RANK", "0")),
            world_size=int(env.get("WORLD_SIZE", "1")),
            local_rank=int(env.get("LOCAL_RANK", "0")),
            local_world_size=int(env.get("LOCAL_WORLD_SIZE", "1")),
        )


def is_restart() -> bool:
    """Whether torchrun has started these workers again, in place of ones that ended."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def end_with_torchrun() -> None:
    """Asks Linux to send SIGTERM when torchrun is gone; it does not end its workers when it is killed."""
    if sys.platform != "linux" or "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # It may have gone while this process was importing, or between the two lines: nothing will come then.
    if os.getppid() != parent or not _has_torchrun():
        os.kill(os.getpid(), signal.SIGTERM)


def forbid_restart() -> None:
    """Ends this host's torchrun where it would start the workers again; one process a host calls this.

    torchrun starts them again whatever code they end with. SIGTERM is what schedulers end it with, too.
    """
    env = os.environ
    if _has_torchrun() and int(env.get("TORCHELASTIC_RESTART_COUNT", "0")) < int(
        env.get("TORCHELASTIC_MAX_RESTARTS", "0")
    ):
        os.kill(os.getppid(), signal.SIGTERM)


def _has_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ and (os.getppid() > 1 or _first_process_is_torchrun())


def _first_process_is_torchrun() -> bool:
    """As in a container that was made for it; elsewhere process 1 is whoever takes in orphans."""
    words = Path("/proc/1/cmdline").read_bytes()
    return b"torchrun" in words or b"torch.distributed" in words
