"""Charts of a study as SVG text: stacked bars, bars, and lines over ranks. Colours are classes of the page's style."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from trainer.analysis import drawing
from trainer.analysis.drawing import WIDTH, Axis, ticks
from trainer.planning.page.words import short

LEFT, RIGHT, TOP, BOTTOM = 56.0, WIDTH - 8.0, 14.0, 222.0
HEIGHT = 262
LETTER = 6.4  # of the page's chart text, in units of the drawing
_LOG_ROOM = 1.15


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar of parts; or one that stands for something that does not fit."""

    label: str
    parts: Mapping[str, float]  # kind -> value, drawn from below in this order
    hint: str
    total: float | None = None  # marked across the bar
    refused_at: float | None = None  # drawn hatched up to here


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A level that bars are held against."""

    label: str
    value: float
    classes: str = "capacity"


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Values over ranks."""

    name: str
    place: int  # of its series: its colour and shape, the same in all charts
    ranks: tuple[int, ...]
    values: tuple[float, ...]
    hints: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What a chart is called by tests, and what it says to people."""

    name: str
    told: str
    across: str = ""  # below the x axis, with its unit
    up: str = ""  # above the y axis, with its unit


def stacked(bars: Sequence[Bar], *, limits: Sequence[Limit] = (), caption: Caption) -> str:
    """Bars side by side, parts on top of each other, limits across them all."""
    tops = [max(sum(bar.parts.values()), bar.total or 0.0) for bar in bars]
    least = max([*tops, *(limit.value for limit in limits)]) or 1.0
    cut = least * 1.3  # what does not fit by far is cut, not drawn to scale
    reach = max([least, *(min(bar.refused_at, cut) for bar in bars if bar.refused_at is not None)])
    y = Axis(low=0.0, high=reach * 1.06, start=BOTTOM, stop=TOP)
    slot = (RIGHT - LEFT) / len(bars)
    wide = min(slot * 0.72, 46.0)
    body = [drawing.y_grid(y, left=LEFT, right=RIGHT), _labels([bar.label for bar in bars], slot=slot)]
    for place, bar in enumerate(bars):
        left = LEFT + slot * (place + 0.5) - wide / 2
        body += _bar(bar, y, left=left, wide=wide, name=caption.name, cut=cut)
    for limit in limits:
        body.append(drawing.line(LEFT, y.at(limit.value), RIGHT, y.at(limit.value), limit.classes))
        body.append(drawing.text(RIGHT, y.at(limit.value) - 4, limit.label, anchor="end", classes="halo"))
    return framed(body, caption)


def _bar(bar: Bar, y: Axis, *, left: float, wide: float, name: str, cut: float) -> list[str]:
    hint = f"<title>{escape(bar.hint)}</title>"
    if bar.refused_at is not None:
        top = y.at(min(bar.refused_at, cut))
        body = [_rect("refused", left, top, wide, BOTTOM - top, hint, name=f"{name}-refused")]
        if bar.refused_at > cut and wide >= 12:
            body.append(drawing.text(left + wide / 2, top + 13, "↑", anchor="middle", classes="strong"))
        return body
    body, below = [], 0.0
    for kind, count in bar.parts.items():
        if count > 0:
            top, foot = y.at(below + count), y.at(below)
            body.append(_rect(f"k-{kind}", left, top, wide, foot - top, ""))
            below += count
    whole = y.at(max(below, bar.total or 0.0))
    if bar.total is not None:
        body.append(drawing.line(left - 3, y.at(bar.total), left + wide + 3, y.at(bar.total), "total"))
    body.append(_rect("over", left, whole, wide, BOTTOM - whole, hint, name=name))
    return body


def _labels(labels: Sequence[str], *, slot: float) -> str:
    """Names below bars: all where they have room; numbers are thinned out, words are cut."""
    longest = max(len(label) for label in labels) * LETTER + 4
    is_numeric = all(label.replace(",", "").replace(".", "").isdigit() for label in labels)
    step = math.ceil(longest / slot) if is_numeric else max(1, math.ceil(26 / slot))
    letters = 0 if is_numeric else max(3, int(slot * step / LETTER))
    return "".join(
        drawing.text(LEFT + slot * (place + 0.5), BOTTOM + 16, label, anchor="middle", letters=letters)
        for place, label in enumerate(labels)
        if place % step == 0
    )


def over_ranks(curves: Sequence[Curve], *, caption: Caption) -> str:
    """Values over ranks, both on logarithmic axes; dashed: as if each rank added what the first ones do."""
    ranks = sorted({one for curve in curves for one in curve.ranks})
    found = [value for curve in curves for value in curve.values]
    ideal = [curve.values[0] * curve.ranks[-1] / curve.ranks[0] for curve in curves]
    x = log_axis(ranks[0], ranks[-1], start=LEFT, stop=RIGHT)
    y = log_axis(min(found), max([*found, *ideal]), start=BOTTOM, stop=TOP)
    body = [log_grid(y), _rank_grid(x, ranks)]
    for curve, whole in zip(curves, ideal, strict=True):
        corners = [(x.at(rank), y.at(value)) for rank, value in zip(curve.ranks, curve.values, strict=True)]
        if len(corners) > 1:
            ends = [corners[0], (x.at(curve.ranks[-1]), y.at(whole))]
            body.append(f'<polyline class="s{curve.place % 8} line dashed" points="{drawing.path(ends)}"/>')
            body.append(f'<polyline class="s{curve.place % 8} line" points="{drawing.path(corners)}"/>')
    for curve in curves:
        for rank, value, hint in zip(curve.ranks, curve.values, curve.hints, strict=True):
            body.append(mark(x.at(rank), y.at(value), curve.place, hint=hint, name=caption.name))
    return framed(body, caption)


def mark(x: float, y: float, place: int, *, hint: str, name: str) -> str:
    """A series' mark, told apart by colour and by shape."""
    shapes = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6"',
        f'<rect x="{x - 3.3:.1f}" y="{y - 3.3:.1f}" width="6.6" height="6.6"',
        f'<polygon points="{x:.1f},{y - 4.6:.1f} {x + 4.3:.1f},{y + 3:.1f} {x - 4.3:.1f},{y + 3:.1f}"',
        f'<polygon points="{x:.1f},{y - 4.8:.1f} {x + 4.8:.1f},{y:.1f} {x:.1f},{y + 4.8:.1f} {x - 4.8:.1f},{y:.1f}"',
    )
    shape = shapes[place % len(shapes)]
    closing = shape[1 : shape.index(" ")]
    return f'{shape} class="s{place % 8} mark" data-chart="{escape(name)}"><title>{escape(hint)}</title></{closing}>'


def log_axis(low: float, high: float, *, start: float, stop: float) -> Axis:
    """A logarithmic axis with some room at both ends."""
    room = max(_LOG_ROOM, (high / low) ** 0.04)
    return Axis(low=low / room, high=high * room, start=start, stop=stop, bend=math.log10)


def log_ticks(low: float, high: float) -> list[float]:
    """Round values between two, about five: powers of ten, or with twos and fives, or evenly apart."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1,), (1, 3), (1, 2, 5)):
        found = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
        found = [one for one in found if low <= one <= high]
        if len(found) >= 3:
            return found[:: math.ceil(len(found) / 7)]
    return ticks(low, high)


def log_grid(y: Axis, *, shown: Callable[[float], str] = short) -> str:
    """Level lines of a logarithmic axis, named."""
    return "".join(
        drawing.line(LEFT, y.at(value), RIGHT, y.at(value), "grid")
        + drawing.text(LEFT - 5, y.at(value) + 4, shown(value), anchor="end")
        for value in log_ticks(y.low, y.high)
    )


def _rank_grid(x: Axis, ranks: Sequence[int]) -> str:
    body, free = [], -math.inf
    for rank in ranks:
        where, shown = x.at(rank), f"{rank:,}"
        body.append(drawing.line(where, TOP, where, BOTTOM, "grid"))
        if where - len(shown) * LETTER / 2 >= free:
            body.append(drawing.text(where, BOTTOM + 16, shown, anchor="middle"))
            free = where + len(shown) * LETTER / 2 + 4
    return "".join(body)


def level_bars(bars: Sequence[Bar], shown: Sequence[str], *, caption: Caption) -> str:
    """Bars that lie, a row each, with their figures at the right."""
    row, label, figure = 22, 118.0, 66.0
    x = Axis(low=0.0, high=max(sum(bar.parts.values()) for bar in bars) or 1.0, start=label + 6, stop=WIDTH - figure)
    body = []
    for place, (bar, told) in enumerate(zip(bars, shown, strict=True)):
        middle = 6 + row * (place + 0.5)
        body.append(drawing.text(label, middle + 4, bar.label, anchor="end", classes="strong", letters=16))
        for kind, value in bar.parts.items():
            hint = f"<title>{escape(bar.hint)}</title>"
            body.append(
                _rect(f"k-{kind}", x.start, middle - 7, max(x.at(value) - x.start, 1.0), 14, hint, name=caption.name)
            )
        body.append(drawing.text(WIDTH, middle + 4, told, anchor="end"))
    return drawing.svg(WIDTH, 12 + row * len(bars), body, label=caption.told, told=caption.told)


def _rect(classes: str, x: float, y: float, wide: float, high: float, hint: str, *, name: str = "") -> str:
    chart = f' data-chart="{escape(name)}"' if name else ""
    place = f'x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{max(high, 0.0):.1f}"'
    return f'<rect class="{escape(classes)}"{chart} {place}>{hint}</rect>'


def framed(body: Sequence[str], caption: Caption) -> str:
    """The body with what its axes are called."""
    called = [
        drawing.line(LEFT, BOTTOM, RIGHT, BOTTOM, "zero"),
        drawing.text((LEFT + RIGHT) / 2, BOTTOM + 34, caption.across, anchor="middle"),
        drawing.text(0, 9, caption.up),
    ]
    return drawing.svg(WIDTH, HEIGHT, [*body, *called], label=caption.told, told=caption.told)
