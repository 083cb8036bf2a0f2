"""MemoryWatch: the peak of the anonymous memory of a process and all its descendants, by looking often."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from configs.errors import ConfigError

_KIB = 1024
_SECONDS_BETWEEN_FOLDERS = 0.5
# Pages with no file behind them; file-backed ones are the cache's, and the kernel takes them back when it needs to.
_ANONYMOUS = (b"RssAnon:", b"RssShmem:")


@dataclass(frozen=True, kw_only=True)
class Peak:
    """What was seen.

    Attributes:
        anonymous_bytes: The largest sum over the tree at one look; pages that processes share count for each.
        of_one_process_bytes: The largest of a single process.
        folder_bytes: The largest size of the watched folder on disk.
        num_processes: The most at one look.
        num_looks: How often was looked.
        longest_gap_seconds: The longest time between two looks: what is shorter than this may have been missed.
    """

    anonymous_bytes: int
    of_one_process_bytes: int
    folder_bytes: int
    num_processes: int
    num_looks: int
    longest_gap_seconds: float


class MemoryWatch:
    """Looks at a process tree in a thread of its own until the block ends. Linux only.

    A process that was seen once is looked at until it ends, also when its parent ends before it.

    Args:
        process: Number of the process at the root.
        folder: A folder whose size on disk is watched too.
        seconds_between: Time between two looks.

    Raises:
        ConfigError: the system does not tell a process's memory or children.
    """

    def __init__(self, process: int, *, folder: str | None = None, seconds_between: float = 0.02) -> None:
        if not Path(f"/proc/self/task/{os.getpid()}/children").exists():  # of the main thread: others come and go
            raise ConfigError("memory: /proc does not tell a process's children here; measure on Linux")
        self._known = {process}
        self._seconds_between = seconds_between
        self._most = (0, 0, 0)  # sum, of one process, processes: the largest of each
        self._folder_bytes = 0
        self._num_looks = 0
        self._longest_gap = 0.0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._watch, name="memory watch", daemon=True)]
        if folder is not None:  # apart: going through many files takes a while
            self._threads.append(threading.Thread(target=self._watch_folder, args=(folder,), daemon=True))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def peak(self) -> Peak:
        """What was seen up to now."""
        total, single, processes = self._most
        return Peak(
            anonymous_bytes=total,
            of_one_process_bytes=single,
            folder_bytes=self._folder_bytes,
            num_processes=processes,
            num_looks=self._num_looks,
            longest_gap_seconds=round(self._longest_gap, 3),
        )

    def _watch(self) -> None:
        last = time.monotonic()
        while True:
            self._look()
            now = time.monotonic()
            self._longest_gap, last = max(self._longest_gap, now - last), now
            if self._stop.wait(self._seconds_between):
                break

    def _watch_folder(self, folder: str) -> None:
        while True:
            self._folder_bytes = max(self._folder_bytes, bytes_on_disk(folder))
            if self._stop.wait(_SECONDS_BETWEEN_FOLDERS):
                break

    def _look(self) -> None:
        held = []
        for process in _with_descendants(self._known):
            found = anonymous_bytes(process)
            if found is None:
                self._known.discard(process)
            else:
                self._known.add(process)
                held.append(found)
        total, single, processes = self._most
        self._most = (max(total, sum(held)), max(single, *held, 0), max(processes, len(held)))
        self._num_looks += 1


def anonymous_bytes(process: int) -> int | None:
    """Memory of a process that no file stands behind; None where there is no such process."""
    try:
        status = Path(f"/proc/{process}/status").read_bytes()
    except OSError:
        return None
    lines = [line.split() for line in status.splitlines() if line.startswith(_ANONYMOUS)]
    return sum(int(line[1]) * _KIB for line in lines)


def bytes_on_disk(folder: str) -> int:
    """What the files of a folder take on disk, as they come and go."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # gone by now
                total += os.stat(os.path.join(parent, name)).st_blocks * 512
    return total


def _with_descendants(known: set[int]) -> list[int]:
    """The processes and all that they have started, each once."""
    found = list(known)
    seen = set(known)
    for process in found:
        for child in _children(process):
            if child not in seen:
                seen.add(child)
                found.append(child)
    return found


def _children(process: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            with contextlib.suppress(OSError):
                yield from map(int, (thread / "children").read_bytes().split())
