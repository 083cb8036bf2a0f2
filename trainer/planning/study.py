"""Study: the points of a capacity study, what was asked, and both as JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from configs.hardware_schema import HardwareFile
from configs.schema import RunConfig
from sharding.hardware import planned_hardware
from trainer.planning.byte_sum import Purpose
from trainer.planning.capacity_point import HELD, PHASES, CapacityPoint
from trainer.planning.data_facts import DataFacts

FORMAT = "chorus-capacity"
FORMAT_VERSION = 1
STOPPED = "stopped"  # what notes of a budget that is spent, or of Ctrl-C, begin with
_CSV_LINKS = ("intra_host", "inter_host")


@dataclass(frozen=True, kw_only=True, eq=False)
class Variant:
    """One ensemble of a study, with its data."""

    swept: Mapping[str, Any]  # key -> its value here; empty where nothing is swept
    config: RunConfig
    data: DataFacts


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """What a point is planned for."""

    variant: Variant
    hardware: HardwareFile
    purpose: Purpose
    world_size: int
    host_memory: bool = False  # whether kernel auto may put tables into a GPU host's memory


@dataclass(frozen=True, kw_only=True, eq=False)
class StudiedPoint:
    """A point, and what it was asked for."""

    case: Case
    point: CapacityPoint
    table_bytes: int  # all tables, weights and state, each counted once

    def as_json(self) -> dict[str, Any]:
        """Plain values, the plan left out; the reserve of a rank, and what its host has for it beside its GPU."""
        machine = planned_hardware(self.case.hardware, world_size=self.case.world_size)
        return self.point.as_json() | {
            "swept": dict(self.case.variant.swept),
            "table_bytes": self.table_bytes,
            "reserve_bytes": round(machine.rank_bytes * machine.reserve_share),
            "host_room_bytes": int(machine.ddr_bytes * (1 - machine.reserve_share)) if machine.device == "cuda" else 0,
        }


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a study was asked for."""

    command: str
    config: str
    hardware: tuple[HardwareFile, ...]
    purposes: tuple[Purpose, ...]
    epoch_hours: float | None
    swept: Mapping[str, Sequence[Any]]  # key -> values


@dataclass(kw_only=True)
class Study:
    """What was found, so far."""

    asked: Asked
    data: DataFacts
    points: list[StudiedPoint] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was left out, and why
    remedies: dict[str, dict[str, Any]] = field(default_factory=dict)  # purpose -> what would make it fit
    growth: list[dict[str, Any]] = field(default_factory=list)
    serving: dict[str, Any] | None = None
    quality: list[dict[str, Any]] | None = None

    def of(self, purpose: str) -> list[StudiedPoint]:
        """The points that train, or that score."""
        return [one for one in self.points if one.case.purpose == purpose]

    def fits(self, purpose: str) -> bool:
        """Whether any of them fits."""
        return any(one.point.fits for one in self.of(purpose))

    def chosen(self, purpose: str) -> dict[str, StudiedPoint | None]:
        """The smallest that fits, the smallest within the deadline, and the cheapest: of cost, else of ranks' hours."""
        return self._answers([one for one in self.of(purpose) if one.point.fits])

    def chosen_of(self, purpose: str, machine: str) -> dict[str, StudiedPoint | None]:
        """As `chosen`, among the points of one kind of machine."""
        return self._answers([one for one in self.of(purpose) if one.point.fits and one.point.hardware == machine])

    def _answers(self, fitting: Sequence[StudiedPoint]) -> dict[str, StudiedPoint | None]:
        hours = self.asked.epoch_hours
        in_time = [one for one in fitting if hours is not None and one.point.hours <= hours]
        priced = all(one.point.cost is not None for one in fitting)
        return {
            "smallest": min(fitting, key=_smallness, default=None),
            "deadline": min(in_time, key=_smallness, default=None),
            "cheapest": min(fitting, key=lambda one: _price(one, priced=priced), default=None),
        }

    def recommended(self) -> StudiedPoint | None:
        """The point whose plan is worth keeping: of the first purpose that fits, in time if there is a deadline."""
        for purpose in self.asked.purposes:
            chosen = self.chosen(purpose)
            if chosen["smallest"] is not None:
                return chosen["deadline"] or chosen["smallest"]
        return None

    def unfinished(self) -> list[str]:
        """The purposes that plans, time or Ctrl-C left before all was looked at, as the notes tell."""
        stops = [note for note in self.notes if note.startswith(STOPPED)]
        return [
            purpose
            for purpose in self.asked.purposes
            if any(f"({purpose}" in note or "not begun" in note for note in stops)
        ]

    def _unpriced(self) -> list[str]:
        """What cannot be compared of several kinds of machine."""
        without = [one.name for one in self.asked.hardware if not one.host.price_per_hour]
        if len(self.asked.hardware) < 2 or not without:
            return []
        return [
            f"no price is given of {', '.join(without)}: hours of all ranks of different machines do not compare; add"
            " host.price_per_hour to their files"
        ]

    def as_json(self) -> dict[str, Any]:
        """Plain values, plans left out."""
        places = {id(one): place for place, one in enumerate(self.points)}
        features = self.data.features.table_rows
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "command": self.asked.command,
            "config": self.asked.config,
            "deadline_hours": self.asked.epoch_hours,
            "data": {
                "origin": self.data.origin,
                "train_rows": self.data.train_rows,
                "score_rows": self.data.score_rows,
                "tables": len(features),
                "ids_per_row": sum(self.data.traffic[name].mean_ids for name in features if name in self.data.traffic),
            },
            "hardware": [_machine(one) for one in self.asked.hardware],
            "swept": {key: list(values) for key, values in self.asked.swept.items()},
            "points": [one.as_json() for one in self.points],
            "chosen": {purpose: _placed(self.chosen(purpose), places) for purpose in self.asked.purposes},
            "chosen_of": {
                purpose: {one.name: _placed(self.chosen_of(purpose, one.name), places) for one in self.asked.hardware}
                for purpose in self.asked.purposes
            },
            "unfinished": self.unfinished(),
            "notes": [*self.notes, *self._unpriced()],
            "remedies": self.remedies,
            "growth": self.growth,
            "serving": self.serving,
            "quality": self.quality,
        }

    def as_csv(self) -> str:
        """A line per point; bytes are of the fullest rank of each kind, seconds of a step."""
        keys = [key for key in self.asked.swept if key not in ("hardware", "ranks")]
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=[*keys, *_CSV_COLUMNS], lineterminator="\n")
        writer.writeheader()
        for one in self.points:
            swept = {key: one.case.variant.swept[key] for key in keys}
            writer.writerow(swept | _csv_figures(one))
        return text.getvalue()


def _placed(answers: Mapping[str, StudiedPoint | None], places: Mapping[int, int]) -> dict[str, int | None]:
    return {question: None if one is None else places[id(one)] for question, one in answers.items()}


def _smallness(one: StudiedPoint) -> tuple[float, ...]:
    point = one.point
    return (point.world_size, point.num_hosts, point.cost or 0.0, point.hours)


def _price(one: StudiedPoint, *, priced: bool) -> tuple[float, ...]:
    point = one.point
    return ((point.cost or 0.0) if priced else point.device_hours, point.world_size)


def _machine(hardware: HardwareFile) -> dict[str, Any]:
    return {
        "name": hardware.name,
        "device": hardware.device,
        "ranks_per_host": hardware.host.ranks,
        "price_per_hour": hardware.host.price_per_hour,
        "capacity_bytes": hardware.rank_bytes,
        "overlap": hardware.overlap,
        "measured": hardware.measured,
        "sources": list(hardware.sources),
    }


_CSV_PLAIN = ("hardware", "purpose", "world_size", "num_hosts", "batch_size", "rows_per_rank", "num_members", "fits")
_CSV_SPEED = ("rows_per_second", "hours", "device_hours", "cost", "bottleneck", "seconds_to_plan")
_CSV_COLUMNS = (
    *_CSV_PLAIN,
    *("refused", "need_bytes", "capacity_bytes", "table_bytes", "held_bytes", *(f"{kind}_bytes" for kind in HELD)),
    *("host_bytes", "imbalance", *(f"sent_{link}_bytes" for link in _CSV_LINKS)),
    *(f"{phase}_seconds" for phase in PHASES),
    *("step_seconds", *_CSV_SPEED),
)


def _csv_figures(one: StudiedPoint) -> dict[str, Any]:
    point, plain = one.point, one.as_json()
    figures = {key: plain[key] for key in (*_CSV_PLAIN, "capacity_bytes", "table_bytes")}
    if point.refusal is not None:
        figures |= {"refused": point.refusal.sentence, "need_bytes": point.refusal.need_bytes}
    if point.held:
        figures["held_bytes"] = max(held_bytes(point))
        figures |= {f"{kind}_bytes": max(of_ranks) for kind, of_ranks in point.held.items()}
    if point.step is not None:
        figures |= {"host_bytes": max(point.host_held, default=0), "imbalance": point.imbalance}
        figures |= {f"sent_{link}_bytes": point.sent_bytes.get(link, 0) for link in _CSV_LINKS}
        figures |= {f"{phase}_seconds": point.step.parts[phase] for phase in PHASES}
        figures |= {"step_seconds": point.step.total, **{key: plain[key] for key in _CSV_SPEED}}
    return figures


def held_bytes(point: CapacityPoint) -> list[int]:
    """Bytes of each rank, the reserve left out; empty where the point was not planned."""
    return [sum(kinds) for kinds in zip(*(of for kind, of in point.held.items() if kind != "reserve"), strict=True)]
