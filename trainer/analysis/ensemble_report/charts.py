"""Charts as SVG text: intervals beside zero, a curve over sizes, a matrix, reliability.

A chart is 380 units wide, so that it is read on a telephone as it is, and drawn at most a third larger. Colours are the
page's CSS variables. Every text goes through `escape`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from trainer.analysis import drawing
from trainer.analysis.drawing import WIDTH, Axis, ticks
from trainer.analysis.ensemble_report.words import number

_ROW = 22
_LABEL_WIDTH = 106
_VALUE_WIDTH = 62
_LETTERS = 14
_LEAST_ROOM = 1e-6  # differences that are rounding alone are drawn as none


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A value with its interval in a chart of intervals."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    is_loud: bool = False


@dataclass(frozen=True, kw_only=True)
class Line:
    """A reliability curve: predicted, observed, and the observed share's bounds."""

    name: str
    predicted: tuple[float, ...]
    observed: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    is_merged: bool


def intervals(marks: Sequence[Mark], *, name: str, digits: int = 5, signed: bool = True) -> str:
    """A row for each mark: its label, its value and interval on a common axis with zero, its value in figures."""
    known = [value for mark in marks for value in (mark.value, mark.low, mark.high) if value is not None]
    low, high = min([0.0, *known]), max([0.0, *known])
    room = max((high - low) * 0.04, _LEAST_ROOM)
    axis = Axis(low=low - room, high=high + room, start=_LABEL_WIDTH + 4, stop=WIDTH - _VALUE_WIDTH - 6)
    bottom = 6 + _ROW * len(marks)
    values = ticks(axis.low, axis.high, most=4)
    if len(max(drawing.tick_names(values), key=len)) > 6:
        values = ticks(axis.low, axis.high, most=3)
    body = [drawing.x_grid(axis, top=4, bottom=bottom, values=values)]
    body.append(drawing.line(axis.at(0), 4, axis.at(0), bottom, "zero"))
    for place, mark in enumerate(marks):
        middle = 6 + _ROW * (place + 0.5)
        body.append(
            drawing.text(_LABEL_WIDTH, middle + 4, mark.label, anchor="end", classes="strong", letters=_LETTERS)
        )
        if mark.value is None:
            continue
        kind = "loud" if mark.is_loud else "quiet"
        if mark.low is not None and mark.high is not None:
            body.append(drawing.line(axis.at(mark.low), middle, axis.at(mark.high), middle, f"bar {kind}"))
        else:
            body.append(drawing.line(axis.at(0), middle, axis.at(mark.value), middle, f"bar {kind}"))
        hint = f"{mark.label}: {number(mark.value, digits, signed=signed)}"
        body.append(drawing.dot(axis.at(mark.value), middle, 4, kind, hint=hint, chart=name))
        body.append(drawing.text(WIDTH, middle + 4, number(mark.value, digits, signed=signed), anchor="end"))
    return drawing.svg(WIDTH, bottom + 22, body, label=name)


def size_curve(curve: Mapping[str, Any], *, name: str) -> str:
    """Mean, spread and range over the subsets of each size, the best ones, and the fit, dashed where extrapolated."""
    points, fit = curve["points"], curve["fit"]
    last, most = points[-1]["size"], fit["size"] if fit else points[-1]["size"]
    values = [point[key] for point in points for key in ("lowest", "highest")]
    if fit:
        values += [fit["at"]["value"], *([] if fit["is_at_edge"] else [fit["limit"]["value"]])]
    room = max((max(values) - min(values)) * 0.06, _LEAST_ROOM)
    x = Axis(low=0.5, high=most + 0.5, start=60, stop=WIDTH - 8)
    y = Axis(low=min(values) - room, high=max(values) + room, start=216, stop=8)
    left, body = x.at(last + 0.5), []
    if fit:
        body.append(f'<rect class="beyond" x="{left:.1f}" y="8" width="{WIDTH - 8 - left:.1f}" height="208"/>')
    body.append(drawing.y_grid(y, left=60, right=WIDTH - 8))
    for low, high, kind in (("lowest", "highest", "range"), ("minus", "plus", "spread")):
        ends = [
            point | {"minus": point["mean"] - point["spread"], "plus": point["mean"] + point["spread"]}
            for point in points
        ]
        corners = [(x.at(one["size"]), y.at(one[low])) for one in ends]
        corners += [(x.at(one["size"]), y.at(one[high])) for one in reversed(ends)]
        body.append(f'<polygon class="{kind}" points="{drawing.path(corners)}"/>')
    if fit:
        body += _fit_lines(fit, x, y, last=last)
    small = 1.0 if most <= 24 else 0.6
    for point in points:
        where, size = x.at(point["size"]), point["size"]
        hint = f"best of {size}: {number(point['best_value'])}"
        body.append(drawing.dot(where, y.at(point["best_value"]), 3.0 * small, "ring", hint=hint))
        hint = f"{size}: mean {number(point['mean'])} over {point['num_subsets']} subsets"
        body.append(drawing.dot(where, y.at(point["mean"]), 3.5 * small, "loud", hint=hint, chart=name))
    for size in sizes_to_name(most):
        body.append(drawing.text(x.at(size), 232, str(size), anchor="middle"))
    body.append(drawing.text((60 + WIDTH - 8) / 2, 248, "members merged", anchor="middle"))
    return drawing.svg(WIDTH, 252, body, label=name)


def sizes_to_name(most: int) -> list[int]:
    """Sizes that are written under a curve: all of few, round ones of many."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 1_000_000) if most / step <= 13)
    return [size for size in range(1, most + 1) if size % step == 0 or (size == 1 and step != 2)]


def _fit_lines(fit: Mapping[str, Any], x: Axis, y: Axis, *, last: int) -> list[str]:
    def along(first: float, stop: float) -> str:
        sizes = [first + (stop - first) * place / 60 for place in range(61)]
        at = [fit["limit"]["value"] + fit["scale"] / size ** fit["exponent"] for size in sizes]
        return drawing.path([(x.at(size), y.at(value)) for size, value in zip(sizes, at, strict=True)])

    body = [
        f'<polyline class="fit" points="{along(1, last)}"/>',
        f'<polyline class="fit dashed" data-chart="extrapolated" points="{along(last, fit["size"])}"/>',
    ]
    if not fit["is_at_edge"]:
        limit = y.at(fit["limit"]["value"])
        body.append(drawing.line(60, limit, WIDTH - 8, limit, "limit"))
    return body


def matrix(names: Sequence[str], values: Sequence[Sequence[float | None]], *, name: str, digits: int) -> str:
    """A square for each pair of members, darker where more; columns by number."""
    many = len(names)
    cell = max(13, min(38, 390 // many))
    apart = [
        one for row, line in enumerate(values) for column, one in enumerate(line) if row != column and one is not None
    ]
    low, high = (min(apart), max(apart)) if apart else (0.0, 1.0)
    left, top = 118, 20
    body = []
    step = 1 if many <= 20 else 5
    for row, line in enumerate(values):
        middle = top + cell * (row + 0.5) + 4
        size = "" if cell >= 13 else "tiny"
        body.append(
            drawing.text(
                left - 6, middle, f"{row + 1} {names[row]}", anchor="end", classes=f"strong {size}", letters=16
            )
        )
        if (row + 1) % step == 0 or row == 0:
            body.append(drawing.text(left + cell * (row + 0.5), 14, str(row + 1), anchor="middle"))
        for column, value in enumerate(line):
            place = (
                f'x="{left + cell * column + 0.5}" y="{top + cell * row + 0.5}" width="{cell - 1}" height="{cell - 1}"'
            )
            if row == column or value is None:
                body.append(f'<rect class="none" {place}/>')
                continue
            strength = 0.08 + 0.72 * ((value - low) / (high - low) if high > low else 0.5)
            hint = escape(f"{names[row]}, {names[column]}: {number(value, digits + 1)}")
            fill = f'style="fill:rgba(var(--hot),{strength:.3f})"'
            body.append(f'<rect data-chart="{escape(name)}" {place} rx="2" {fill}><title>{hint}</title></rect>')
            if many <= 12:
                shown = number(value, digits).replace("0.", ".", 1)
                body.append(drawing.text(left + cell * (column + 0.5), middle, shown, anchor="middle", classes="cell"))
    width = left + cell * many + 2
    return drawing.svg(width, top + cell * many + 4, body, label=name, classes="matrix", style=f"width:{width}px")


def reliability(lines: Sequence[Line], *, name: str) -> str:
    """Observed over predicted rates, on axes that give small rates more room; merged with its intervals."""
    merged = [line for line in lines if line.is_merged]
    most = max(
        [value for line in lines for value in (*line.predicted, *line.observed)] + [v for m in merged for v in m.high]
    )
    x = Axis(low=0.0, high=most, start=46, stop=WIDTH - 8, bend=math.sqrt)
    y = Axis(low=0.0, high=most, start=300, stop=8, bend=math.sqrt)
    body = [_rates(x, y, most=most), drawing.line(x.at(0), y.at(0), x.at(most), y.at(most), "limit")]
    for line in sorted(lines, key=lambda line: line.is_merged):
        body += _curve_of(line, x, y, line.observed, name=name, bounds=(line.low, line.high))
    body.append(drawing.text(213, 334, "predicted", anchor="middle"))
    return drawing.svg(WIDTH, 338, body, label=name)


def reliability_ratio(lines: Sequence[Line], *, name: str) -> str:
    """Observed as a multiple of predicted rates; a member that leaves the picture is cut at its edge."""
    merged = [line for line in lines if line.is_merged]
    shown = [
        bound / chance
        for line in merged
        for chance, *bounds in zip(line.predicted, line.low, line.high, strict=True)
        if chance > 0
        for bound in bounds
    ]
    far = min(max([abs(one - 1) for one in shown] + [0.05]) * 1.1, 1.0)
    most = max(value for line in lines for value in line.predicted)
    x = Axis(low=0.0, high=most, start=46, stop=WIDTH - 8, bend=math.sqrt)
    y = Axis(low=1 - far, high=1 + far, start=300, stop=8)

    def ratio(values: tuple[float, ...], line: Line) -> tuple[float, ...]:
        found = [value / chance if chance > 0 else 1.0 for value, chance in zip(values, line.predicted, strict=True)]
        return tuple(min(max(one, y.low), y.high) for one in found)

    body = [
        drawing.y_grid(y, left=46, right=WIDTH - 8),
        _rates(x, None, most=most),
        drawing.line(46, y.at(1), WIDTH - 8, y.at(1), "limit"),
    ]
    for line in sorted(lines, key=lambda line: line.is_merged):
        bounds = (ratio(line.low, line), ratio(line.high, line))
        body += _curve_of(line, x, y, ratio(line.observed, line), name=name, bounds=bounds)
    body.append(drawing.text(213, 334, "predicted", anchor="middle"))
    return drawing.svg(WIDTH, 338, body, label=name)


def _curve_of(
    line: Line,
    x: Axis,
    y: Axis,
    values: tuple[float, ...],
    *,
    name: str,
    bounds: tuple[tuple[float, ...], tuple[float, ...]],
) -> list[str]:
    corners = [(x.at(chance), y.at(value)) for chance, value in zip(line.predicted, values, strict=True)]
    if not line.is_merged:
        mark, hint = f'data-chart="{escape(name)}-members"', f"<title>{escape(line.name)}</title>"
        return [f'<polyline class="member" {mark} points="{drawing.path(corners)}">{hint}</polyline>']
    body = []
    for (across, up), chance, observed, low, high in zip(corners, line.predicted, line.observed, *bounds, strict=True):
        body.append(drawing.line(across, y.at(low), across, y.at(high), "bar loud thin"))
        body.append(
            drawing.dot(
                across, up, 3, "loud", hint=f"predicted {number(chance, 4)}, observed {number(observed, 4)}", chart=name
            )
        )
    return body


def _rates(x: Axis, y: Axis | None, *, most: float) -> str:
    """Grid and names of rates; on a bent axis, at places that are about evenly far apart."""
    wanted = [most * (place / 5) ** 2 for place in range(1, 6)]
    names = {0.0, *(_rounded(value) for value in wanted if _rounded(value) <= most)}
    body = []
    for value in sorted(names):
        shown = f"{value:g}"
        body.append(drawing.text(x.at(value), 317, shown, anchor="middle"))
        if y is not None:
            body.append(drawing.line(x.start, y.at(value), x.stop, y.at(value), "grid"))
            body.append(drawing.text(x.start - 5, y.at(value) + 4, shown, anchor="end"))
    return "".join(body)


def _rounded(value: float) -> float:
    return float(f"{value:.1g}")
