"""Pictures of a study as a whole: where it fits, what quality costs, and when tables outgrow machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from trainer.analysis import drawing
from trainer.analysis.drawing import WIDTH, Axis, ticks
from trainer.planning.page.charts import (
    BOTTOM,
    LEFT,
    LETTER,
    RIGHT,
    TOP,
    Caption,
    framed,
    log_axis,
    log_grid,
    log_ticks,
)
from trainer.planning.page.words import short

_LINE = 13.0  # between two lines of text
_WIDE_LETTER = 7.2  # of names in capitals
_NAME = 52.0  # room for the name of the leftmost point


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A point of the feasible region."""

    row: str
    column: str
    shown: str
    hint: str
    filled: float | None  # share of memory that is taken
    refusal: str = ""  # why it does not fit; empty: it fits


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A point of quality against cost."""

    across: float
    up: float
    label: str
    hint: str
    half: float = 0.0  # of the interval
    is_front: bool = False


@dataclass(frozen=True, kw_only=True)
class Level:
    """What tables may grow to on some machines."""

    label: str
    value: float
    month: float | None  # when they reach it; None: they do not
    hint: str


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Tables that grow by a share each month."""

    start: float
    factor: float  # a month
    label: str


def region(cells: Sequence[Cell], *, caption: Caption) -> str:
    """A field for each point: fuller memory is darker; what does not fit is hatched."""
    rows, columns = (list(dict.fromkeys(getattr(cell, key) for cell in cells)) for key in ("row", "column"))
    left = min(140.0, max(len(word) for word in [caption.up, *rows]) * _WIDE_LETTER + 10)
    wide = max(min(64.0, (WIDTH - left - 4) / len(columns)), 34.0 if len(columns) <= 24 else 15.0)
    high, top = 28.0, 20.0
    body = [drawing.text(0, 12, caption.up)]
    step = -(-int(max(len(column) for column in columns) * LETTER + 4) // int(wide))
    for place, column in enumerate(columns):
        if place % step == 0:
            body.append(drawing.text(left + wide * (place + 0.5), 12, column, anchor="middle", classes="strong"))
    for place, row in enumerate(rows):
        where = top + high * (place + 0.5) + 4
        body.append(
            drawing.text(left - 6, where, row, anchor="end", classes="strong", letters=int((left - 6) / _WIDE_LETTER))
        )
    for cell in cells:
        x, y = left + wide * columns.index(cell.column), top + high * rows.index(cell.row)
        strength = 0.12 + 0.6 * min(cell.filled or 0.0, 1.0)
        style = "" if cell.refusal else f' style="fill:rgba(var(--fit),{strength:.2f})"'
        classes = f"cell-of r-{cell.refusal}" if cell.refusal else "cell-of"
        place_of = f'x="{x + 0.5:.1f}" y="{y + 0.5:.1f}" width="{wide - 1:.1f}" height="{high - 1:.1f}" rx="2"'
        body.append(
            f'<rect class="{escape(classes)}" data-chart="{escape(caption.name)}" {place_of}{style}>'
            f"<title>{escape(cell.hint)}</title></rect>"
        )
        if len(cell.shown) * LETTER <= wide:
            middle = (x + wide / 2, y + high / 2 + 4)
            body.append(drawing.text(*middle, cell.shown, anchor="middle", classes="cell through"))
    width, height = left + wide * len(columns) + 2, top + high * len(rows) + 20
    body.append(drawing.text(left + wide * len(columns) / 2, height - 5, caption.across, anchor="middle"))
    width = max(width, 150.0)
    style = f"width:{width:.0f}px"
    return drawing.svg(width, height, body, label=caption.told, told=caption.told, classes="matrix", style=style)


def front(dots: Sequence[Dot]) -> list[Dot]:
    """Those that no other is both cheaper and better than, from cheap to dear."""
    found: list[Dot] = []
    for dot in sorted(dots, key=lambda one: (one.across, -one.up)):
        if not found or dot.up > found[-1].up:
            found.append(dot)
    return found


def quality(dots: Sequence[Dot], *, caption: Caption) -> str:
    """Quality against cost; the front is drawn, and named by members."""
    across = [dot.across for dot in dots]
    bounds = [bound for dot in dots for bound in (dot.up - dot.half, dot.up + dot.half)]
    room = max((max(bounds) - min(bounds)) * 0.08, 1e-6)
    is_log = min(across) > 0 and max(across) > 8 * min(across)
    edge = (max(across) - min(across)) * 0.08 or max(across) * 0.5 or 1.0
    if is_log:
        x = log_axis(min(across), max(across), start=LEFT + _NAME, stop=RIGHT)
    else:
        x = Axis(low=max(0.0, min(across) - edge), high=max(across) + edge, start=LEFT + _NAME, stop=RIGHT)
    y = Axis(low=min(bounds) - room, high=max(bounds) + room, start=BOTTOM, stop=TOP)
    body = [drawing.y_grid(y, left=LEFT, right=RIGHT)]
    for value in log_ticks(x.low, x.high) if is_log else ticks(x.low, x.high, most=4):
        body.append(drawing.line(x.at(value), TOP, x.at(value), BOTTOM, "grid"))
        body.append(drawing.text(x.at(value), BOTTOM + 16, short(value) if value else "0", anchor="middle"))
    best = [dot for dot in dots if dot.is_front]
    corners = [(x.at(dot.across), y.at(dot.up)) for dot in best]
    steps = [corner for one, two in zip(corners, corners[1:], strict=False) for corner in (one, (two[0], one[1]))]
    body.append(f'<polyline class="s2 line" points="{drawing.path([*steps, *corners[-1:]])}"/>')
    for dot in sorted(dots, key=lambda one: one.is_front):
        where, up = x.at(dot.across), y.at(dot.up)
        if dot.half and dot.is_front:
            body.append(drawing.line(where, y.at(dot.up - dot.half), where, y.at(dot.up + dot.half), "spread-line"))
        name = caption.name if dot.is_front else f"{caption.name}-others"
        kind = "front" if dot.is_front else "quiet"
        body.append(drawing.dot(where, up, 4 if dot.is_front else 2.6, kind, hint=dot.hint, chart=name))
    body += _apart([(x.at(dot.across) - 6, y.at(dot.up) - 6, dot.label) for dot in best])
    return framed(body, caption)


def growth(curves: Sequence[Growth], levels: Sequence[Level], *, months: int, caption: Caption) -> str:
    """Tables over months on a logarithmic axis, against what machines hold; a dot where they are outgrown."""
    ends = [value for curve in curves for value in (curve.start, curve.start * curve.factor**months)]
    near = [level.value for level in levels]
    every = range(0, months + 1, 6 if months <= 48 else 12 if months <= 120 else 24)
    x = Axis(low=0.0, high=months, start=LEFT, stop=RIGHT - 8)
    y = log_axis(min([*ends, *near]), max([*ends, *near]), start=BOTTOM, stop=TOP)
    body = [
        log_grid(y, shown=lambda value: f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"),
        drawing.x_grid(x, top=TOP, bottom=BOTTOM, values=every),
    ]
    for place, curve in enumerate(curves):
        points = [(x.at(month), y.at(curve.start * curve.factor**month)) for month in (0, months)]
        hint = f"<title>{escape(curve.label)}</title>"
        body.append(f'<polyline class="s{place % 8} line" points="{drawing.path(points)}">{hint}</polyline>')
    for level in levels:
        body.append(drawing.line(LEFT, y.at(level.value), RIGHT, y.at(level.value), "capacity"))
        if level.month is not None and level.month <= months:
            where = (x.at(level.month), y.at(level.value))
            body.append(drawing.dot(*where, 4, "front", hint=level.hint, chart=caption.name))
    names = []
    for level in levels:  # named in the half that their crossing is not in
        is_early = level.month is not None and level.month < months / 2
        end = x.stop if is_early else LEFT + 6 + len(level.label) * LETTER
        names.append((end, y.at(level.value) - 4, level.label))
    body += _apart(sorted(names, key=lambda one: -one[1]))
    return framed(body, caption)


def _apart(labels: Sequence[tuple[float, float, str]]) -> list[str]:
    """Labels that end at their places, each moved up or left out where it would cover one before it."""
    drawn: list[tuple[float, float, float]] = []
    body = []
    for x, y, label in labels:
        start = x - len(label) * LETTER
        for lift in range(4):
            where = y - lift * _LINE
            is_free = all(abs(where - other) >= _LINE or x < left or start > right for left, right, other in drawn)
            if is_free and where > TOP - 4:
                drawn.append((start, x, where))
                body.append(drawing.text(x, where, label, anchor="end", classes="halo"))
                break
    return body
