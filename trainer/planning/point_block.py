"""One point of a study in detail, as tables for a terminal: memory, traffic, the parts of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from trainer.planning.page import words
from trainer.planning.page.selection import PURPOSES, Point

OVERLAPS = {
    "none": "The parts follow one another; nothing overlaps.",
    "data": "Making batches hides behind the rest of a step.",
    "data_and_ids": "Making batches and the exchange of ids hide behind the rest of a step.",
}


def plain_table(title: str, *heads: str) -> Table:
    """A table without lines; its first column to the left, figures to the right."""
    table = Table(title=Text(title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.min_width = len(title)  # which would be folded to the width of a narrower table
    table.caption_justify = "left"
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index else "left", no_wrap=index > 0)
    return table


def block(point: Point, *, question: str, overlap: str, told: str) -> list[RenderableType]:
    """The point's heading and tables.

    Args:
        point: It fits.
        question: What it is the answer to.
        overlap: What the machine hides behind a step's computation.
        told: Its swept settings in words; empty where there are none.
    """
    head = f"{PURPOSES[point['purpose']]}, {question}: {words.machines(point)}{', ' if told else ''}{told}"
    lines = [
        f"{words.many(point['num_members'], 'member')}; batch of {point['batch_size']:,} rows,"
        f" {point['rows_per_rank']:,} on a rank; {words.pace(point)}",
        _placements(point),
    ]
    return [Text(head, style="bold"), Text("\n".join(lines)), _memory(point), _step(point, overlap), _traffic(point)]


def _placements(point: Point) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in point["tables_per_sharding_type"].items())
    host = max(point["host_bytes_per_rank"], default=0)
    beside = (
        f"\nhost memory: {words.size(host)} for the fullest rank's tables under uvm, row windows, batches and copy of a"
        f" checkpoint, of {words.size(point['host_room_bytes'])} that are its share, the reserve off"
    )
    told = f"tables: {kinds}; the fullest rank holds {point['imbalance']:.2f} x the mean of their bytes"
    return told + (beside if host else "")


def _memory(point: Point) -> Table:
    table = plain_table("Memory of a rank", "", "mean", "most", "most/mean")
    held: Mapping[str, Sequence[int]] = point["held_bytes_per_rank"]
    taken = {kind: of_ranks for kind, of_ranks in held.items() if kind != "reserve"}
    in_all = [sum(kinds) for kinds in zip(*taken.values(), strict=True)]
    for kind, of_ranks in [*taken.items(), ("takes in all", in_all)]:
        if not any(of_ranks):
            continue
        mean, most = sum(of_ranks) / len(of_ranks), max(of_ranks)
        table.add_row(words.KINDS.get(kind, kind), words.size(mean), words.size(most), f"{most / mean:.2f}")
    table.add_row("reserve, kept free", "", words.size(point["reserve_bytes"]), "")
    table.add_row("memory there is", "", words.size(point["capacity_bytes"]), "")
    return table


def _step(point: Point, overlap: str) -> Table:
    parts = dict(point["step_seconds"])
    total = parts.pop("total")
    table = plain_table("A step of the slowest rank", "", "time", "share of the parts")
    in_all = sum(parts.values())
    for phase, seconds in parts.items():
        bottleneck = "  <- bottleneck" if phase == point["bottleneck"] else ""
        share = f"{seconds / in_all:.0%}" if in_all else ""
        table.add_row(words.PHASES.get(phase, phase) + bottleneck, words.seconds(seconds), share)
        if phase == "dense" and len(point["dense_shares"]) > 1:
            of_members = [f"{name} {part:.0%}" for name, part in point["dense_shares"].items()]
            table.add_row(f"  of which {', '.join(of_members[:4])}{', ...' if len(of_members) > 4 else ''}", "", "")
    table.add_row("step", words.seconds(total), "")
    told = OVERLAPS.get(overlap, "")
    table.caption = Text(f"{told} Shares are of the sum of the parts, rounded.".strip())
    return table


def _traffic(point: Point) -> Table:
    table = plain_table("Sent by the busiest rank", "", "in a step", "in a second")
    total = point["step_seconds"]["total"]
    for link, count in point["sent_bytes_per_step"].items():
        table.add_row(words.LINKS.get(link, link), words.size(count), f"{words.size(count / total)}/s" if total else "")
    return table


def remedy_table(purpose: str, remedies: Mapping[str, Any], *, is_finished: bool = True) -> Table:
    """What a rank needs and has, and what would make it fit, numbered; finished: all that was asked for was tried."""
    verdict = "fits nowhere" if is_finished else "does not fit so far"
    title = f"{PURPOSES[purpose]} {verdict}. What would help, on {remedies['of']}, the largest saving first"
    table = Table(title=Text(title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.min_width = len(title)
    table.caption_justify = "left"
    table.caption = Text(
        f"The bytes of {remedies['kinds']} alone come to {words.size(remedies['need_bytes'])} on a rank, which has"
        f" {words.size(remedies['capacity_bytes'])}, {words.size(remedies['reserve_bytes'])} of them kept free."
    )
    for head, justify in (("", "right"), ("change", "left"), ("saves on a rank", "right"), ("suffices alone", "left")):
        table.add_column(head, justify=justify)  # type: ignore[arg-type]
    for number, one in enumerate(remedies["changes"], start=1):
        verdict = f"{'yes' if one['suffices'] else 'no'}, by {one['proof']}"
        table.add_row(f"{number}.", Text(one["change"]), words.size(one["saves_bytes"]), verdict)
    return table
