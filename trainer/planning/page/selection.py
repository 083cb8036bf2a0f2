"""Which points of a study belong in one picture: along one of its dimensions, all others held."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Point = Mapping[str, Any]
PURPOSES = {"train": "Training", "score": "Scoring"}
HARDWARE, RANKS = "hardware", "ranks"
_FIELDS = {HARDWARE: "hardware", RANKS: "world_size"}


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The points of one picture, and what they have in common."""

    held: Mapping[str, Any]  # dimension -> value
    points: tuple[Point, ...]


def points_of(study: Mapping[str, Any], purpose: str) -> list[Point]:
    """The points that train, or that score."""
    return [point for point in study["points"] if point["purpose"] == purpose]


def purposes(study: Mapping[str, Any]) -> list[str]:
    """What the study plans for, training first."""
    return [purpose for purpose in PURPOSES if points_of(study, purpose)]


def value(point: Point, dimension: str) -> Any:
    """Where a point lies along a dimension; lists are taken as text."""
    found = point[_FIELDS[dimension]] if dimension in _FIELDS else point["swept"].get(dimension)
    return found if isinstance(found, Hashable) else str(found)


def values(points: Iterable[Point], dimension: str) -> list[Any]:
    """The values that occur, numbers in their order, all else in the study's."""
    found = list(dict.fromkeys(value(point, dimension) for point in points))
    if all(isinstance(one, int | float) for one in found):
        found.sort()
    return found


def swept(points: Sequence[Point]) -> list[str]:
    """The swept keys that take several values."""
    keys = dict.fromkeys(key for point in points for key in point["swept"])
    return [key for key in keys if len(values(points, key)) > 1]


def dimensions(points: Sequence[Point]) -> list[str]:
    """All that takes several values: hardware, ranks, swept keys."""
    return [key for key in (HARDWARE, RANKS) if len(values(points, key)) > 1] + swept(points)


def member_key(points: Sequence[Point]) -> str | None:
    """The swept key that changes the number of members, where there is one."""
    for key in swept(points):
        counts: dict[Any, set[int]] = {}
        for point in points:
            counts.setdefault(value(point, key), set()).add(point["num_members"])
        if len({frozenset(one) for one in counts.values()}) > 1:
            return key
    return None


def main_key(points: Sequence[Point]) -> str | None:
    """What ensembles differ in above all: their members, else the first swept key."""
    return member_key(points) or next(iter(swept(points)), None)


def panels(points: Sequence[Point], *, along: Iterable[str | None]) -> list[Panel]:
    """The points by all dimensions but those, in the study's order; each panel's points in the order of those."""
    free = [dimension for dimension in along if dimension is not None]
    held = [dimension for dimension in dimensions(points) if dimension not in free]
    places = {dimension: {one: place for place, one in enumerate(values(points, dimension))} for dimension in free}
    groups: dict[tuple[Any, ...], list[Point]] = {}
    for point in points:
        groups.setdefault(tuple(value(point, dimension) for dimension in held), []).append(point)

    def order(point: Point) -> list[int]:
        return [places[dimension][value(point, dimension)] for dimension in free]

    return [
        Panel(held=dict(zip(held, key, strict=True)), points=tuple(sorted(group, key=order)))
        for key, group in groups.items()
    ]


def best_ranks(panel: Panel) -> Panel:
    """The panel at one number of ranks: the smallest on which most of its points fit, the largest where none does."""
    counts = values(panel.points, RANKS)
    if len(counts) < 2:
        return panel
    sign = -1 if any(one["fits"] for one in panel.points) else 1
    most = max(counts, key=lambda ranks: (sum(one["fits"] for one in _at(panel, ranks)), sign * ranks))
    return Panel(held=dict(panel.held) | {RANKS: most}, points=tuple(_at(panel, most)))


def nearest_first(found: Sequence[Panel], chosen: Iterable[Point]) -> list[Panel]:
    """Panels in the order of how few settings set them apart from an answer's; of equal ones larger ensembles first."""
    answers = list(chosen)

    def rank(panel: Panel) -> tuple[int, int]:
        apart = [sum(value(one, key) != held for key, held in panel.held.items()) for one in answers]
        return min(apart, default=0), -max(point["num_members"] for point in panel.points)

    return sorted(found, key=rank)


def fullest(point: Point) -> int:
    """The rank that holds the most bytes."""
    totals = [sum(of_ranks) for of_ranks in zip(*point["held_bytes_per_rank"].values(), strict=True)]
    return totals.index(max(totals))


def held_bytes(point: Point, *, rank: int | None = None) -> dict[str, int]:
    """Kind -> bytes of a rank, the fullest one unless told; nothing where it was not planned."""
    held = point["held_bytes_per_rank"]
    if not held or not all(held.values()):
        return {}
    place = fullest(point) if rank is None else rank
    return {kind: of_ranks[place] for kind, of_ranks in held.items() if of_ranks[place]}


def taken_bytes(point: Point) -> int:
    """What the fullest rank takes, the reserve left out."""
    return sum(count for kind, count in held_bytes(point).items() if kind != "reserve")


def needed(point: Point) -> tuple[int | None, int]:
    """What the fullest rank takes, or would (None: nobody has added it up), and what there is; no reserve in either.

    Refusals hold all of a rank against all of its memory, tables against what all else leaves them, or what ranks keep
    on a GPU's host against that; only the last is of another memory.
    """
    room, refusal = point["capacity_bytes"] - point["reserve_bytes"], point["refusal"]
    if refusal is None:
        return taken_bytes(point), room
    need, there = refusal["need_bytes"], refusal["capacity_bytes"]
    if not need:
        return None, room
    if there == point["capacity_bytes"]:
        return need - point["reserve_bytes"], room
    return (need, there) if refusal["where"] == "host" or there > room else (need + room - there, room)


def filled(point: Point) -> float | None:
    """Share of the fullest rank's memory that is taken, the reserve included; of refused points what they would."""
    refusal = point["refusal"]
    if refusal is not None:
        return refusal["need_bytes"] / refusal["capacity_bytes"] if refusal["capacity_bytes"] else None
    return sum(held_bytes(point).values()) / point["capacity_bytes"] if point["capacity_bytes"] else None


def chosen_points(study: Mapping[str, Any], purpose: str) -> dict[str, Point]:
    """Question -> the point that answers it; questions without an answer are left out."""
    places = study["chosen"].get(purpose, {})
    return {question: study["points"][place] for question, place in places.items() if place is not None}


def cheaper(points: Iterable[Point]) -> Callable[[Point], float]:
    """What points are compared by: cost where all have one, else hours of all ranks."""
    has_cost = all(point["cost"] is not None for point in points)
    return (lambda point: point["cost"]) if has_cost else (lambda point: point["device_hours"])


def _at(panel: Panel, ranks: int) -> list[Point]:
    return [point for point in panel.points if point["world_size"] == ranks]
