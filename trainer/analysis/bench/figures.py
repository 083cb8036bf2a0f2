"""Figures of a benchmark: medians of repeated measurements, their targets, and how both are printed and kept."""

from __future__ import annotations

import dataclasses
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from trainer.worker_processes import num_cores

_PACKAGES = ("numpy", "polars", "pyarrow", "duckdb", "isal", "torch", "torchrec")
_GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number.

    Attributes:
        name: What was measured.
        value: The median where it was measured several times.
        unit: Of value and target.
        runs: Each measurement, in order.
        target: What it should come to.
        bound: Whether the target is the least or the most.
        note: What a reader needs to judge it.
    """

    name: str
    value: float
    unit: str
    runs: tuple[float, ...] = ()
    target: float | None = None
    bound: Literal["least", "most"] = "least"
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether the target is met; empty without one."""
        if self.target is None:
            return ""
        met = self.value >= self.target if self.bound == "least" else self.value <= self.target
        return "met" if met else "missed"


@dataclass
class Findings:
    """What a section found, in order; `facts` are what is worth keeping and no figure."""

    figures: list[Figure] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def add(self, name: str, values: Sequence[float] | float, unit: str, **more: Any) -> Figure:
        """Adds the median of measurements."""
        runs = tuple(float(value) for value in values) if isinstance(values, Sequence) else ()
        value = statistics.median(runs) if isinstance(values, Sequence) else float(values)
        figure = Figure(name=name, value=value, unit=unit, runs=runs, **more)
        self.figures.append(figure)
        return figure

    def as_dict(self) -> dict[str, Any]:
        """As it is kept."""
        figures = [{**dataclasses.asdict(figure), "verdict": figure.verdict} for figure in self.figures]
        return {"figures": figures, "facts": self.facts, "remarks": self.remarks}


def table(findings: Findings) -> str:
    """The figures as text."""
    lines = []
    width = max((len(figure.name) for figure in findings.figures), default=0)
    for figure in findings.figures:
        line = f"  {figure.name:<{width}}  {_number(figure.value):>12} {figure.unit}"
        if len(figure.runs) > 1:
            line += f"  [{_number(min(figure.runs))} .. {_number(max(figure.runs))}]"
        if figure.target is not None:
            sign = ">=" if figure.bound == "least" else "<="
            line += f"  (target {sign} {_number(figure.target)}: {figure.verdict})"
        lines.append(line + f"  {figure.note}".rstrip())
    return "\n".join([*lines, *(f"  {remark}" for remark in findings.remarks)])


def markdown(findings: Findings) -> list[str]:
    """The figures as lines of a Markdown table, and what is to be said of them."""
    lines = ["| Figure | Median | Lowest to highest | Target |", "|---|---|---|---|"]
    for figure in findings.figures:
        spread = f"{_number(min(figure.runs))} to {_number(max(figure.runs))}" if len(figure.runs) > 1 else ""
        target = ""
        if figure.target is not None:
            sign = "at least" if figure.bound == "least" else "at most"
            target = f"{sign} {_number(figure.target)}: {figure.verdict}"
        name = f"{figure.name} ({figure.note})" if figure.note else figure.name
        lines.append(f"| {name} | {_number(figure.value)} {figure.unit}".rstrip() + f" | {spread} | {target} |")
    return [*lines, "", *(f"{remark}." for remark in findings.remarks)]


def machine() -> dict[str, Any]:
    """What was measured on: processor, cores, memory and the versions that matter."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": num_cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "versions": versions,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"
