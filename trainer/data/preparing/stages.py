"""Stages: runs the jobs of each stage of a preparation over processes, and tells how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trainer.clock import clock
from trainer.data.preparing.work_pool import Job, WorkPool

STAGES = ("parse", "count", "dictionary", "write", "expand", "seal")
Stage = Literal["parse", "count", "dictionary", "write", "expand", "seal"]
_TITLES = {
    "parse": "reading",
    "count": "counting values",
    "dictionary": "making dictionaries",
    "write": "writing",
    "expand": "writing bags",
    "seal": "hashing",
}
_WAIT_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class PreparationProgress:
    """How far a stage is; `total` and `done` in its own unit: bytes of input, rows, features, bytes of output."""

    stage: Stage
    done: int
    total: int
    num_rows: int
    seconds: float
    waits: bool = False  # for other processes of the same preparation

    def sentence(self) -> str:
        """The stage, how far it is, and when it may be done."""
        title = f"{STAGES.index(self.stage) + 1}/{len(STAGES)} {_TITLES[self.stage]}"
        if self.waits:
            return f"{title}: waiting for the other processes, {clock(self.seconds)} so far"
        share = min(self.done / max(self.total, 1), 1.0)
        left = f", ETA {clock(self.seconds * (1 - share) / share)}" if share else ""
        rows = f", {self.num_rows:,} rows, {self.num_rows / max(self.seconds, 1e-9):,.0f} rows/s" * (self.num_rows > 0)
        return f"{title}: {share:4.0%}{rows}{left}"


OnProgress = Callable[[PreparationProgress], None]


class FinishedElsewhere(Exception):
    """Other processes have finished the whole work while this one waited for them."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result


class Stages:
    """What runs the stages.

    Args:
        num_workers: Processes.
        finished: What says whether other processes, which do a share of the work, have finished all of it; None: there
            are no others.
        on_progress: Called now and then.
    """

    def __init__(self, *, num_workers: int, finished: Callable[[], Any] | None, on_progress: OnProgress | None) -> None:
        self._finished = finished
        self._on_progress = on_progress
        self._heard: Callable[[int, int], None] = lambda num_bytes, num_rows: None
        self._pool = WorkPool(num_workers=num_workers, tell=lambda num_bytes, rows: self._heard(num_bytes, rows))

    def close(self) -> None:
        """Ends the processes, whatever they do."""
        self._pool.close()

    def run(
        self, stage: Stage, jobs: Sequence[Job], *, total: int, unit: Literal["bytes", "rows", "jobs"] = "rows"
    ) -> Iterator[Any]:
        """The jobs' results as they come."""
        started = time.monotonic()
        done = {"bytes": 0, "rows": 0, "jobs": 0}

        def hear(num_bytes: int, num_rows: int) -> None:
            done["bytes"] += num_bytes
            done["rows"] += num_rows
            seconds = time.monotonic() - started
            self._tell(stage=stage, done=done[unit], total=total, num_rows=done["rows"], seconds=seconds)

        self._heard = hear
        for result in self._pool.run(jobs):
            done["jobs"] += 1
            hear(0, 0)
            yield result

    def wait(self, look: Callable[[], Any], stage: Stage) -> Any:
        """What `look` finds; where other processes share the work, as soon as they have done theirs.

        Raises:
            FinishedElsewhere: they have done all of it.
        """
        started = time.monotonic()
        while (found := look()) is None:
            assert self._finished is not None, f"{stage}: something is missing that this process has made"
            if (result := self._finished()) is not None:
                raise FinishedElsewhere(result)
            self._tell(stage=stage, done=0, total=0, num_rows=0, seconds=time.monotonic() - started, waits=True)
            time.sleep(_WAIT_SECONDS)
        return found

    def _tell(self, **progress: Any) -> None:
        if self._on_progress is not None:
            self._on_progress(PreparationProgress(**progress))
