"""How a page's charts look: a colour and a marker for each family of strategies, white ground, and SVG as a file.

Everything is drawn without pyplot, so that no window system is asked for and nothing is kept between charts.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from trainer import storage
from trainer.analysis.intervals import Interval
from trainer.benchmark.page.markdown import is_known

GREY = "#555555"
_COLOURS = (
    "#2f6db3",
    "#c2571a",
    "#2a8f5b",
    "#8e4ba8",
    "#b3283c",
    "#7a6a00",
    "#1b8a99",
    "#d0669c",
    "#6b4c3b",
    "#3d4a5c",
    "#a8a100",
    "#e08e0b",
)
_MARKERS = "os^DvPX<>hd"
_LINES = ("-", "--", ":", "-.")
# The same figures give the same bytes: no date, and the same names inside. Words stay words, in fonts of one width.
_SETTINGS: Any = {
    "svg.hashsalt": "chorus",
    "svg.fonttype": "none",
    "font.size": 10.0,
    "font.sans-serif": ["DejaVu Sans", "Verdana"],
}
LARGEST_BYTES = 150_000
_DPI = 100
_IDLE = re.compile(r"\s*<!--.*?-->\s*|\n\s+")  # comments and indents
_LONG_NUMBER = re.compile(r"(?<![\d.])([1-9]\d*\.\d\d)\d+")  # a hundredth of a point is enough; shares stay as they are


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What a family is drawn with."""

    colour: str
    marker: str
    line: str = "-"


def family_marks(families: Sequence[str]) -> dict[str, Mark]:
    """Family -> its colour and marker, in the order of their first appearance."""
    return {
        family: Mark(colour=_COLOURS[place % len(_COLOURS)], marker=_MARKERS[place % len(_MARKERS)])
        for place, family in enumerate(dict.fromkeys(families))
    }


def strategy_marks(families: dict[str, str]) -> dict[str, Mark]:
    """Strategy -> what it is drawn with: its family's colour and marker, and a line of its own in the family.

    Args:
        families: Strategy -> its family.
    """
    of_families, seen, found = family_marks(list(families.values())), dict[str, int](), {}
    for strategy, family in families.items():
        mark, place = of_families[family], seen.get(family, 0)
        seen[family] = place + 1
        found[strategy] = Mark(colour=mark.colour, marker=mark.marker, line=_LINES[place % len(_LINES)])
    return found


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, inches."""
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def tidy(axes: Any) -> None:
    """A light grid behind, no frame above and on the right."""
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def half_widths(intervals: Sequence[Interval]) -> NDArray[np.float64] | None:
    """Error bars as matplotlib takes them, [2, points]; none where an interval is not known."""
    if not all(is_known(one) for one in intervals):
        return None
    return np.array([[one.value - one.low, one.high - one.value] for one in intervals]).T


def draw_points(axes: Any, places: Sequence[float], intervals: Sequence[Interval], *, mark: Mark, label: str) -> None:
    """Means joined by a line, with their intervals as bars where they are known."""
    means = [one.value for one in intervals]
    style: Any = {"color": mark.colour, "marker": mark.marker, "linestyle": mark.line}
    axes.plot(places, means, **style, markersize=5.5, linewidth=1.4, label=label)
    ends = half_widths(intervals)
    if ends is not None:
        axes.errorbar(places, means, yerr=ends, fmt="none", ecolor=mark.colour, elinewidth=1.0)


def room(values: Sequence[float], bars: Sequence[Interval] = ()) -> tuple[float, float]:
    """Ends of an axis: all values, and bars as far as they do not make the values small."""
    low, high = min(values), max(values)
    spread = (high - low) or abs(high) * 1e-3 or 1.0
    known = [bar for bar in bars if is_known(bar)]
    low = max(min([low, *(bar.low for bar in known)]), low - spread)
    high = min(max([high, *(bar.high for bar in known)]), high + spread)
    return low - 0.06 * spread, high + 0.06 * spread


def without_far(values: Sequence[float]) -> list[float]:
    """The values without those so far off that the others would fill a quarter of the axis or less."""
    kept = sorted(values)
    while len(kept) > 3:
        spread = kept[-1] - kept[0]
        rest = min((kept[1:], kept[:-1]), key=lambda part: part[-1] - part[0])
        if rest[-1] - rest[0] > spread / 4:
            break
        kept = rest
    return kept


def apart(wanted: Sequence[float], *, least: float, low: float, high: float) -> list[float]:
    """Places for labels near those wanted, at least so far from each other, between low and high, in their order."""
    order = sorted(range(len(wanted)), key=lambda place: wanted[place])
    least = min(least, (high - low) / max(len(wanted) - 1, 1))
    placed = [0.0] * len(wanted)
    floor = low
    for place in order:
        placed[place] = max(wanted[place], floor)
        floor = placed[place] + least
    ceiling = high
    for place in reversed(order):
        placed[place] = min(placed[place], ceiling)
        ceiling = placed[place] - least
    return placed


def significant(value: float, digits: int = 3) -> str:
    """A count as an axis shows it: 12 k, 3.4 M."""
    for size, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.{digits}g}{suffix}"
    return f"{value:.{digits}g}"


def save(draw: Callable[[], Figure], stem: str) -> str:
    """Draws and writes an SVG, or a PNG where there is so much on it that an SVG is large.

    Args:
        draw: Makes the figure; called under the settings that charts have.
        stem: Where it goes, without the ending.

    Returns:
        The path.
    """
    with matplotlib.rc_context(_SETTINGS):
        figure, content = draw(), io.BytesIO()
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
        written = _LONG_NUMBER.sub(r"\1", _IDLE.sub("\n", content.getvalue().decode())).encode()
        path, other = f"{stem}.svg", f"{stem}.png"
        if len(written) > LARGEST_BYTES:
            content = io.BytesIO()
            figure.savefig(content, format="png", dpi=_DPI, metadata={"Software": None})
            path, other, written = other, path, content.getvalue()
    storage.write_bytes(path, written)
    if storage.is_file(other):  # of an earlier page
        storage.remove_file(other)
    return path
