"""fit(): what measured runs say of the model's parts: a factor for each phase of a step, and two figures of memory.

A phase's factor is the median over runs of measured over modelled seconds. Making batches is hidden behind the rest, so
what a run waits for says nothing of it: where the hardware file lets nothing overlap, its factor is the median of what
the other phases leave of the step; elsewhere it has none. Memory is a robust line (soft L1, relative to what was
measured): growth = what the plan and the parameters take + activation_factor x activations + memory_gib.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np
from scipy.optimize import least_squares

from configs.errors import ConfigError
from configs.hardware_schema import PHASES, Calibration, HardwareFile
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
    activation_factor, memory_gib = _memory(points)
    return Calibration(
        factors={phase: round(statistics.median(factors[phase]), 4) for phase in PHASES if factors.get(phase)},
        memory_gib=memory_gib,
        activation_factor=activation_factor,
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


def _memory(points: Sequence[StudyPoint]) -> tuple[float, float]:
    """activation_factor and memory_gib."""
    activations = np.array([one.activations for one in points], dtype=np.float64)
    known = np.array([max(one.grown) for one in points], dtype=np.float64) - activations
    measured = np.array([one.usage.growth_bytes[one.fullest] for one in points], dtype=np.float64)

    def residuals(parameters: np.ndarray) -> np.ndarray:
        factor, gib = parameters
        return (known + factor * activations + gib * _GIB) / measured - 1.0

    found = least_squares(
        residuals, x0=(1.0, 0.05), bounds=((1e-3, 0.0), (np.inf, np.inf)), loss="soft_l1", f_scale=_SHIFT
    )
    factor, gib = found.x
    return round(float(factor), 4), round(float(gib), 4)
