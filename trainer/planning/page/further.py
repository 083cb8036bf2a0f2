"""The page's chapters beside the points: quality, growth, serving, all points as a table, and how it was made."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from trainer.analysis.drawing import number
from trainer.planning.page import charts, maps, selection, words
from trainer.planning.page.chapters import grid, legend, section
from trainer.planning.page.charts import Bar, Caption
from trainer.planning.page.selection import PURPOSES, Point
from trainer.planning.page.words import many, size

Study = Mapping[str, Any]
_LEAST_MONTHS, _MOST_MONTHS = 24, 240


def quality(study: Study) -> str:
    """What a better ensemble costs."""
    drawn, text = [], _FRONT
    for purpose in selection.purposes(study):
        known = {one["members"]: one for one in study["quality"] or ()}
        points = [
            point
            for point in selection.points_of(study, purpose)
            if point["fits"] and point["num_members"] in known and math.isfinite(point["device_hours"])
        ]
        if not points:
            continue
        work = "an epoch" if purpose == "train" else "scoring all rows"
        has_cost = all(point["cost"] is not None for point in points)
        what = f"cost of {work}" if has_cost else f"{_device_words(points)}-hours of {work}"
        text = text if has_cost else _FRONT + _NO_PRICE
        caption = Caption(name="front", told=f"AUC against {what}", across=what, up="AUC")
        drawn.append((PURPOSES[purpose], maps.quality(_dots(points, known), caption=caption)))
    entries = [("dot-front", "front, named by members"), ("dot-quiet", "other plans that fit")]
    return section("Quality and what it costs", text, grid(drawn), legend(entries)) if drawn else ""


def _dots(points: Sequence[Point], known: Mapping[int, Mapping[str, Any]]) -> list[maps.Dot]:
    cost_of = selection.cheaper(points)
    dots = []
    for point in points:
        of = known[point["num_members"]]
        label, sweep = many(of["members"], "member"), words.sweep_of(point, points)
        told = f"{words.machines(point)}{', ' if sweep else ''}{sweep}"
        hint = f"{label}, AUC {number(of['auc'], 5)}: {told}: {words.pace(point)}"
        half = of.get("interval") or 0.0
        dots.append(maps.Dot(across=cost_of(point), up=of["auc"], label=label, hint=hint, half=half))
    best = {id(dot) for dot in maps.front(dots)}
    return [dataclasses.replace(dot, is_front=id(dot) in best) for dot in dots]


_FRONT = (
    "Each point is a plan that fits, with the AUC that was given for its number of members. On the drawn front no other"
    " plan is both cheaper and better."
)
_NO_PRICE = (
    " Not every machine has a price, so hours of all ranks stand for the cost; they do not compare kinds of machines."
)


def growth(study: Study) -> str:
    """When tables outgrow the machines."""
    entries = study["growth"]
    if not entries:
        return ""
    text = (
        "Tables that grow by the same share every month, against what these machines hold when all else stays as it"
        f" is; bytes are of {words.state_of(one.get('purpose', 'train') for one in entries)}."
    )
    spans = _spans(entries)
    heads = ["Machines", "Growth a month", "Outgrown after", "At", *(f"Ranks in {one} months" for one in spans)]
    rows, has_sums = [], False
    for one in entries:
        months, factor = one["months"], one["rows_factor"]
        sure, sure_at = one.get("verified_by_plan", True), one.get("ranks_verified_at", {})
        ranks = [f"{_ranks(one['ranks_at'].get(span))}{'' if sure_at.get(span, True) else ' ~'}" for span in spans]
        told = "not in sight" if months is None else f"{number(months, 1)} months{'' if sure else ' ~'}"
        at = "–" if factor is None else f"{number(factor, 2)} × today's rows"
        rows.append([_grown(study, one), f"{number(one['percent_per_month'], 1)} %", told, at, *ranks])
        has_sums = has_sums or any("~" in cell for cell in rows[-1][2:])
    note = f"~ by the bytes of {words.state_of(one.get('purpose', 'train') for one in entries)} alone, without a plan."
    more = f'<p class="more">{escape(note)}</p>' if has_sums else ""
    chart = _growth_chart(study)
    return section("Growth", text, grid([("", chart)]) if chart else "", plain_table(heads, rows), more)


def _grown(study: Study, one: Mapping[str, Any]) -> str:
    """The machines of an entry, and what for where that is not clear."""
    purpose = one.get("purpose", "")
    what = f", to {purpose}" if purpose and len(selection.purposes(study)) > 1 else ""
    return f"{one['hardware']}, {many(one['world_size'], 'rank')}{what}"


def _growth_chart(study: Study) -> str:
    levels: list[maps.Level] = []
    starts: dict[tuple[int, float], str] = {}
    for one in study["growth"]:
        start, factor, label = _tables_of(study, one), one["rows_factor"], _grown(study, one)
        if start is None or factor is None:
            continue
        percent = one["percent_per_month"]
        starts[start, percent] = f"{size(start)} of tables now, growing by {number(percent, 1)} % a month"
        told = "" if one["months"] is None else f", outgrown after {number(one['months'], 1)} months"
        hint = f"{label}: room for {size(start * factor)} of tables{told}"
        level = maps.Level(label=label, value=start * factor, month=one["months"], hint=hint)
        levels += [level] if level not in levels else []
    if not levels:
        return ""
    last = max((level.month for level in levels if level.month is not None), default=0.0)
    months = min(max(_LEAST_MONTHS, 6 * math.ceil(last * 1.1 / 6)), _MOST_MONTHS)
    unit, factor = words.unit_of(max(start for start, _ in starts))
    curves = [
        maps.Growth(start=start / factor, factor=1 + percent / 100, label=label)
        for (start, percent), label in starts.items()
    ]
    scaled = [dataclasses.replace(one, value=one.value / factor) for one in levels]
    caption = Caption(name="growth", told="Table bytes over months", across="months from now", up=f"tables, {unit}")
    entries = [(f"s{place % 8}", curve.label) for place, curve in enumerate(curves)]
    return maps.growth(curves, scaled, months=months, caption=caption) + legend(entries)


def _tables_of(study: Study, entry: Mapping[str, Any]) -> int | None:
    """Bytes of today's tables: of the entry's point, else of an answer on these machines."""
    if "point" in entry:
        return int(study["points"][entry["point"]]["table_bytes"]) or None
    answers = [point for purpose in PURPOSES for point in selection.chosen_points(study, purpose).values()]
    for point in [*answers, *(one for one in study["points"] if one["fits"])]:
        if all(point[field] == entry[field] for field in ("hardware", "world_size")):
            return int(point["table_bytes"]) or None
    return None


def _spans(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted({span for one in entries for span in one["ranks_at"]}, key=float)


def _ranks(count: int | None) -> str:
    return "more than tried" if count is None else f"{count:,}"


def serving(study: Study) -> str:
    """A request on one server, or on one for each member."""
    one = study["serving"]
    if not one:
        return ""
    bars = [
        Bar(label="on one server", parts={"one": one["one_server_seconds"]}, hint="members one after the other"),
        Bar(label="a server each", parts={"parallel": one["parallel_seconds"]}, hint="waits for the slowest member"),
    ]
    bars += [
        Bar(label=name, parts={"member": seconds}, hint=f"{name} alone: {words.seconds(seconds)}")
        for name, seconds in one["members"].items()
    ]
    shown = [words.seconds(sum(bar.parts.values())) for bar in bars]
    caption = Caption(name="serving", told="Seconds of a request on one server, on parallel ones, and of each member")
    ratio = one["one_server_seconds"] / one["parallel_seconds"] if one["parallel_seconds"] else 0.0
    where = f" on {one['hardware']}" if "hardware" in one else ""
    text = (
        f"A request of {many(one['request_rows'], 'row')}{where}. With every member on a server of its own the answer"
        f" waits for the slowest, {one['slowest_member']}: {words.seconds(one['parallel_seconds'])} instead of"
        f" {words.seconds(one['one_server_seconds'])} with all on one server"
        + (f", {number(ratio, 1)} times as fast." if ratio else ".")
        + " Lookup, communication and dense parts are counted, the way to the servers is not."
    )
    return section("Serving", text, grid([("", charts.level_bars(bars, shown, caption=caption))]))


def answers(study: Study) -> str:
    """The answer to each question, side by side."""
    heads = ["Answer", "Machines", "Settings", "Tables", "Fullest rank", "Rows/s", "Time", "Of all ranks", "Cost"]
    rows = []
    for purpose in selection.purposes(study):
        points = selection.points_of(study, purpose)
        found = [("", *answer) for answer in words.answers(study, purpose)]
        for machine, questions, point in [*found, *words.of_machines(study, purpose)]:
            alike = [one for one in points if not machine or one["hardware"] == machine]
            of = f" of {machine} alone" if machine else ""
            rows.append(
                [
                    f"{PURPOSES[purpose]}: {words.all_of(questions, point, alike)}{of}",
                    words.machines(point),
                    words.sweep_of(point, points) or "–",
                    size(point["table_bytes"]),
                    words.of_rank(point),
                    words.short(point["rows_per_second"]),
                    words.duration(point["hours"]),
                    words.device_hours(point),
                    words.money(point["cost"]),
                    words.limits(point),
                ]
            )
    return section("The answers", "", plain_table([*heads, "Limited by"], rows)) if rows else ""


def remedies(study: Study) -> str:
    """What would make it fit, where nothing does."""
    body = []
    for purpose, found in study.get("remedies", {}).items():
        rows = []
        for place, one in enumerate(found["changes"], start=1):
            suffices = f"{'yes' if one['suffices'] else 'no'}, by {one['proof']}"
            rows.append([f"{place}. {one['change']}", size(one["saves_bytes"]), suffices])
        title = f"{PURPOSES.get(purpose, purpose)}, on {found['of']}"
        if rows:
            body.append(f"<h3>{escape(title)}</h3>{plain_table(['Change', 'Saves on a rank', 'Suffices alone'], rows)}")
    text = "Changes of the configuration, the largest saving first; bytes are of the fullest rank."
    return section("What would make it fit", text, *body) if body else ""


def made(study: Study) -> str:
    """How the figures came about, and what they leave out."""
    data = study["data"]
    tables = data["tables"] if isinstance(data["tables"], int) else len(data["tables"])
    entries = [
        ("Command", f"<code>{escape(study['command'])}</code>"),
        ("Configuration", escape(study["config"])),
        ("Data", escape(f"{data['origin']}: {many(tables, 'table')}, {number(data['ids_per_row'], 1)} ids a row")),
        ("Rows", escape(words.rows_of(study))),
    ]
    if study["swept"]:
        told = "; ".join(f"{key}: {', '.join(_plain(one) for one in found)}" for key, found in study["swept"].items())
        entries.append(("Swept", escape(told)))
    if notes := study.get("notes"):
        entries.append(("Notes", f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>"))
    entries += [(f"Hardware {one['name']}", _hardware(one)) for one in study["hardware"]]
    entries.append(("Left out", f"<ul>{''.join(f'<li>{escape(one)}</li>' for one in words.LEFT_OUT)}</ul>"))
    body = "".join(f"<dt>{escape(key)}</dt><dd>{told}</dd>" for key, told in entries)
    text = "All figures are estimated from the configuration and the hardware files; nothing was run on these machines."
    return section("How this was made", text, f"<dl>{body}</dl>")


def _hardware(one: Mapping[str, Any]) -> str:
    ranks = f"{one['ranks_per_host']:,} {'GPUs' if one['device'] == 'cuda' else 'ranks'} a host"
    price = f"{number(one['price_per_hour'], 2)} an hour a host" if one["price_per_hour"] else "no price given"
    origin = f"measured: {one['measured']}" if one["measured"] else "figures of data sheets, not measured"
    told = f"{one['device']}, {ranks}, {size(one['capacity_bytes'])} a rank, {price}; {origin}."
    sources = "".join(f"<li>{escape(source)}</li>" for source in one["sources"])
    return escape(told) + (f"<ul>{sources}</ul>" if sources else "")


def plain_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names its rows."""
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return f'<div class="wide"><table class="plain"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _device_words(points: Sequence[Point]) -> str:
    return " or ".join(dict.fromkeys(words.device_word(point) for point in points))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
