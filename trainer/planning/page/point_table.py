"""The table of all points: plain HTML, put in order by its heads where scripts may run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from trainer.analysis.drawing import number
from trainer.planning.page import selection, words
from trainer.planning.page.chapters import section
from trainer.planning.page.selection import PURPOSES, Point

SCRIPT = Path(__file__).with_name("sorting.js")
_GIB, _MIB = 2.0**30, 2.0**20


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column: its head, what is shown of a point, and what the column is put in order by."""

    head: str
    shown: Callable[[Point], str]
    key: Callable[[Point], float | None] | None = None  # None: as text
    classes: str = ""


def all_points(study: Mapping[str, Any]) -> str:
    """Every point that was looked at."""
    points = study["points"]
    if not points:
        return ""
    answers = {id(points[place]): told for place in range(len(points)) if (told := _chosen_as(study, place))}
    columns = _columns(points, answers)
    heads = "".join(
        f'<th scope="col"{_classes(column)} data-sort="{"text" if column.key is None else "number"}">'
        f"{escape(column.head)}</th>"
        for column in columns
    )
    body = "".join(_row(point, columns, is_answer=id(point) in answers) for point in points)
    fitting = sum(point["fits"] for point in points)
    text = (
        f"{words.many(len(points), 'point')}, of which {fitting:,} {'fits' if fitting == 1 else 'fit'}. A click on a"
        " head puts the rows in its order. A rank is the fullest one, what it"
        " takes or would take is without the reserve; a step is as the machine overlaps its parts."
    )
    table = f'<table class="sortable"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'
    return section("All points", text, f'<div class="wide tall" tabindex="0">{table}</div>')


def _columns(points: Sequence[Point], answers: Mapping[int, str]) -> list[Column]:
    keys = list(dict.fromkeys(key for point in points for key in point["swept"]))
    first = [
        Column(head="Machines", shown=lambda one: one["hardware"]),
        Column(head="Ranks", shown=lambda one: f"{one['world_size']:,}", key=lambda one: one["world_size"]),
        Column(head="Hosts", shown=lambda one: f"{one['num_hosts']:,}", key=lambda one: one["num_hosts"]),
    ]
    if len({point["purpose"] for point in points}) > 1:
        first.insert(0, Column(head="For", shown=lambda one: PURPOSES[one["purpose"]].lower()))
    if "members" not in keys:
        first.append(
            Column(head="Members", shown=lambda one: f"{one['num_members']:,}", key=lambda one: one["num_members"])
        )
    answer = Column(head="Answer", shown=lambda one: answers.get(id(one), ""), classes="answer")
    return [*first, *(_swept(key, points) for key in keys), *_found(points), answer, *_figures()]


def _swept(key: str, points: Sequence[Point]) -> Column:
    is_numeric = all(_is_number(point["swept"].get(key)) for point in points)
    return Column(
        head=key,
        shown=lambda one: words.short_setting(one, key) if key in one["swept"] else "–",
        key=(lambda one: float(one["swept"][key])) if is_numeric else None,
    )


def _found(points: Sequence[Point]) -> list[Column]:
    batch = Column(head="Batch rows", shown=lambda one: f"{one['batch_size']:,}", key=lambda one: one["batch_size"])
    is_swept = any(key.endswith("batch_size") for point in points for key in point["swept"])
    several = len({point["batch_size"] for point in points}) > 1 and not is_swept
    return [
        *([batch] if several else []),
        Column(head="Fits", shown=lambda one: "yes" if one["fits"] else "no"),
        Column(
            head="Tables (GiB)",
            shown=lambda one: _in(one["table_bytes"], _GIB),
            key=lambda one: one["table_bytes"],
        ),
        Column(head="Rank takes (GiB)", shown=lambda one: _in(_taken(one), _GIB), key=_taken),
        Column(
            head="Of, reserve off (GiB)",
            shown=lambda one: _in(selection.needed(one)[1], _GIB),
            key=lambda one: selection.needed(one)[1],
        ),
        Column(
            head="On its host (GiB)",
            shown=lambda one: _in(_of_host(one), _GIB),
            key=_of_host,
        ),
    ]


def _figures() -> list[Column]:
    return [
        _figure("Imbalance", "imbalance", lambda value: number(value, 2)),
        Column(head="Sent (MiB a step)", shown=lambda one: _in(_sent(one), _MIB), key=_sent),
        Column(
            head="Step (ms)",
            shown=lambda one: "–" if (step := _step(one)) is None else f"{step * 1e3:.4g}",
            key=_step,
        ),
        _figure("Rows/s", "rows_per_second", words.short),
        _figure("Hours", "hours", lambda value: f"{value:.3g}"),
        _figure("Rank-hours", "device_hours", lambda value: f"{value:.3g}"),
        _figure("Cost", "cost", words.money),
        Column(head="Limited by", shown=lambda one: words.PHASES.get(one["bottleneck"] or "", "–")),
        Column(head="Why not", shown=words.refused, classes="long"),
    ]


def _figure(head: str, field: str, shown: Callable[[Any], str]) -> Column:
    """A figure of points that fit."""

    def value(point: Point) -> float | None:
        return point[field] if point["fits"] else None

    return Column(head=head, shown=lambda one: "–" if value(one) is None else shown(value(one)), key=value)


def _row(point: Point, columns: Sequence[Column], *, is_answer: bool) -> str:
    cells = []
    for column in columns:
        value = None if column.key is None else column.key(point)
        order = "" if column.key is None else f' data-value="{"" if value is None else repr(value)}"'
        cells.append(f"<td{_classes(column)}{order}>{escape(column.shown(point))}</td>")
    marks = " ".join([*(["strong"] if is_answer else []), *([] if point["fits"] else ["no"])])
    return f'<tr data-chart="point" class="{marks}">{"".join(cells)}</tr>'


def _chosen_as(study: Mapping[str, Any], place: int) -> str:
    return ", ".join(
        words.QUESTIONS.get(question, question)
        for answers in study["chosen"].values()
        for question, answer in answers.items()
        if answer == place
    )


def _classes(column: Column) -> str:
    classes = column.classes or ("" if column.key is None else "number")
    return f' class="{classes}"' if classes else ""


def _taken(point: Point) -> float | None:
    return selection.needed(point)[0] or None


def _of_host(point: Point) -> float | None:
    return max(point["host_bytes_per_rank"], default=0) or None


def _sent(point: Point) -> float | None:
    return sum(point["sent_bytes_per_step"].values()) if point["fits"] else None


def _step(point: Point) -> float | None:
    return point["step_seconds"]["total"] if point["step_seconds"] else None


def _in(count: float | None, unit: float) -> str:
    return "–" if count is None else f"{count / unit:,.4g}" if count < 1e4 * unit else f"{count / unit:,.0f}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
