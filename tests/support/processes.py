"""Processes that a test stops, kills and looks at."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def sleeping() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing; it is gone afterwards."""
    process = subprocess.Popen(["sleep", "600"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until(condition: Callable[[], object], *, seconds: float = 20) -> None:
    """Returns once the condition holds; fails where it does not within the time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)
