"""What a study says, in sentences, and its figures as they are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trainer.analysis.drawing import number
from trainer.planning.page import selection
from trainer.planning.page.selection import PURPOSES, RANKS, Panel, Point

Study = Mapping[str, Any]

QUESTIONS = {"smallest": "smallest that fits", "deadline": "smallest within the deadline", "cheapest": "cheapest"}
KINDS = {
    "table_weights": "table weights",
    "table_optimizer": "table optimizer",
    "table_gradients": "table gradients",
    "table_cache": "table cache",
    "id_buffers": "id buffers",
    "embedding_buffers": "embedding buffers",
    "dense_weights": "dense weights",
    "dense_gradients": "dense gradients",
    "dense_optimizer": "dense optimizer",
    "activations": "activations",
    "best_weights": "best weights kept",
    "batches": "batches",
    "checkpoint_copy": "checkpoint's copy",
    "process": "process",
    "reserve": "reserve",
}
PHASES = {
    "data": "making batches",
    "lookup": "table lookups and updates",
    "communication": "communication",
    "dense": "dense layers",
    "optimizer": "dense optimizers",
}
LINKS = {"intra_host": "within a host", "inter_host": "between hosts"}
REFUSALS = {
    "device": "exceeds the rank's memory",
    "host": "exceeds the host's memory",
    "placement": "a table has no allowed place",
    "planner": "the planner finds no plan",
}
LEFT_OUT = (
    "Evaluations, checkpoints, the start of a job, failures and what is trained again after them.",
    "Other jobs on the same hosts, disks and networks; ranks that are slower than the others for reasons of their own.",
    "Reading prepared files counts with the disk's rate alone; preparing them from raw data is another job.",
    "A cost is hours times the hosts' price: no storage, no traffic, no hours that stand idle.",
)
_UNITS = (("TiB", 2.0**40), ("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10), ("B", 1.0))
_SPACE = "\u00a0"


def unit_of(most: float) -> tuple[str, float]:
    """The unit that the largest of some bytes is read in: at most some thousands of it."""
    return next(((name, size) for name, size in _UNITS if most >= size), _UNITS[-1])


def size(count: float, digits: int = 1) -> str:
    """Bytes for people."""
    name, factor = unit_of(count)
    return f"{number(count / factor, 0 if name == 'B' else digits)}{_SPACE}{name}"


def short(count: float) -> str:
    """A large number in three digits: 1.24 M."""
    for name, factor in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= 0.9995 * factor:
            scaled = count / factor
            return f"{f'{scaled:.3g}' if scaled < 999.5 else f'{scaled:,.0f}'}{_SPACE}{name}"
    return f"{count:.3g}"


def rate(rows_per_second: float) -> str:
    """Rows a second."""
    return f"{short(rows_per_second)} rows/s"


def duration(hours: float) -> str:
    """Hours, or minutes or seconds of short work."""
    if hours >= 1:
        return f"{number(hours, 2 if hours < 100 else 0)}{_SPACE}hours"
    return f"{hours * 60:.3g}{_SPACE}min" if hours * 60 >= 1 else seconds(hours * 3600)


def seconds(value: float) -> str:
    """Seconds of a step or a request."""
    if value >= 1:
        return f"{value:.3g}{_SPACE}s"
    return f"{value * 1e3:.3g}{_SPACE}ms" if value >= 1e-3 else f"{value * 1e6:.3g}{_SPACE}µs"


def money(cost: float | None) -> str:
    """A cost, in the currency that prices are given in."""
    return "–" if cost is None else number(cost, 2 if cost < 1000 else 0)


def many(count: int, word: str) -> str:
    """A count and its word."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def state_of(purposes: Iterable[str]) -> str:
    """What bytes of tables and layers are of; scoring has no optimizer state."""
    return "weights and optimizer state" if "train" in purposes else "weights"


def rows_of(study: Study) -> str:
    """The rows of what is planned for."""
    data = study["data"]
    told = {
        "train": f"{many(data['train_rows'], 'row')} to train on",
        "score": f"{many(data['score_rows'], 'row')} to score",
    }
    return ", ".join(told[purpose] for purpose in study["chosen"]) or ", ".join(told.values())


def device_word(point: Point) -> str:
    """What a rank is."""
    return "GPU" if point["device"] == "cuda" else "rank"


def device_hours(point: Point) -> str:
    """Hours of all ranks."""
    hours = point["device_hours"]
    return f"{short(hours) if hours >= 1e-3 else 'under 0.001'} {device_word(point)}-hours"


def machines(point: Point) -> str:
    """How many of which machines."""
    ranks = many(point["world_size"], device_word(point))
    return f"{ranks} of {point['hardware']} ({many(point['num_hosts'], 'host')})"


def setting(dimension: str, value: Any) -> str:
    """A value of a dimension."""
    if dimension == RANKS:
        return many(value, "rank")
    if dimension == selection.HARDWARE:
        return str(value)
    return f"{dimension} {value}"


def short_setting(point: Point, dimension: str) -> str:
    """A point's value of a dimension, below a bar."""
    found = selection.value(point, dimension)
    return f"{found:,}" if isinstance(found, int) and not isinstance(found, bool) else str(found)


def panel_title(panel: Panel) -> str:
    """What a panel's points have in common."""
    return ", ".join(setting(key, value) for key, value in panel.held.items())


def sweep_of(point: Point, points: Sequence[Point]) -> str:
    """The swept settings of a point that other points have otherwise."""
    return ", ".join(setting(key, selection.value(point, key)) for key in selection.swept(points))


def conclusion(study: Study) -> tuple[str, list[tuple[str, str]]]:
    """The verdict (ahead: all is answered; behind: something fits nowhere; unclear), and the answer in sentences.

    Each sentence comes with what it is: lead, or more about the lead before it.
    """
    told: list[tuple[str, str]] = []
    verdict = "ahead"
    for purpose in [one for one in PURPOSES if one in study["chosen"]]:
        points = selection.points_of(study, purpose)
        name = PURPOSES[purpose]
        if not any(point["fits"] for point in points):
            verdict = "behind"
            what = "stopped before an answer" if purpose in study["unfinished"] else "nothing that was tried fits"
            told += [("lead", f"{name}: {what}."), ("more", _nearest(points) if points else "")]
            continue
        grouped = answers(study, purpose)
        for questions, point in grouped:
            with_sweep = _with_sweep(point, points)
            told.append(("lead", f"{name}, {all_of(questions, point, points)}: {machines(point)}{with_sweep}."))
            told.append(("more", f"{pace(point)}. {memory(point)}"))
            told.append(("more", _fewer(point, points) if "smallest" in questions else ""))
        told += [("more", sentence) for sentence in _of_machines(study, purpose)]
        if not grouped:
            told.append(("lead", f"{name}: {sum(point['fits'] for point in points):,} of the points fit."))
        if study.get("deadline_hours") and not any("deadline" in questions for questions, _ in grouped):
            verdict = "unclear" if verdict == "ahead" else verdict
            told.append(("lead", _too_slow(study["deadline_hours"], name, points)))
    if not told:
        return "behind", [("lead", "No point was planned.")]
    return verdict, [(kind, sentence) for kind, sentence in told if sentence]


def answers(study: Study, purpose: str) -> list[tuple[list[str], Point]]:
    """The points that answer questions, each once, with the questions."""
    found: list[tuple[list[str], Point]] = []
    for question, point in selection.chosen_points(study, purpose).items():
        same = next((questions for questions, other in found if other is point), None)
        if same is None:
            found.append(([question], point))
        else:
            same.append(question)
    return found


def of_machines(study: Study, purpose: str) -> list[tuple[str, list[str], Point]]:
    """Where machines of several kinds are looked at: machine, questions, point, without what answers for all."""
    places = study["chosen_of"].get(purpose, {})
    if len(places) < 2:
        return []
    above = [(questions, id(point)) for questions, point in answers(study, purpose)]
    found = []
    for machine, of in places.items():
        grouped: dict[int, list[str]] = {}
        for question, place in of.items():
            if place is not None:
                grouped.setdefault(place, []).append(question)
        for place, questions in grouped.items():
            point = study["points"][place]
            if (questions, id(point)) not in above:
                found.append((machine, questions, point))
    return found


def all_of(questions: Sequence[str], point: Point, points: Sequence[Point] = ()) -> str:
    """What a point is the answer to; with points, whether cost or hours of all ranks made it the cheapest of them."""
    is_priced = all(one["cost"] is not None for one in [point, *points] if one["fits"])
    cheapest = "cheapest" if is_priced else f"fewest {device_word(point)}-hours"
    told = [cheapest if one == "cheapest" else QUESTIONS.get(one, one) for one in questions]
    return " and ".join([", ".join(told[:-1]), told[-1]]) if len(told) > 1 else told[0]


def limits(point: Point) -> str:
    """What a point's speed is limited by."""
    steps = point["step_seconds"]
    if not steps or not point["bottleneck"]:
        return ""
    phase, parts = point["bottleneck"], sum(steps[phase] for phase in steps if phase != "total")
    share = f" ({100 * steps[phase] / parts:.0f}{_SPACE}% of a step's parts)" if parts else ""
    return f"{PHASES.get(phase, phase)}{share}"


def memory(point: Point) -> str:
    """What the fullest rank holds of its memory."""
    held = selection.held_bytes(point)
    taken = {kind: count for kind, count in held.items() if kind != "reserve"}
    if not taken:
        return ""
    kind = max(taken, key=lambda one: taken[one])
    return f"The fullest rank takes {of_rank(point)}; most of all {KINDS.get(kind, kind)}, {size(taken[kind])}."


def of_rank(point: Point) -> str:
    """What the fullest rank takes of its memory, and what it keeps free."""
    reserve = selection.held_bytes(point).get("reserve", 0)
    free = f" with {size(reserve)} kept free" if reserve else ""
    return f"{size(selection.taken_bytes(point))} of {size(point['capacity_bytes'])}{free}"


def pace(point: Point) -> str:
    """How fast, how long, how much."""
    work = "an epoch" if point["purpose"] == "train" else "scoring all rows"
    cost = "" if point["cost"] is None else f" and costs {money(point['cost'])}"
    limit = limits(point)
    return (
        f"{rate(point['rows_per_second'])}: {work} takes {duration(point['hours'])}"
        f" ({device_hours(point)}){cost}" + (f"; limited by {limit}" if limit else "")
    )


def refused(point: Point) -> str:
    """Why a point does not fit."""
    refusal = point["refusal"]
    return f"{REFUSALS.get(refusal['where'], refusal['where'])}: {refusal['sentence']}" if refusal else ""


def _fewer(point: Point, points: Sequence[Point]) -> str:
    """What keeps the same ensemble off fewer ranks of the same machines."""
    alike = [
        one
        for one in points
        if one["hardware"] == point["hardware"]
        and one["swept"] == point["swept"]
        and one["world_size"] < point["world_size"]
        and not one["fits"]
    ]
    if not alike:
        return ""
    nearest = max(alike, key=lambda one: one["world_size"])
    return f"On {many(nearest['world_size'], 'rank')} it does not fit: {_clause(nearest['refusal']['sentence'])}"


def _of_machines(study: Study, purpose: str) -> list[str]:
    """The answers of each machine, where there are several."""
    points = selection.points_of(study, purpose)
    return [
        f"Of {machine} alone, {all_of(questions, point, _of_one(points, machine))}: {machines(point)}"
        f"{_with_sweep(point, points)}, {pace(point)}."
        for machine, questions, point in of_machines(study, purpose)
    ]


def _of_one(points: Sequence[Point], machine: str) -> list[Point]:
    return [point for point in points if point["hardware"] == machine]


def _too_slow(hours: float, name: str, points: Sequence[Point]) -> str:
    fastest = min((one for one in points if one["fits"]), key=lambda one: one["hours"])
    return (
        f"{name}: nothing that was tried meets the deadline of {duration(hours)}; the fastest is"
        f" {machines(fastest)}: {pace(fastest)}."
    )


def _nearest(points: Sequence[Point]) -> str:
    """The refusal of the point that is nearest to fitting."""
    nearest = min(points, key=lambda one: selection.filled(one) or float("inf"))
    return f"Nearest is {machines(nearest)}{_with_sweep(nearest, points)}: {_clause(nearest['refusal']['sentence'])}"


def _with_sweep(point: Point, points: Sequence[Point]) -> str:
    told = sweep_of(point, points)
    return f", with {told}" if told else ""


def _clause(sentence: str) -> str:
    return sentence if sentence.endswith((".", "!", "?")) else sentence + "."
