"""fit(): what measured runs say of the model's parts: a factor for each phase of a step, and two figures of memory.

A phase's factor is the median over runs of measured over modelled seconds. Making batches is hidden behind the rest, so
what a run waits for says nothing of it: where the hardware file lets nothing overlap, its factor is the median of what
the other phases leave of the step; elsewhere it has none. Memory is a robust line (soft L1, relative to what was
measured): growth = what the plan and the parameters take + activation_factor x activations + buffer_factors x buffers
+ memory_gib, with a factor of buffers for ranks alone, for exchanges of pooled embeddings and for tables split by rows.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np
from scipy.optimize import least_squares

from configs.errors import ConfigError
from configs.hardware_schema import BUFFER_KINDS, PHASES, Calibration, HardwareFile
from trainer.analysis.plan_comparison.study_points import StudyPoint

_LEAST_RUNS = 6
_SHIFT = 0.1  # relative residuals beyond this count by their size rather than by its square
_GIB = 2**30


def fit(points: Sequence[StudyPoint], *, hardware: HardwareFile) -> Calibration:
    """The calibration that these runs say.

    Args:
        points: Runs predicted for the hardware as if it were not calibrated.
        hardware: The machine.

    Raises:
        ConfigError: there are too few runs.
    """
    if len(points) < _LEAST_RUNS:
        raise ConfigError(f"--only: {len(points)} run(s) to calibrate on, of {_LEAST_RUNS} at least; measure first")
    factors = {phase: _ratios(points, phase) for phase in PHASES if phase != "data"}
    if hardware.overlap == "none":
        factors["data"] = [
            left / modelled
            for one in points
            if (left := one.usage.other_seconds + one.usage.phases["data"]) > 0
            and (modelled := _parts(one)["data"]) > 0
        ]
    memory = _memory(points)
    return Calibration(
        factors={phase: round(statistics.median(factors[phase]), 4) for phase in PHASES if factors.get(phase)},
        memory_gib=memory.pop("memory_gib"),
        activation_factor=memory.pop("activation_factor"),
        buffer_factors=memory,
        runs=len(points),
    )


def with_calibration(text: str, calibration: Calibration) -> str:
    """A hardware file's text with this calibration in place of the one it has; all else, comments too, stays.

    Args:
        text: TOML.
        calibration: To write.
    """
    kept, is_inside = [], False
    for line in text.splitlines():
        if line.startswith("["):
            is_inside = line.startswith(("[calibration]", "[calibration."))
        if not is_inside or line.startswith("#"):  # which may be above the next section
            kept.append(line)
    while kept and not kept[-1]:
        kept.pop()
    lines = [
        "[calibration]",
        f"runs = {calibration.runs}",
        f"memory_gib = {calibration.memory_gib}",
        f"activation_factor = {calibration.activation_factor}",
        "",
        "[calibration.factors]",
        *(f"{phase} = {factor}" for phase, factor in calibration.factors.items()),
        "",
        "[calibration.buffer_factors]",
        *(f"{kind} = {factor}" for kind, factor in calibration.buffer_factors.items()),
    ]
    return "\n".join([*kept, "", *lines, ""])


def _parts(one: StudyPoint) -> dict[str, float]:
    assert one.point.step is not None
    return dict(one.point.step.parts)


def _ratios(points: Sequence[StudyPoint], phase: str) -> list[float]:
    """Measured over modelled seconds, of the runs that have both; a rank alone sends nothing."""
    return [
        one.usage.phases[phase] / modelled
        for one in points
        if (modelled := _parts(one)[phase]) > 0 and one.usage.phases[phase] > 0
    ]


def _memory(points: Sequence[StudyPoint]) -> dict[str, float]:
    """memory_gib, activation_factor, and the factor of each kind of buffers that the runs have."""
    columns: dict[str, list[float]] = {
        "memory_gib": [_GIB for _ in points],
        "activation_factor": [one.activations for one in points],
        **{kind: [one.buffers[kind] for one in points] for kind in BUFFER_KINDS},
    }
    columns = {name: column for name, column in columns.items() if any(column)}
    table = np.array(list(columns.values()), dtype=np.float64).T
    counted = [name != "memory_gib" for name in columns]  # in what is predicted without a calibration
    known = np.array([max(one.grown) for one in points], dtype=np.float64) - table[:, counted].sum(axis=1)
    measured = np.array([one.usage.growth_bytes[one.fullest] for one in points], dtype=np.float64)
    found = least_squares(
        lambda factors: (known + table @ factors) / measured - 1.0,
        x0=[0.05, *[1.0] * (len(columns) - 1)],
        bounds=([0.0, *[1e-3] * (len(columns) - 1)], np.inf),
        loss="soft_l1",
        f_scale=_SHIFT,
    )
    return {name: round(float(factor), 4) for name, factor in zip(columns, found.x, strict=True)}
