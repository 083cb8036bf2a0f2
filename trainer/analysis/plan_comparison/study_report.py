"""The report of a capacity study: how far predictions were from what runs took, as Markdown, as JSON and as a chart."""

from __future__ import annotations

import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from configs.hardware_schema import PHASES, HardwareFile
from trainer import storage
from trainer.analysis.plan_comparison.comparison import phase_seconds
from trainer.analysis.plan_comparison.study_points import StudyPoint

_MIB = 2**20
_BLUE, _ORANGE = "#1f5fa8", "#c05a00"  # told apart by those who see red and green alike, too
_COLOURS = {1: _BLUE, 2: _ORANGE}


@dataclass(frozen=True, kw_only=True)
class Errors:
    """|predicted / measured - 1| over runs."""

    name: str
    runs: int
    median: float
    worst: float
    worst_key: str


def held_out_errors(points: Sequence[StudyPoint]) -> list[Errors]:
    """Of the runs that calibration has not seen: step time by ranks, and growth of memory."""
    held_out = [one for one in points if one.use == "held_out"]
    worlds = sorted({one.usage.world_size for one in held_out})
    found = [
        _errors(
            f"step time, {world} rank(s)",
            {one.key: one.step_error for one in held_out if one.usage.world_size == world},
        )
        for world in worlds
    ]
    growth = {one.key: one.growth_error for one in held_out}
    return [*found, _errors("growth of peak memory", growth)] if held_out else []


def _errors(name: str, by_key: Mapping[str, float]) -> Errors:
    worst = max(by_key, key=lambda key: by_key[key])
    return Errors(
        name=name, runs=len(by_key), median=statistics.median(by_key.values()), worst=by_key[worst], worst_key=worst
    )


def markdown(points: Sequence[StudyPoint], *, hardware: HardwareFile, machine: Mapping[str, Any]) -> str:
    """Errors, whether bytes are exact, and every run."""
    exact = sum(one.bytes_are_exact for one in points)
    worlds = ", ".join(map(str, sorted({one.usage.world_size for one in points})))
    calibration = hardware.calibration
    factors = ", ".join(f"{phase} {factor:.2f}" for phase, factor in calibration.factors.items()) or "none"
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, torch {machine['versions']['torch']};"
        f" {hardware.name}, calibrated on {calibration.runs} runs: {factors}; activations times"
        f" {calibration.activation_factor:.2f}, {calibration.memory_gib:.3f} GiB beside",
        "",
        "| Held out from calibration | Runs | Median error | Worst error | Worst run |",
        "|---|---|---|---|---|",
        *(
            f"| {one.name} | {one.runs} | {one.median:.1%} | {one.worst:.1%} | {one.worst_key} |"
            for one in held_out_errors(points)
        ),
        f"| bytes of tables and their optimizer state, {worlds} rank(s) | {len(points)} | exact in {exact} | | |",
        "",
        "| Run | Use | Step ms, predicted | measured | ratio | Growth MiB, predicted | measured | ratio |",
        "|---|---|---|---|---|---|---|---|",
        *(_line(one) for one in points),
    ]
    return "\n".join(lines) + "\n"


def _line(one: StudyPoint) -> str:
    assert one.point.step is not None
    step, grown = one.point.step.total, max(one.grown)
    took, grew = one.usage.step_seconds, max(one.usage.growth_bytes)
    return (
        f"| {one.words} | {one.use.replace('_', ' ')} | {step * 1e3:.1f} | {took * 1e3:.1f} | {step / took:.2f}"
        f" | {grown / _MIB:,.0f} | {grew / _MIB:,.0f} | {grown / grew:.2f} |"
    )


def as_json(points: Sequence[StudyPoint]) -> dict[str, Any]:
    """All figures as plain values."""
    return {
        "held_out": [vars(one) for one in held_out_errors(points)],
        "runs": {
            one.key: {
                "use": one.use,
                "bytes_are_exact": one.bytes_are_exact,
                "predicted": _predicted(one),
                "measured": {
                    "step_seconds": one.usage.step_seconds,
                    "phases": dict(one.usage.phases),
                    "growth_bytes": list(one.usage.growth_bytes),
                    "rows_per_second": one.usage.rows_per_second,
                },
            }
            for one in points
        },
    }


def _predicted(one: StudyPoint) -> dict[str, Any]:
    assert one.point.step is not None
    return {
        "step_seconds": one.point.step.total,
        "phases": {phase: phase_seconds(one.point)[phase] for phase in PHASES},
        "growth_bytes": list(one.grown),
        "held_bytes": {kind: list(of) for kind, of in one.point.held.items()},
        "rows_per_second": one.point.rows_per_second,
    }


def draw(points: Sequence[StudyPoint], *, path: str) -> None:
    """Predicted against measured, step time and growth of memory, on logarithmic axes; calibration runs are hollow."""
    trained = [one for one in points if one.use != "bytes"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5.2), layout="constrained")
    times = [(one, one.usage.step_seconds * 1e3, one.point.step.total * 1e3) for one in trained if one.point.step]
    _scatter(left, times, within=(0.25, 0.5))
    left.set(title="Step time", xlabel="measured, ms", ylabel="predicted, ms")
    grown = [(one, max(one.usage.growth_bytes) / _MIB, max(one.grown) / _MIB) for one in trained]
    _scatter(right, grown, within=(0.15, 0.3))
    right.set(title="Growth of peak memory of the fullest rank", xlabel="measured, MiB", ylabel="predicted, MiB")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    plt.close(figure)
    storage.write_bytes(path, content.getvalue())


def _scatter(axes: Any, dots: Sequence[tuple[StudyPoint, float, float]], *, within: tuple[float, float]) -> None:
    values = [value for _, measured, predicted in dots for value in (measured, predicted)]
    ends = [min(values) / 1.4, max(values) * 1.4]
    for share, shade in zip(within, ("0.88", "0.95"), strict=True):
        low, high = [end * (1 - share) for end in ends], [end * (1 + share) for end in ends]
        axes.fill_between(ends, low, high, color=shade, zorder=-share, label=f"within {share:.0%}")
    axes.plot(ends, ends, color="0.4", linewidth=0.8)
    for world, colour in _COLOURS.items():
        for is_hollow in (False, True):
            chosen = [
                dot for dot in dots if dot[0].usage.world_size == world and (dot[0].use == "calibration") == is_hollow
            ]
            axes.scatter(
                [measured for _, measured, _ in chosen],
                [predicted for _, _, predicted in chosen],
                s=34,
                facecolors="none" if is_hollow else colour,
                edgecolors=colour,
                label=f"{world} rank(s), {'calibration' if is_hollow else 'held out'}",
            )
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):  # few numbers, as they are spoken
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, which="major", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(fontsize=8, loc="upper left")
