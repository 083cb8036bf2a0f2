"""A capacity study as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from trainer.analysis.drawing import number
from trainer.planning.page import selection, words
from trainer.planning.page.selection import PURPOSES, Point
from trainer.planning.point_block import block, plain_table, remedy_table

Study = Mapping[str, Any]


def show(study: Study, *, console: Console) -> None:
    """Prints the answer, what it rests on, all points, and whatever else was asked."""
    _, sentences = words.conclusion(study)
    parts: list[RenderableType] = [Text(told, style="bold" if kind == "lead" else "") for kind, told in sentences]
    parts += [Text(_data(study)), Text("")]
    if study["points"]:
        parts += [_points(study), Text("")]
    parts += _blocks(study)
    parts += [
        remedy_table(purpose, found, is_finished=purpose not in study["unfinished"])
        for purpose, found in study["remedies"].items()
    ]
    parts += [table for table in (_growth(study), _serving(study), *_quality(study)) if table.row_count]
    parts += [Text(f"Note: {note}.") for note in study["notes"]]
    console.print(Group(*parts))


def _data(study: Study) -> str:
    data = study["data"]
    return (
        f"{study['config']}, {data['origin']}: {words.many(data['tables'], 'id feature')} of"
        f" {number(data['ids_per_row'], 1)} ids a row, {words.rows_of(study)}. All figures are estimates."
    )


def _points(study: Study) -> Table:
    points: Sequence[Point] = study["points"]
    swept = selection.swept(points)
    several = len(selection.purposes(study)) > 1
    table = plain_table(
        "Points",
        *("machine", *swept, *(["for"] if several else [])),
        *("ranks", "hosts", "fullest rank", "of (reserve off)", "step", "rows/s"),
        *(_work(study), "rank-hours", "cost"),
    )
    table.add_column("limited by, or why it does not fit", justify="left", min_width=24)
    answers = _answers(study)
    for place, point in enumerate(points):
        cells = [str(selection.value(point, key)) for key in swept] + ([point["purpose"]] if several else [])
        mark = " *" if place in answers else ""
        ranks, hosts = f"{point['world_size']:,}{mark}", f"{point['num_hosts']:,}"
        table.add_row(Text(point["hardware"]), *cells, ranks, hosts, *_figures(point), style=_style(point))
    if answers:
        of = " of its machine" if len(study["hardware"]) > 1 else ""
        table.caption = Text(f"* an answer: the smallest that fits, the smallest in time, or the cheapest{of}")
    return table


def _style(point: Point) -> str:
    return "" if point["fits"] else "dim"


def _work(study: Study) -> str:
    """What hours are of."""
    work = {"train": "an epoch", "score": "all rows"}
    return " / ".join(work[purpose] for purpose in selection.purposes(study))


def _answers(study: Study) -> set[int]:
    """Places of the answers, of all machines and of each."""
    found = [*study["chosen"].values(), *(of for machines in study["chosen_of"].values() for of in machines.values())]
    return {place for of in found for place in of.values() if place is not None}


def _figures(point: Point) -> list[str]:
    need, there = selection.needed(point)
    memory = ["–" if need is None else words.size(need), words.size(there)]
    if not point["fits"]:
        return [*memory, "–", "–", "–", "–", "–", point["refusal"]["sentence"]]
    phase: str = point["bottleneck"]
    return [
        *memory,
        words.seconds(point["step_seconds"]["total"]),
        words.short(point["rows_per_second"]),
        words.duration(point["hours"]),
        words.short(point["device_hours"]),
        words.money(point["cost"]),
        words.PHASES[phase],
    ]


def _blocks(study: Study) -> list[RenderableType]:
    """The answers in detail, each point once; none where ensembles are compared, whose table says enough."""
    if selection.swept(study["points"]):
        return []
    overlaps = {one["name"]: one["overlap"] for one in study["hardware"]}
    parts: list[RenderableType] = []
    for purpose in selection.purposes(study):
        for questions, point in words.answers(study, purpose):
            parts += block(
                point,
                question=words.all_of(questions, point, selection.points_of(study, purpose)),
                overlap=overlaps.get(point["hardware"], ""),
                told=words.sweep_of(point, study["points"]),
            )
            parts.append(Text(""))
    return parts


def _growth(study: Study) -> Table:
    entries = study["growth"]
    spans = list(entries[0]["ranks_at"]) if entries else []
    table = plain_table(
        "Growth: when tables outgrow the machines",
        *(
            "machine",
            "for",
            "ranks",
            "a month",
            "outgrown after",
            "at rows",
            *(f"ranks in {one} months" for one in spans),
        ),
    )
    for one in entries:
        months = "not in sight" if one["months"] is None else f"{one['months']:.1f} months"
        factor = "" if one["rows_factor"] is None else f"{one['rows_factor']:.2f} x today's"
        checked = "" if one["verified_by_plan"] or one["months"] is None else " ~"
        ranks = [
            "more than tried" if count is None else f"{count:,}{'' if one['ranks_verified_at'][span] else ' ~'}"
            for span, count in one["ranks_at"].items()
        ]
        rate = f"+{one['percent_per_month']:.1f} %"
        table.add_row(
            Text(one["hardware"]), one["purpose"], f"{one['world_size']:,}", rate, months + checked, factor, *ranks
        )
    table.caption = (
        Text(f"~ by the bytes of {words.state_of(one['purpose'] for one in entries)} alone, without a plan")
        if any("~" in str(cell) for column in table.columns for cell in column.cells)
        else None
    )
    return table


def _serving(study: Study) -> Table:
    one = study["serving"]
    table = plain_table(
        "" if one is None else f"Serving a request of {words.many(one['request_rows'], 'row')} on {one['hardware']}",
        *("server", "copies", "ranks", "fullest rank", "latency"),
    )
    if one is None:
        return table
    for name, seconds in one["members"].items():
        table.add_row(
            Text(f"{name} alone"),
            f"{one['member_copies'][name]:,}",
            f"{one['member_ranks'][name]:,}",
            words.size(one["member_bytes"][name]),
            words.seconds(seconds),
        )
    table.add_row(
        f"a server each: the slowest, {one['slowest_member']}",
        f"{one['parallel_servers']:,}",
        f"{one['parallel_ranks']:,}",
        "",
        words.seconds(one["parallel_seconds"]),
    )
    table.add_row(
        "all members on one server",
        "1",
        f"{one['one_server_ranks']:,}",
        words.size(one["one_server_bytes"]),
        words.seconds(one["one_server_seconds"]),
    )
    table.caption = Text(
        "Lookup, communication and dense parts, one after the other; the way to the server is not counted."
    )
    return table


def _quality(study: Study) -> list[Table]:
    """The points by cost, with those that no other is both cheaper and better than."""
    auc_of = {one["members"]: one["auc"] for one in study["quality"] or ()}
    tables = []
    for purpose in selection.purposes(study):
        points = [
            point for point in selection.points_of(study, purpose) if point["fits"] and point["num_members"] in auc_of
        ]
        if not points:
            continue
        cost_of = selection.cheaper(points)
        has_cost = all(point["cost"] is not None for point in points)
        table = plain_table(
            f"Quality against cost, {PURPOSES[purpose].lower()}",
            *("machine", "ranks", "members", "AUC", "cost" if has_cost else "rank-hours", "rows/s", "on the front"),
        )
        best = float("-inf")
        for point in sorted(points, key=lambda one: (cost_of(one), -auc_of[one["num_members"]])):
            auc = auc_of[point["num_members"]]
            front, best = "yes" if auc > best else "", max(best, auc)
            cells = [f"{point['world_size']:,}", f"{point['num_members']:,}", f"{auc:.5f}"]
            cost = words.money(cost_of(point)) if has_cost else words.short(cost_of(point))
            table.add_row(Text(point["hardware"]), *cells, cost, words.short(point["rows_per_second"]), front)
        tables.append(table)
    return tables
