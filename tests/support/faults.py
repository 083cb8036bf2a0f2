"""Faults of one rank, at a moment that it announces to the watchdog, in the job's first attempt."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from configs.errors import DataError
from trainer.watchdog import Watchdog


def spin() -> None:
    """An endless loop, in Python."""
    while True:
        pass


def block() -> None:
    """A call that does not come back, as of a disk that hangs."""
    time.sleep(3600)


def fail() -> None:
    """An error of one rank alone."""
    raise ValueError("a fault of one rank")


def refuse() -> None:
    """A refusal by one rank alone."""
    raise DataError("row 7 of day_0: label 3")


FAULTS: dict[str, Callable[[], None]] = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "terminate": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "none": lambda: None,
    "spin": spin,
    "block": block,
    "fail": fail,
    "refuse": refuse,
}


def strike(fault: str, *, rank: str, moment: str, mark: str = "") -> None:
    """Has the rank meet the fault once it says that it is at the moment; the file `mark` appears then."""
    if os.environ["RANK"] != rank or os.environ["TORCHELASTIC_RESTART_COUNT"] != "0":
        return
    beat = Watchdog.beat

    def beat_or_fail(watchdog: Watchdog, doing: str) -> None:
        beat(watchdog, doing)
        if doing == moment:
            if mark:
                Path(mark).touch()
            FAULTS[fault]()

    Watchdog.beat = beat_or_fail  # type: ignore[method-assign]
