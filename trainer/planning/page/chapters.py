"""The page's chapters on the points: memory, pace, the parts of a step, traffic, where it fits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from trainer.planning.page import charts, maps, selection, words
from trainer.planning.page.charts import Bar, Caption, Curve, Limit
from trainer.planning.page.selection import HARDWARE, PURPOSES, RANKS, Panel, Point
from trainer.planning.page.words import KINDS, LINKS, PHASES, REFUSALS, panel_title, size, unit_of

Study = Mapping[str, Any]
_MOST_PANELS = 4  # of a purpose
_MOST_LINES = 8  # told apart by colour and shape
_MOST_OF_PACE = 2  # of a purpose, where a picture holds several machines or all ranks


def memory(study: Study) -> str:
    """Bytes of the fullest rank by kind, against members."""
    drawn, kinds, notes = [], set(), ""
    for purpose, points in _of_purposes(study):
        along = selection.main_key(points) or RANKS
        found = selection.panels(points, along=[along, *([] if along == RANKS else [RANKS])])
        found = [selection.best_ranks(panel) if along != RANKS else panel for panel in found]
        for panel in _first(study, purpose, found):
            kinds |= {kind for point in panel.points for kind in selection.held_bytes(point)}
            drawn.append((_title(purpose, panel), _memory_chart(panel, along, _title(purpose, panel))))
        notes += _left_out(purpose, found)
    text = (
        "Bytes of the rank that holds the most, as it computes. The full line is what a rank has; what lies above the"
        " dashed line is kept free. Hatched: does not fit, drawn up to what it would need."
    )
    entries = [(f"k-{kind}", label) for kind, label in KINDS.items() if kind in kinds and kind != "reserve"]
    if not all(point["fits"] for point in study["points"]):
        entries.append(("hatch-legend", "does not fit"))
    return "" if not drawn else section("Memory of a rank", text, grid(drawn), legend(entries), notes)


def _memory_chart(panel: Panel, along: str, title: str) -> str:
    capacity = max(point["capacity_bytes"] for point in panel.points)
    unit, factor = unit_of(capacity)
    bars = []
    for point in panel.points:
        held = {kind: count / factor for kind, count in selection.held_bytes(point).items() if kind != "reserve"}
        told = "; ".join(
            f"{KINDS.get(kind, kind)} {size(count)}" for kind, count in selection.held_bytes(point).items()
        )
        label = words.short_setting(point, along)
        if point["refusal"] is None:
            bars.append(Bar(label=label, parts=held, hint=f"{words.setting(along, _at(point, along))}: {told}"))
            continue
        needed = max(selection.filled(point) or 0.0, 1.03) if point["refusal"]["where"] == "device" else 1.03
        hint = f"{words.setting(along, _at(point, along))} does not fit: {words.refused(point)}"
        bars.append(Bar(label=label, parts={}, hint=hint, refused_at=needed * capacity / factor))
    limits = [Limit(label=f"{size(capacity)} of a rank", value=capacity / factor)] if capacity else []
    reserve = max((selection.held_bytes(point).get("reserve", 0) for point in panel.points), default=0)
    if reserve:
        free = Limit(label="", value=(capacity - reserve) / factor, classes="capacity dashed")
        limits.append(free)
    caption = Caption(name="memory", told=f"Memory of the fullest rank, {title}", across=along, up=unit)
    return charts.stacked(bars, limits=limits, caption=caption)


def pace(study: Study) -> str:
    """Rows a second over ranks."""
    drawn, notes = [], ""
    for purpose, points in _of_purposes(study):
        fitting = [point for point in points if point["fits"] and point["rows_per_second"] > 0]
        if len(selection.values(fitting, RANKS)) < 2:
            continue
        lines = HARDWARE if len(selection.values(fitting, HARDWARE)) > 1 else selection.main_key(fitting)
        names = selection.values(fitting, lines) if lines else [None]
        every = -(-len(names) // _MOST_LINES)
        found = selection.panels(fitting, along=[lines, RANKS])
        for panel in _first(study, purpose, found, most=_MOST_OF_PACE):
            curves = [_pace_of(panel, lines, place, name) for place, name in enumerate(names[::every])]
            curves = [curve for curve in curves if curve.ranks]
            title = _title(purpose, panel)
            caption = Caption(name="pace", told=f"Rows per second over ranks, {title}", across="ranks", up="rows/s")
            entries = [(f"s{curve.place % 8}", curve.name) for curve in curves if curve.name]
            drawn.append((title, charts.over_ranks(curves, caption=caption) + legend(entries)))
        if every > 1:
            notes += f'<p class="more">{escape(f"{PURPOSES[purpose]}: of {lines} one in {every} is drawn.")}</p>'
        notes += _left_out(purpose, found, most=_MOST_OF_PACE)
    text = (
        "Rows per second of all ranks together, both axes logarithmic. Dashed: as if every rank added as much as the"
        " first ones do."
    )
    return section("Rows per second", text, grid(drawn), notes) if drawn else ""


def _pace_of(panel: Panel, lines: str | None, place: int, name: Any) -> Curve:
    points = [point for point in panel.points if lines is None or selection.value(point, lines) == name]
    return Curve(
        place=place,
        name="" if lines is None else words.setting(lines, name),
        ranks=tuple(point["world_size"] for point in points),
        values=tuple(point["rows_per_second"] for point in points),
        hints=tuple(f"{words.machines(point)}: {words.pace(point)}" for point in points),
    )


def step(study: Study) -> str:
    """The parts of a step."""
    drawn: list[tuple[str, str]] = []
    phases: set[str] = set()
    notes = ""
    for purpose, along, found in _bar_panels(study):
        for panel in _first(study, purpose, found, most=_MOST_OF_PACE):
            phases |= {phase for point in panel.points for phase in point["step_seconds"] if phase != "total"}
            bars, unit = _step_bars(panel, along)
            title = _title(purpose, panel)
            caption = Caption(name="step", told=f"Time of a step by part, {title}", across=along, up=unit)
            drawn.append((title, charts.stacked(bars, caption=caption)))
        notes += _left_out(purpose, found, most=_MOST_OF_PACE)
    text = (
        "A step of the slowest rank. The parts are stacked as if nothing overlapped; the line across a bar is what the"
        " step takes as the machine overlaps them."
    )
    entries = [(f"k-{phase}", label) for phase, label in PHASES.items() if phase in phases]
    return section("What a step's time goes into", text, grid(drawn), legend(entries), notes) if drawn else ""


def _step_bars(panel: Panel, along: str) -> tuple[list[Bar], str]:
    longest = max(sum(point["step_seconds"].values()) for point in panel.points)
    unit, factor = ("s", 1.0) if longest >= 2 else ("ms", 1e3) if longest >= 2e-3 else ("µs", 1e6)
    bars = []
    for point in panel.points:
        steps = point["step_seconds"]
        parts = {phase: steps[phase] * factor for phase in PHASES if phase in steps}
        told = "; ".join(f"{PHASES[phase]} {words.seconds(steps[phase])}" for phase in parts)
        hint = f"{words.setting(along, _at(point, along))}: {told}; overlapped {words.seconds(steps['total'])}"
        label = words.short_setting(point, along)
        bars.append(Bar(label=label, parts=parts, hint=hint, total=steps["total"] * factor))
    return bars, unit


def traffic(study: Study) -> str:
    """What a rank sends over which link."""
    drawn: list[tuple[str, str]] = []
    links: set[str] = set()
    notes = ""
    for purpose, along, found in _bar_panels(study):
        sending = [panel for panel in found if any(sum(one["sent_bytes_per_step"].values()) for one in panel.points)]
        for panel in _first(study, purpose, sending, most=_MOST_OF_PACE):
            links |= {link for one in panel.points for link, count in one["sent_bytes_per_step"].items() if count}
            bars, unit = _traffic_bars(panel, along)
            title = _title(purpose, panel)
            caption = Caption(name="traffic", told=f"Bytes sent in a step by link, {title}", across=along, up=unit)
            drawn.append((title, charts.stacked(bars, caption=caption)))
        notes += _left_out(purpose, sending, most=_MOST_OF_PACE)
    text = "Bytes that the busiest rank sends to others in a step: within its host, and to other hosts."
    entries = [(f"k-{link}", label) for link, label in LINKS.items() if link in links]
    return section("Traffic between ranks", text, grid(drawn), legend(entries), notes) if links else ""


def _traffic_bars(panel: Panel, along: str) -> tuple[list[Bar], str]:
    unit, factor = unit_of(max(sum(point["sent_bytes_per_step"].values()) for point in panel.points))
    bars = []
    for point in panel.points:
        sent, seconds = point["sent_bytes_per_step"], point["step_seconds"]["total"]
        told = [
            f"{size(count)} {LINKS.get(link, link)}"
            + (f" ({size(count / seconds)}/s over the step)" if seconds else "")
            for link, count in sent.items()
            if count
        ]
        hint = f"{words.setting(along, _at(point, along))}: {'; '.join(told) or 'nothing is sent'}"
        parts = {link: count / factor for link, count in sent.items()}
        bars.append(Bar(label=words.short_setting(point, along), parts=parts, hint=hint))
    return bars, unit


def region(study: Study) -> str:
    """Where it fits."""
    drawn, seen, notes = [], set(), ""
    for purpose, points in _of_purposes(study):
        others = [key for key in (selection.main_key(points), HARDWARE) if key in selection.dimensions(points)]
        if len(points) < 2 or not (others or RANKS in selection.dimensions(points)):
            continue
        down = others[0] if others else HARDWARE
        found = selection.panels(points, along=[down, RANKS])
        for panel in _first(study, purpose, found, most=6):
            cells = [_cell(point, down) for point in panel.points]
            seen |= {cell.refusal for cell in cells}
            title = _title(purpose, panel)
            up, across = (down, "ranks") if len(down) <= 14 else ("", f"{down} over ranks")
            caption = Caption(name="region", told=f"What fits, {title}", across=across, up=up)
            drawn.append((title, f'<div class="wide">{maps.region(cells, caption=caption)}</div>'))
        notes += _left_out(purpose, found, most=6)
    text = (
        "What fits: how much of its memory the fullest rank takes, with what is kept free; darker is fuller. Hatched:"
        " does not fit, with what it would need."
    )
    entries = [("region-fits", "fits")] * ("" in seen) + [
        (f"r-{one}", label) for one, label in REFUSALS.items() if one in seen
    ]
    return section("What fits", text, grid(drawn), legend(entries), notes) if drawn else ""


def _cell(point: Point, down: str) -> maps.Cell:
    filled, refusal = selection.filled(point), point["refusal"]
    if refusal is None:
        told = f"fits. {words.memory(point)}"
        shown = "" if filled is None else f"{filled * 100:.0f} %"
    else:
        told = f"does not fit: {words.refused(point)}"
        over = filled if filled is not None and filled >= 1.05 else None
        shown = "no" if over is None else f"{over:.1f}×" if over < 9.95 else f"{over:.0f}×"
    row = selection.value(point, down)
    return maps.Cell(
        row=f"{row:,}" if isinstance(row, int) and not isinstance(row, bool) else str(row),
        column=f"{point['world_size']:,}",
        shown=shown,
        hint=f"{words.setting(down, row)}, {words.setting(RANKS, point['world_size'])}: {told}",
        filled=filled,
        refusal="" if refusal is None else refusal["where"],
    )


def section(title: str, text: str, *body: str) -> str:
    """A chapter."""
    told = "".join(f"<p>{escape(paragraph)}</p>" for paragraph in text.splitlines())
    return f"<section><h2>{escape(title)}</h2>{told}{''.join(body)}</section>"


def grid(titled: Iterable[tuple[str, str]]) -> str:
    """Charts beside each other, as the page has room."""
    drawn = "".join(f"<div>{f'<h3>{escape(title)}</h3>' if title else ''}{chart}</div>" for title, chart in titled)
    return f'<div class="charts">{drawn}</div>'


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Classes and what they stand for."""
    told = "".join(f'<span><i class="{classes}"></i>{escape(label)}</span>' for classes, label in entries)
    return f'<div class="legend">{told}</div>' if entries else ""


def _of_purposes(study: Study) -> list[tuple[str, list[Point]]]:
    return [(purpose, selection.points_of(study, purpose)) for purpose in selection.purposes(study)]


def _bar_panels(study: Study) -> list[tuple[str, str, list[Panel]]]:
    """Purpose, what bars stand side by side for, and the panels of points that fit."""
    found = []
    for purpose, points in _of_purposes(study):
        fitting = [point for point in points if point["fits"] and point["step_seconds"]]
        if fitting:
            several = selection.dimensions(fitting)
            along = RANKS if RANKS in several or not several else selection.main_key(fitting) or HARDWARE
            found.append((purpose, along, selection.panels(fitting, along=[along])))
    return found


def _first(study: Study, purpose: str, found: Sequence[Panel], *, most: int = _MOST_PANELS) -> list[Panel]:
    return selection.nearest_first(found, selection.chosen_points(study, purpose).values())[:most]


def _left_out(purpose: str, found: Sequence[Panel], *, most: int = _MOST_PANELS) -> str:
    """What is not drawn, where more than the first are there."""
    more = len(found) - most
    if more <= 0:
        return ""
    told = f"{PURPOSES[purpose]}: {words.many(more, 'more combination')} of settings, in the table of all points."
    return f'<p class="more">{escape(told)}</p>'


def _title(purpose: str, panel: Panel) -> str:
    return ": ".join(part for part in (PURPOSES[purpose], panel_title(panel)) if part)


def _at(point: Point, along: str) -> Any:
    return selection.value(point, along)
