"""Writing a synthetic click log: one file a day, made by several processes, whole or not there.

A day is written under a temporary name and renamed when it is whole. Until all days are, DIR/unfinished.json says what
is being written and which days are done, so that the same order goes on after them; DIR/ceiling.json comes last.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from configs.errors import ConfigError
from trainer import storage
from trainer.data.synthetic.synthetic_log import CHUNK_ROWS, AucMethod, Ceiling, Compression, LogChunk, make_chunk
from trainer.data.synthetic.teacher import Teacher
from trainer.row_progress import RowProgress
from trainer.worker_processes import worker_processes

CEILING_NAME = "ceiling.json"
UNFINISHED_NAME = "unfinished.json"
EXACT_ROWS = 2_000_000  # a day's, up to which its AUC is exact: all its logits are then in memory
_VERSION = 1  # of what an order's bytes are
_AHEAD = 2  # chunks that wait for each worker
_NO_ROOM = "this command writes others; give a new or empty folder"

# In a worker process: what it makes chunks of.
_order: LogOrder | None = None


@dataclass(frozen=True, kw_only=True)
class LogOrder:
    """What is to be written."""

    teacher: Teacher
    num_days: int
    rows_per_day: int
    compression: Compression

    @property
    def auc(self) -> AucMethod:
        """How each day's AUC is found."""
        return "exact" if self.rows_per_day <= EXACT_ROWS else "bins"

    def file_name(self, day: int) -> str:
        """Name of a day's file."""
        return f"day_{day}.tsv{'.gz' if self.compression == 'gz' else ''}"

    def chunks(self, day: int) -> list[tuple[int, int]]:
        """First row and number of rows of each chunk of a day."""
        start, stop = day * self.rows_per_day, (day + 1) * self.rows_per_day
        return [(first, min(CHUNK_ROWS, stop - first)) for first in range(start, stop, CHUNK_ROWS)]

    def make(self, first_row: int, num_rows: int) -> LogChunk:
        """One chunk."""
        return make_chunk(
            self.teacher, first_row=first_row, num_rows=num_rows, compression=self.compression, auc=self.auc
        )

    def as_json(self) -> dict[str, Any]:
        """All that decides the bytes."""
        teacher = {"seed": self.teacher.seed, "label_rate": self.teacher.label_rate}
        tables = dataclasses.asdict(self.teacher.value_tables)
        return {
            "version": _VERSION,
            "num_days": self.num_days,
            "rows_per_day": self.rows_per_day,
            "compression": self.compression,
            "teacher": teacher,
            "tables": {key: _plain(value) for key, value in tables.items()},
        }


def _plain(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def write_log(order: LogOrder, *, output: str, num_workers: int) -> dict[str, dict[str, Any]]:
    """Writes what is missing of a log and, last, its ceilings; returns these by day.

    Raises:
        ConfigError: the folder holds other days.
    """
    _refuse_other_days(output, order)
    storage.make_folder(output)
    ceiling_path, unfinished_path = (storage.join(output, name) for name in (CEILING_NAME, UNFINISHED_NAME))
    done = _days_done(output, order)
    for path in (ceiling_path, *(() if done else (unfinished_path,))):
        if storage.is_file(path):
            storage.remove_file(path)
    progress = RowProgress("generating", (order.num_days - len(done)) * order.rows_per_day)
    with _maker(order, num_workers) as make:
        for day in range(order.num_days):
            name = f"day_{day}"
            if name not in done:
                done[name] = _write_day(storage.join(output, order.file_name(day)), order.chunks(day), make, progress)
                storage.write_json(unfinished_path, {"order": order.as_json(), "days": done})
    ceilings = {f"day_{day}": done[f"day_{day}"]["ceiling"] for day in range(order.num_days)}
    storage.write_json(ceiling_path, ceilings)
    storage.remove_file(unfinished_path)
    return ceilings


def _refuse_other_days(output: str, order: LogOrder) -> None:
    ours = {order.file_name(day) for day in range(order.num_days)}
    ours |= {f"{name}.tmp" for name in ours}
    names = storage.names(output)
    made_here = CEILING_NAME in names or UNFINISHED_NAME in names
    for name in names:
        if name in ours and not name.endswith(".tmp") and not made_here:
            raise ConfigError(f"--output: {output} holds {name}, which was not made here; name another folder")
        if name.startswith("day_") and name not in ours:
            raise ConfigError(f"--output: {output} holds {name}, a day that is not of this log; {_NO_ROOM}")


def _days_done(output: str, order: LogOrder) -> dict[str, dict[str, Any]]:
    """Days that an unfinished run of the same order has left, by name."""
    path = storage.join(output, UNFINISHED_NAME)
    if not storage.is_file(path):
        return {}
    try:
        found = storage.read_json(path)
        days = found["days"] if found["order"] == order.as_json() else {}
        whole = {}
        for day in range(order.num_days):
            file, left = storage.join(output, order.file_name(day)), days.get(f"day_{day}")
            if left is not None and storage.is_file(file) and storage.num_bytes(file) == left["num_bytes"]:
                whole[f"day_{day}"] = left
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--output: {path} is damaged ({error!r}); delete it to write all days anew") from error
    return whole


_Make = Callable[[list[tuple[int, int]]], Iterator[LogChunk]]


def _write_day(path: str, chunks: list[tuple[int, int]], make: _Make, progress: RowProgress) -> dict[str, Any]:
    ceiling, num_bytes = Ceiling(), 0
    remote = path.startswith("s3://")  # where a file is there only once it was closed, and nothing can be renamed
    temporary = path if remote else f"{path}.tmp"
    with storage.naming(path):
        with storage.open_file(temporary, "wb") as file:
            for chunk in make(chunks):
                file.write(chunk.content)
                num_bytes += len(chunk.content)
                ceiling.add(chunk.scores)
                progress.add(chunk.scores.num_rows)
            file.flush()
            if not remote:
                os.fsync(file.fileno())
        if not remote:
            os.replace(temporary, path)
    return {"num_bytes": num_bytes, "ceiling": ceiling.as_json()}


@contextlib.contextmanager
def _maker(order: LogOrder, num_workers: int) -> Iterator[_Make]:
    """What makes chunks, in their order: this process, or several others that are at most a few chunks ahead."""
    if num_workers == 1:
        yield lambda chunks: (order.make(first, num_rows) for first, num_rows in chunks)
        return
    with worker_processes(num_workers, begin=_begin, arguments=(order,)) as pool:

        def make(chunks: list[tuple[int, int]]) -> Iterator[LogChunk]:
            waiting: deque[Future[LogChunk]] = deque()
            for chunk in chunks:
                waiting.append(pool.submit(_make, *chunk))
                if len(waiting) > _AHEAD * num_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

        yield make


def _begin(order: LogOrder) -> None:
    global _order
    _order = order


def _make(first_row: int, num_rows: int) -> LogChunk:
    assert _order is not None
    return _order.make(first_row, num_rows)
