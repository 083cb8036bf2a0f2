"""UsageLog: what a run takes of its machines, kept in usage.json, so that predictions can be held against it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import re
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from sharding.shards import table_name
from trainer import storage
from trainer.checkpoints.pieces import Pieces, State
from trainer.data.reading.mean_ids import mean_ids
from trainer.data.reading.source import RowSource
from trainer.runtime import Runtime
from trainer.versions import FBGEMM_BUILDS, installed

USAGE_NAME = "usage.json"
FORMAT = "chorus-usage"
FORMAT_VERSION = 1
MOST_WINDOWS = 64  # kept of a rank, the newest; the first, which warms up, is dropped with the others
Moment = Literal["before_assembly", "assembled", "trained"]

_STATUS = "/proc/self/status"
_STATUS_KEYS = {
    "VmHWM": "peak_resident_bytes",
    "VmRSS": "resident_bytes",
    "RssAnon": "anonymous_bytes",
    "RssFile": "file_bytes",
}
_WRITE_EVERY_SECONDS = 10.0
_ON_HOST = "uvm"  # of a kernel's name: its rows lie in a GPU host's memory


def memory_now(device: torch.device) -> dict[str, int]:
    """This process's memory in bytes, as Linux tells it; with a GPU also what torch has allocated and reserved there.

    The peaks are those since the process began. File pages (libraries, prepared rows) count as resident; anonymous
    bytes are what no file holds.
    """
    found: dict[str, int] = {}
    with contextlib.suppress(OSError):  # a system without it
        for key, kib in re.findall(r"^(\w+):\s+(\d+) kB$", storage.read_text(_STATUS), re.MULTILINE):
            if key in _STATUS_KEYS:
                found[_STATUS_KEYS[key]] = int(kib) * 1024
    if device.type == "cuda":
        found |= {
            "gpu_allocated_bytes": torch.cuda.memory_allocated(device),
            "gpu_peak_allocated_bytes": torch.cuda.max_memory_allocated(device),
            "gpu_reserved_bytes": torch.cuda.memory_reserved(device),
            "gpu_peak_reserved_bytes": torch.cuda.max_memory_reserved(device),
        }
    return found


def allocated_bytes(state: State, *, plan: Mapping[str, Any]) -> dict[str, int]:
    """Bytes of the tensors that this rank holds, by the kinds that plans count.

    Args:
        state: As a checkpoint has it: `model/KEY` and `optimizer/KEY`.
        plan: Table -> its place, as plan.json has it under `tables`.
    """
    sums = dict.fromkeys(("table_weights", "table_optimizer", "dense_weights", "dense_optimizer"), 0)
    sums |= {"host_table_weights": 0, "host_table_optimizer": 0}
    for key, value in state.items():
        where, _, rest = key.partition("/")
        parts = list(value.parts.values()) if isinstance(value, Pieces) else [value]
        table = table_name(rest) if where == "model" else _table_of_state(rest)
        kind = f"{'dense' if table is None else 'table'}_{'weights' if where == 'model' else 'optimizer'}"
        if table is not None and _ON_HOST in plan[table]["kernel"]:
            kind = f"host_{kind}"
        sums[kind] += sum(_bytes_of(part) for part in parts)
    return sums


def _table_of_state(key: str) -> str | None:
    """The table of `tables/GROUP/FEATURE/STATE`; None of `dense/PARAMETER/STATE`."""
    return key.removeprefix("tables/").rpartition("/")[0] if key.startswith("tables/") else None


def _bytes_of(tensor: Tensor) -> int:
    return 0 if tensor.dim() == 0 else tensor.numel() * tensor.element_size()  # a count of steps is no state of a row


@dataclass(frozen=True, kw_only=True)
class Window:
    """The steps between two logs of one rank."""

    steps: int
    rows: int  # of all ranks
    seconds: float  # evaluations and checkpoints left out
    phases: Mapping[str, float]  # seconds of a step, by the names of trainer.step_times.PHASES
    warm_up: bool  # the first since training began or went on: it compiles, allocates and fills caches


class UsageLog:
    """Collects what this rank takes, and writes usage.json into the run's folder.

    Make one before anything of the run is assembled. Rank 0 writes at logs, its own windows and what is known of the
    others, so that a run that is killed has left something; `settle` adds what the others measured.

    Args:
        folder: The run's; nothing is written before the first log.
        runtime: This process.
    """

    def __init__(self, *, folder: str, runtime: Runtime) -> None:
        self._path = storage.join(folder, USAGE_NAME)
        self._runtime = runtime
        self._memory: dict[Moment, dict[str, int]] = {"before_assembly": memory_now(runtime.device)}
        self._windows: deque[Window] = deque(maxlen=MOST_WINDOWS)
        self._facts: dict[str, Any] = {}
        self._ranks: list[dict[str, Any]] = []
        self._is_first = True
        self._written_at = -_WRITE_EVERY_SECONDS

    def assembled(self, state: State, *, plan: Mapping[str, Any], source: RowSource, batch_size: int) -> None:
        """Notes what is there before the first step. A collective.

        Args:
            state: Weights and optimizer state as a checkpoint has them.
            plan: As plan.json has it.
            source: What is trained on.
            batch_size: Rows of a step over all ranks.
        """
        runtime = self._runtime
        self._memory["assembled"] = memory_now(runtime.device)
        mine = {"allocated": allocated_bytes(state, plan=plan["tables"]), "memory": dict(self._memory)}
        self._ranks = runtime.gather(mine)
        self._facts = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "machine": _machine(runtime.device),
            "world_size": runtime.world_size,
            "ranks_per_host": runtime.local_world_size,
            "threads_per_rank": torch.get_num_threads(),
            "batch_size": batch_size,
            "rows_per_rank": plan["made_for"]["rows_per_rank"],
            "data": {
                "dense_names": list(source.features.dense_names),
                "table_rows": dict(source.features.table_rows),
                "numeric_ids": dict(source.features.numeric_ids),
                "dictionary": source.features.dictionary,
                "mean_ids": mean_ids(source),
                "train_rows": source.num_rows,
            },
        }

    def begin(self) -> None:
        """Training begins: the next window warms up."""
        self._is_first = True

    def add(self, *, steps: int, rows: int, seconds: float, phases: Mapping[str, float]) -> None:
        """Adds a window, with the memory at its end.

        Args:
            steps: In it.
            rows: Of all ranks.
            seconds: It took, evaluations and checkpoints left out.
            phases: Seconds of all its steps, by phase.
        """
        if steps < 1:
            return
        per_step = {phase: spent / steps for phase, spent in phases.items()}
        window = Window(steps=steps, rows=rows, seconds=seconds, phases=per_step, warm_up=self._is_first)
        self._windows.append(window)
        self._is_first = False
        self._memory["trained"] = memory_now(self._runtime.device)
        if self._runtime.is_main and time.monotonic() >= self._written_at + _WRITE_EVERY_SECONDS:
            self._ranks[0] |= self._measured()
            self._write(complete=False)

    def settle(self) -> None:
        """Writes what all ranks have measured. A collective."""
        measured = self._runtime.gather(self._measured())
        if self._runtime.is_main and measured[0]["windows"]:
            for rank, found in zip(self._ranks, measured, strict=True):
                rank |= found
            self._write(complete=True)

    def _measured(self) -> dict[str, Any]:
        return {"memory": dict(self._memory), "windows": [dataclasses.asdict(window) for window in self._windows]}

    def _write(self, *, complete: bool) -> None:
        body = {**self._facts, "complete": complete, "ranks": self._ranks}
        storage.write_json(self._path, body, durable=complete)
        self._written_at = time.monotonic()


def _machine(device: torch.device) -> dict[str, Any]:
    """What this runs on and with, the machine's name left out."""
    packages = ("torch", *FBGEMM_BUILDS, "torchrec")
    versions = {name: version for name in packages if (version := installed(name)) is not None}
    facts = {
        "device": device.type,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "versions": {"python": platform.python_version()} | versions,
    }
    if device.type == "cuda":
        of = torch.cuda.get_device_properties(device)
        facts |= {"gpu": of.name, "gpu_memory_bytes": of.total_memory}
    return facts
