"""Capacity studies made by arithmetic: tables that split evenly, rates that fall off as ranks talk more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trainer.planning.capacity_point import CapacityPoint, Refusal, StepSeconds

GIB = 2**30
TABLE_BYTES = 97 * GIB  # of one set of tables
TRAIN_ROWS, SCORE_ROWS = 4_195_197_692, 178_274_637


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A kind of machine of a made study."""

    name: str
    device: Literal["cpu", "cuda"]
    ranks_per_host: int
    capacity_bytes: int
    price_per_hour: float
    pace: float  # against the first
    measured: str = ""


A100 = Machine(
    name="A100 40GB x8", device="cuda", ranks_per_host=8, capacity_bytes=40 * GIB, price_per_hour=32.8, pace=1
)
H100 = Machine(
    name="H100 80GB x8", device="cuda", ranks_per_host=8, capacity_bytes=80 * GIB, price_per_hour=98.3, pace=2.4
)
CPU = Machine(
    name="Xeon host x4",
    device="cpu",
    ranks_per_host=4,
    capacity_bytes=96 * GIB,
    price_per_hour=0.0,
    pace=0.02,
    measured="2025-01-02, torch 2.13.0",
)


def made_study(
    *,
    machines: Sequence[Machine] = (A100, H100),
    ranks: Sequence[int] = (2, 4, 8, 16, 32),
    swept: Mapping[str, Sequence[Any]] | None = None,
    purposes: Sequence[Literal["train", "score"]] = ("train", "score"),
    with_more: bool = True,
) -> dict[str, Any]:
    """A study of every machine at every number of ranks, with the keys of tools/plan_capacity.py --json."""
    sweep = {"members": [1, 2, 4, 8], "tables": ["shared", "own"]} if swept is None else dict(swept)
    settings: list[dict[str, Any]] = [{}]
    for key, found in sweep.items():
        settings = [one | {key: value} for one in settings for value in found]
    points = [
        made_point(machine, world_size, purpose, setting)
        for purpose in purposes
        for machine in machines
        for setting in settings
        for world_size in ranks
    ]
    chosen = {purpose: _chosen(points, purpose) for purpose in purposes}
    chosen_of = {purpose: {one.name: _chosen(points, purpose, one.name) for one in machines} for purpose in purposes}
    return {
        "format": "chorus-capacity",
        "format_version": 1,
        "command": "tools/plan_capacity.py --config configs/made.toml --hardware a.toml,b.toml",
        "config": "made",
        "data": {
            "origin": "configs/outlines/made.toml",
            "train_rows": TRAIN_ROWS,
            "score_rows": SCORE_ROWS,
            "tables": 26,
            "ids_per_row": 214.0,
        },
        "hardware": [_hardware(machine) for machine in machines],
        "swept": sweep,
        "points": points,
        "chosen": chosen,
        "chosen_of": chosen_of,
        "unfinished": [],
        "growth": _growth(points, chosen, ranks) if with_more else [],
        "serving": _serving() if with_more else None,
        "quality": _quality(sweep.get("members", ())) or None if with_more else None,
    }


def made_point(machine: Machine, world_size: int, purpose: Literal["train", "score"], setting: dict) -> dict[str, Any]:
    """A point of the study."""
    members = setting.get("members", 4)
    sets = members if setting.get("tables", "shared") == "own" else 1
    factor = 2 if purpose == "train" else 1
    rows = 65_536 // world_size
    table_bytes = TABLE_BYTES * sets
    held = {
        "table_weights": table_bytes // world_size,
        "table_optimizer": (factor - 1) * table_bytes // world_size // 8,
        "embedding_buffers": rows * 26 * 128 * 4 * sets * 3,
        "id_buffers": rows * 214 * 16 * sets,
        "dense_weights": members * 90 * 2**20,
        "dense_gradients": members * (factor - 1) * 90 * 2**20,
        "dense_optimizer": members * (factor - 1) * 180 * 2**20,
        "activations": members * rows * 60_000 * factor,
        "process": 2 * GIB,
        "reserve": machine.capacity_bytes * 15 // 100,
    }
    need = sum(held.values())
    fits = need <= machine.capacity_bytes
    parts = {
        "data": rows / 4e6 / machine.pace,
        "lookup": factor * rows * sets * 214 / 4e8 / machine.pace,
        "communication": rows * sets * 26 * 512 / 6e10 * (1 + math.log2(world_size)) / machine.pace,
        "dense": factor * members * rows * 4e-8 / machine.pace,
        "optimizer": (factor - 1) * members * 4e-4 / machine.pace,
    }
    total = sum(parts.values()) - parts["data"]
    per_second = rows * world_size / total
    hours = (TRAIN_ROWS if purpose == "train" else SCORE_ROWS) / per_second / 3600
    hosts = -(-world_size // machine.ranks_per_host)
    sent = rows * sets * 26 * 512
    inside = min(world_size, machine.ranks_per_host) - 1
    point = CapacityPoint(
        hardware=machine.name,
        device=machine.device,
        purpose=purpose,
        world_size=world_size,
        num_hosts=hosts,
        batch_size=65_536,
        rows_per_rank=rows,
        num_members=members,
        refusal=None if fits else _refusal(need, machine, world_size),
        held={kind: _of_ranks(count, world_size) for kind, count in held.items()} if fits else {},
        host_held=(3 * GIB,) * world_size if fits else (),
        capacity_bytes=machine.capacity_bytes,
        imbalance=1.07,
        tables_per_sharding_type={"row_wise": 8, "table_wise": 18},
        sent_bytes={
            "intra_host": sent * inside // world_size,
            "inter_host": sent * (world_size - 1 - inside) // world_size,
        },
        step=StepSeconds(parts=parts, total=total) if fits else None,
        dense_shares={},
        rows_per_second=per_second if fits else 0.0,
        hours=hours if fits else 0.0,
        cost=hours * hosts * machine.price_per_hour if fits and machine.price_per_hour else None,
        plan=None,
        seconds_to_plan=0.3,
    )
    return point.as_json() | {
        "swept": dict(setting),
        "table_bytes": table_bytes,
        "reserve_bytes": held["reserve"],
        "host_room_bytes": 100 * GIB if machine.device == "cuda" else 0,
    }


def _of_ranks(count: int, world_size: int) -> tuple[int, ...]:
    return tuple(count - rank * count // (50 * world_size) for rank in range(world_size))


def _refusal(need: int, machine: Machine, world_size: int) -> Refusal:
    where: Literal["device", "planner"] = "device" if need > 1.3 * machine.capacity_bytes else "planner"
    sentence = (
        f"{need / GIB:.1f} GiB are needed on each of {world_size} ranks, of which {machine.name} has"
        f" {machine.capacity_bytes / GIB:.1f} GiB; take more ranks"
    )
    return Refusal(where=where, need_bytes=need, capacity_bytes=machine.capacity_bytes, sentence=sentence)


def _chosen(points: Sequence[Mapping[str, Any]], purpose: str, machine: str = "") -> dict[str, int | None]:
    """Of the largest ensemble, as the tool asks for one; of one machine where it is named."""
    of_purpose = [place for place, point in enumerate(points) if point["purpose"] == purpose]
    last = points[of_purpose[-1]]["swept"]
    fitting = [place for place in of_purpose if points[place]["fits"] and points[place]["swept"] == last]
    fitting = [place for place in fitting if machine in ("", points[place]["hardware"])]
    fast = [place for place in fitting if points[place]["hours"] <= 8]
    priced = [place for place in fitting if points[place]["cost"] is not None]

    def fewest(places: Sequence[int]) -> int | None:
        return min(places, key=lambda place: points[place]["world_size"], default=None)

    cheapest = min(priced or fitting, key=lambda place: points[place]["cost"] or 0.0, default=None)
    return {"smallest": fewest(fitting), "deadline": fewest(fast), "cheapest": cheapest}


def _hardware(machine: Machine) -> dict[str, Any]:
    return {
        "name": machine.name,
        "device": machine.device,
        "ranks_per_host": machine.ranks_per_host,
        "price_per_hour": machine.price_per_hour,
        "capacity_bytes": machine.capacity_bytes,
        "measured": machine.measured,
        "sources": ["the maker's data sheet, table 2", "list price of a provider, on demand"],
    }


def _growth(
    points: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any], ranks: Sequence[int]
) -> list[dict[str, Any]]:
    percent, found = 5.0, []
    smallest = [points[answers["smallest"]] for answers in chosen.values() if answers["smallest"] is not None]
    for point in {(one["hardware"], one["world_size"]): one for one in smallest}.values():
        factor = 0.8 * point["capacity_bytes"] * point["world_size"] / (1.125 * point["table_bytes"])
        rows_factor = max(factor, 1.02)
        needed = {
            str(month): next((rank for rank in ranks if rank / point["world_size"] * rows_factor >= 1.05**month), None)
            for month in (6, 12, 24)
        }
        found.append(
            {
                "hardware": point["hardware"],
                "world_size": point["world_size"],
                "months": math.log(rows_factor) / math.log(1 + percent / 100),
                "rows_factor": rows_factor,
                "ranks_at": needed,
                "percent_per_month": percent,
            }
        )
    return found


def _serving() -> dict[str, Any]:
    members = {"dcn": 0.0021, "deepfm": 0.0013, "final_mlp": 0.0034, "an_mlp_with_a_long_name": 0.0011}
    slowest = max(members, key=lambda name: members[name])
    return {
        "request_rows": 512,
        "one_server_seconds": sum(members.values()),
        "slowest_member": slowest,
        "parallel_seconds": members[slowest],
        "members": members,
    }


def _quality(members: Sequence[int]) -> list[dict[str, Any]]:
    return [{"members": count, "auc": 0.8052 - 0.004 / count, "interval": 0.0003} for count in members]
