"""What charts of pages are drawn with, as SVG text: axes, grids, lines, dots, words, and figures as they are shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 380  # read on a telephone as it is


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Values onto a stretch of the drawing."""

    low: float
    high: float
    start: float
    stop: float
    bend: Callable[[float], float] = float  # math.sqrt: small values get more room

    def at(self, value: float) -> float:
        """Where a value is drawn."""
        low, high = self.bend(self.low), self.bend(self.high)
        return self.start + (self.stop - self.start) * (self.bend(value) - low) / ((high - low) or 1.0)


def number(value: float | None, digits: int = 5, *, signed: bool = False) -> str:
    """A figure as it is shown; a dash where it is not defined."""
    if value is None:
        return "–"
    return f"{round(value, digits) + 0.0:{'+' if signed else ''},.{digits}f}".replace("-", "−")  # + 0.0: no minus zero


def ticks(low: float, high: float, *, most: int = 5) -> list[float]:
    """Round values from low to high, about that many."""
    if not high > low:
        return [low]
    finest, found = 10.0 ** math.floor(math.log10((high - low) / most)), [low]
    for factor in (1, 2, 2.5, 5, 10, 20):
        step = factor * finest
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < 1:  # one tick tells no scale
            break
        found = [place * step for place in range(first, last + 1)]
        if len(found) <= most:
            break
    return found


def x_grid(axis: Axis, *, top: float, bottom: float, values: Sequence[float]) -> str:
    """Upright lines at the values, named below."""
    return "".join(
        line(axis.at(value), top, axis.at(value), bottom, "grid")
        + text(axis.at(value), bottom + 15, shown, anchor="middle")
        for value, shown in zip(values, tick_names(values), strict=True)
    )


def y_grid(axis: Axis, *, left: float, right: float) -> str:
    """Level lines at round values, named on the left."""
    values = ticks(axis.low, axis.high)
    return "".join(
        line(left, axis.at(value), right, axis.at(value), "grid")
        + text(left - 5, axis.at(value) + 4, shown, anchor="end")
        for value, shown in zip(values, tick_names(values), strict=True)
    )


def tick_names(values: Sequence[float]) -> list[str]:
    """Ticks with as many digits as tell them apart."""
    step = abs(values[1] - values[0]) if len(values) > 1 else abs(values[0]) or 1.0
    digits = next(digits for digits in range(20) if abs(round(step, digits) - step) < step * 1e-6)
    return [number(value if abs(value) > step / 1e6 else 0.0, digits) for value in values]


def path(corners: Iterable[tuple[float, float]]) -> str:
    """Corners as the points of a polyline."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)


def line(x1: float, y1: float, x2: float, y2: float, classes: str) -> str:
    """A straight line."""
    return f'<line class="{classes}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def dot(x: float, y: float, radius: float, classes: str, *, hint: str, chart: str = "") -> str:
    """A dot that says what it stands for; `chart` is what tests count it by."""
    mark = f' data-chart="{escape(chart)}"' if chart else ""
    place = f'cx="{x:.1f}" cy="{y:.1f}" r="{radius}"'
    return f'<circle class="dot {classes}"{mark} {place}><title>{escape(hint)}</title></circle>'


def text(x: float, y: float, words: str, *, anchor: str = "start", classes: str = "", letters: int = 0) -> str:
    """Words, cut at so many letters, whole in their hint."""
    cut = words if not letters or len(words) <= letters else words[: letters - 1] + "…"
    hint = f"<title>{escape(words)}</title>" if cut != words else ""
    return f'<text class="{classes}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(cut)}{hint}</text>'


def svg(
    width: float,
    height: float,
    body: Iterable[str],
    *,
    label: str,
    classes: str = "chart",
    style: str = "",
    told: str = "",
) -> str:
    """A drawing; `told` says in a sentence what it shows to those who do not see it."""
    described = f"<desc>{escape(told)}</desc>" if told else ""
    return (
        f'<svg class="{classes}" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label)}"'
        f' style="{style}">{described}{"".join(body)}</svg>'
    )
