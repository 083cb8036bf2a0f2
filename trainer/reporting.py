"""Reporter: a run's figures to the console, metrics.jsonl and TensorBoard; on rank 0 alone."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer import storage
from trainer.runtime import Runtime

METRICS_NAME = "metrics.jsonl"
TENSORBOARD_NAME = "tensorboard"
_UPLOAD_SECONDS = 60.0


class _Lines:
    """A file of lines that grows.

    S3 cannot append: there it is written anew, once a minute and at the end, so that a run that fails loses
    the lines of its last minute.
    """

    def __init__(self, path: str, *, kept: Sequence[str]) -> None:
        self._path = path
        self._lines = [f"{line}\n" for line in kept] if storage.is_remote(path) else []
        self._uploaded_at = time.monotonic()
        storage.write_text(path, "".join(f"{line}\n" for line in kept))

    def append(self, line: str) -> None:
        if not storage.is_remote(self._path):
            with storage.naming(self._path), storage.open_file(self._path, "a") as file:
                file.write(f"{line}\n")
            return
        self._lines.append(f"{line}\n")
        if time.monotonic() >= self._uploaded_at + _UPLOAD_SECONDS:
            self.settle()

    def settle(self) -> None:
        if storage.is_remote(self._path):
            storage.write_text(self._path, "".join(self._lines))
            self._uploaded_at = time.monotonic()


class Reporter:
    """Writes scalars under paths with units, as train/deep/loss_nats.

    Args:
        folder: The run's folder.
        resumed_step: Lines of later steps, left by a run that did not reach its next checkpoint,
            are dropped.
        runtime: This process.
    """

    def __init__(self, *, folder: str, resumed_step: int, runtime: Runtime) -> None:
        self.folder = folder
        self._runtime = runtime
        self._started = time.monotonic()
        if not runtime.is_main:
            return
        from torch.utils.tensorboard import SummaryWriter  # loads slowly, and only rank 0 needs it

        path = storage.join(folder, METRICS_NAME)
        self._lines = _Lines(path, kept=_lines_until(resumed_step, path))
        self._board = SummaryWriter(
            storage.join(folder, TENSORBOARD_NAME), purge_step=resumed_step + 1 if resumed_step else None
        )

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends one line of figures; NaN becomes null."""
        if not self._runtime.is_main:
            return
        plain = {key: value if math.isfinite(value) else None for key, value in scalars.items()}
        line = json.dumps({"step": step, "seconds": round(time.monotonic() - self._started, 3), **plain})
        self._lines.append(line)
        with storage.naming(storage.join(self.folder, TENSORBOARD_NAME)):
            for key, value in scalars.items():
                self._board.add_scalar(key, value, step)

    def close(self) -> None:
        """Flushes what is buffered."""
        if self._runtime.is_main:
            self._lines.settle()
            self._board.close()


def _lines_until(step: int, path: str) -> list[str]:
    lines = storage.read_text(path).splitlines() if step and storage.is_file(path) else []
    return [line for line in lines if line.endswith("}") and _is_of_the_past(json.loads(line), step)]


def _is_of_the_past(line: Mapping[str, Any], step: int) -> bool:
    """A day's figures of the very step are found again: a day that has not begun is evaluated once more."""
    return line["step"] < step or (line["step"] == step and not any(key.startswith("day/") for key in line))


@dataclass(frozen=True, kw_only=True)
class Lap:
    """Time and rows since the lap before."""

    seconds: float
    rows: int
    rows_per_second: float


class Stopwatch:
    """Time spent in steps; pauses (evaluation, checkpoints) do not count.

    Args:
        rows: Rows trained before it starts.
    """

    def __init__(self, *, rows: int) -> None:
        self._started = time.monotonic()
        self._paused_seconds = 0.0
        self._lap_seconds, self._lap_rows = 0.0, rows

    @property
    def seconds(self) -> float:
        """Seconds since the start, pauses left out."""
        return time.monotonic() - self._started - self._paused_seconds

    def mean_seconds(self, *, steps: int) -> float:
        """Seconds a step."""
        return self.seconds / max(steps, 1)

    def lap(self, *, rows: int) -> Lap:
        """Ends a lap at a total of `rows`."""
        seconds, count = self.seconds - self._lap_seconds, rows - self._lap_rows
        self._lap_seconds, self._lap_rows = self.seconds, rows
        return Lap(seconds=seconds, rows=count, rows_per_second=count / max(seconds, 1e-9))

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves a block's time out."""
        began = time.monotonic()
        yield
        self._paused_seconds += time.monotonic() - began
