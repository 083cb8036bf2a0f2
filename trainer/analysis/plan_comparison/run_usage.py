"""RunUsage: what a training run took, as its usage.json has it, in the figures that predictions are about."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from configs.errors import ConfigError, DataError
from configs.hardware_schema import PHASES
from trainer import storage
from trainer.usage import FORMAT, FORMAT_VERSION, USAGE_NAME

_AGAIN = "train again, with train.until of at least two times train.log_every"


@dataclass(frozen=True, kw_only=True)
class RunUsage:
    """One run. Times are medians over the windows after the first, which warms up."""

    device: str
    world_size: int
    ranks_per_host: int
    batch_size: int
    data: Mapping[str, Any]  # features and rows, as usage.json has them
    allocated: Mapping[str, tuple[int, ...]]  # kind -> bytes of each rank
    growth_bytes: tuple[int, ...]  # of each rank's memory, from before assembly to its peak in training
    phases: Mapping[str, float]  # seconds of a step on the rank that waits least for the others
    step_seconds: float
    rows_per_second: float
    num_windows: int

    @property
    def other_seconds(self) -> float:
        """What of a step lies in no phase: losses, logs, Python between steps."""
        return self.step_seconds - sum(self.phases.values())


def read_usage(folder: str) -> RunUsage:
    """What the run in this folder took.

    Raises:
        ConfigError: there is no run, or none that says.
        DataError: as of `usage_of`.
    """
    path = storage.join(folder, USAGE_NAME)
    if not storage.is_file(path):
        raise ConfigError(
            f"{folder}: no {USAGE_NAME}; name the folder of a training run that has logged, and where an older version"
            " trained it, train it again"
        )
    try:
        body = storage.read_json(path)
    except ValueError:
        raise DataError(f"{path}: not JSON; {_AGAIN}") from None
    return usage_of(body, source=path)


def usage_of(body: Mapping[str, Any], *, source: str) -> RunUsage:
    """From what usage.json holds.

    Args:
        body: Its content.
        source: What to call it in sentences.

    Raises:
        DataError: it is of another version, the run was killed before all its ranks had told what they measured, or it
            has no window after the one that warms up.
    """
    if not isinstance(body, Mapping) or (body.get("format"), body.get("version")) != (FORMAT, FORMAT_VERSION):
        raise DataError(f"{source}: not what this version of trainer/main.py writes; train again")
    ranks = body["ranks"]
    if not body["complete"] and len(ranks) > 1:
        raise DataError(f"{source}: the run was killed before ranks other than 0 had told what they took; train again")
    warm = [[window for window in rank["windows"] if not window["warm_up"]] for rank in ranks]
    if not all(warm):
        raise DataError(f"{source}: no window after the first, which warms up; {_AGAIN}")
    phases = [
        {phase: statistics.median(window["phases"][phase] for window in windows) for phase in PHASES}
        for windows in warm
    ]
    return RunUsage(
        device=body["machine"]["device"],
        world_size=body["world_size"],
        ranks_per_host=body["ranks_per_host"],
        batch_size=body["batch_size"],
        data=body["data"],
        allocated={kind: tuple(rank["allocated"][kind] for rank in ranks) for kind in ranks[0]["allocated"]},
        growth_bytes=tuple(_growth(rank["memory"], device=body["machine"]["device"], source=source) for rank in ranks),
        phases=min(phases, key=lambda of_rank: of_rank["communication"]),
        step_seconds=statistics.median(window["seconds"] / window["steps"] for window in warm[0]),
        rows_per_second=statistics.median(window["rows"] / window["seconds"] for window in warm[0]),
        num_windows=len(warm[0]),
    )


def _growth(memory: Mapping[str, Mapping[str, int]], *, device: str, source: str) -> int:
    """Of a GPU: what torch has allocated at its peak. Of a CPU rank: resident memory without pages of files.

    Pages of prepared files that were read stay resident for as long as nobody needs the room, so they are no need.
    """
    before, after = memory["before_assembly"], memory["trained"]
    if device == "cuda":
        return after["gpu_peak_allocated_bytes"] - before["gpu_allocated_bytes"]
    if "anonymous_bytes" not in before:
        raise DataError(f"{source}: has no memory of ranks, which only Linux tells; train on Linux")
    peak = after["peak_resident_bytes"] - after["file_bytes"]
    return peak - (before["resident_bytes"] - before["file_bytes"])
