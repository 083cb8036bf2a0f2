"""Compared: one figure predicted and measured; and all of them for a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from configs.errors import ConfigError
from configs.hardware_schema import PHASES, HardwareFile
from configs.schema import RunConfig
from trainer.analysis.plan_comparison.run_usage import RunUsage
from trainer.planning.capacity_point import CapacityPoint
from trainer.planning.data_facts import DataFacts

Unit = Literal["bytes", "seconds", "rows/s"]

# Of what a rank holds, what is not there by the peak of a run's training, or was there before it was assembled.
_NOT_GROWN = ("process", "reserve")
_SHARES = {"bytes": (2**20, "MiB", 1), "seconds": (1e-3, "ms", 2), "rows/s": (1, "rows/s", 0)}


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A figure of a run."""

    name: str
    unit: Unit
    predicted: float
    measured: float
    is_exact: bool = False  # whether the two should be equal

    @property
    def ratio(self) -> float | None:
        """Predicted over measured; None where nothing was measured."""
        return self.predicted / self.measured if self.measured else None

    @property
    def error(self) -> float:
        """|predicted / measured - 1|; 0 where both are 0."""
        if self.predicted == self.measured:
            return 0.0
        return abs(self.predicted / self.measured - 1.0) if self.measured else float("inf")


def grown_bytes(point: CapacityPoint, *, config: RunConfig, data: DataFacts, hardware: HardwareFile) -> tuple[int, ...]:
    """What each rank's memory grows by, from before a run is assembled to its peak in training.

    All that the prediction holds, without what the process took before, without the reserve, on CPU hosts without the
    shuffle windows (they are pages of files, which a run's growth leaves out), and without the copy of a checkpoint
    where the only one is written when training is over.
    """
    left_out = set(_NOT_GROWN)
    if not config.checkpoint.every.is_given:
        left_out.add("checkpoint_copy")
    sums = [sum(of) for of in zip(*(of for kind, of in point.held.items() if kind not in left_out), strict=True)]
    windows = 2 * min(config.data.shuffle_window, data.train_rows) * data.stored_bytes
    beside = round(hardware.calibration.memory_gib * 2**30) - (windows if point.device == "cpu" else 0)
    return tuple(count + beside for count in sums)


def phase_seconds(point: CapacityPoint) -> dict[str, float]:
    """A step's parts as a run measures them: of data, what it waits for, which is what nothing hides."""
    assert point.step is not None
    parts = dict(point.step.parts)
    shown = sum(parts[phase] for phase in PHASES if phase != "data")
    return parts | {"data": min(parts["data"], max(0.0, point.step.total - shown))}


def compare(
    point: CapacityPoint, usage: RunUsage, *, config: RunConfig, data: DataFacts, hardware: HardwareFile
) -> list[Compared]:
    """All figures that both have, bytes of the rank where they are most.

    Args:
        point: What was predicted for the run, with its plan.
        usage: What it took.
        config: The run.
        data: Its rows.
        hardware: What the prediction is for.

    Raises:
        ConfigError: the hardware file is of another device.
    """
    check_device(usage, hardware=hardware)
    found = []
    for kind, name in _ALLOCATED.items():
        predicted, measured = point.held.get(kind, (0,)), usage.allocated[kind]
        if any(predicted) or any(measured):
            found.append(_bytes(name, predicted, measured, is_exact=True))
    grown = grown_bytes(point, config=config, data=data, hardware=hardware)
    found.append(_bytes("growth of memory to its peak", grown, usage.growth_bytes))
    assert point.step is not None, "a run that has trained was planned"
    parts = phase_seconds(point)
    found += [_seconds(phase, parts[phase], usage.phases[phase]) for phase in PHASES]
    found.append(_seconds("step", point.step.total, usage.step_seconds))
    rows = Compared(name="rows", unit="rows/s", predicted=point.rows_per_second, measured=usage.rows_per_second)
    return [*found, rows]


_ALLOCATED = {
    "table_weights": "weights of tables",
    "table_optimizer": "optimizer state of tables",
    "dense_weights": "weights of members",
    "dense_optimizer": "optimizer state of members",
}


def check_device(usage: RunUsage, *, hardware: HardwareFile) -> None:
    """Refuses hardware of another device.

    Raises:
        ConfigError: the run was not on such a device.
    """
    if usage.device != hardware.device:
        raise ConfigError(
            f"--hardware: {hardware.name!r} is {hardware.device}, but the run was on {usage.device}; give the file of"
            " the machine that it ran on, as tools/measure_hardware.py writes it"
        )


def _bytes(name: str, predicted: Sequence[int], measured: Sequence[int], *, is_exact: bool = False) -> Compared:
    return Compared(name=name, unit="bytes", predicted=max(predicted), measured=max(measured), is_exact=is_exact)


def _seconds(name: str, predicted: float, measured: float) -> Compared:
    return Compared(name=name, unit="seconds", predicted=predicted, measured=measured)


def lines(found: Sequence[Compared]) -> list[str]:
    """Figures in columns, as text."""
    rows = [("", "predicted", "measured", "ratio")]
    for one in found:
        size, unit, digits = _SHARES[one.unit]
        predicted, measured = (f"{value / size:,.{digits}f} {unit}" for value in (one.predicted, one.measured))
        rows.append((one.name, predicted, measured, _shown_ratio(one)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def _shown_ratio(one: Compared) -> str:
    if one.is_exact and one.predicted == one.measured:
        return "exact"
    return "" if one.ratio is None else f"{one.ratio:.2f}"


def as_json(found: Sequence[Compared]) -> list[Mapping[str, Any]]:
    """Plain values."""
    return [{**vars(one), "ratio": one.ratio} for one in found]
