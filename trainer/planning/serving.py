"""Serving: a request's latency with all members on one server, and with each member on a server of its own.

A server is one rank, or as many of a host as its tables need. A request's time is the sum of a step's lookup,
communication and dense parts for so many rows: making batches is left out, for requests come over the network, and
nothing overlaps within one request. The network between the servers and whoever asks them is not counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from configs.ensemble_schema import Loss, Member
from configs.errors import ConfigError, PlanError
from configs.hardware_schema import HardwareFile
from configs.schema import RunConfig
from configs.training_schema import EarlyStop
from trainer.planning.capacity_point import CapacityPoint
from trainer.planning.plans import Plans
from trainer.planning.search import world_sizes
from trainer.planning.study import Case, Variant, held_bytes

_REQUEST_PARTS = ("lookup", "communication", "dense")


def serving(variant: Variant, *, hardware: HardwareFile, request_rows: int, plans: Plans) -> dict[str, Any]:
    """Latencies and servers; members that are copies of one another are planned once.

    Args:
        variant: The ensemble.
        hardware: What servers are parts of.
        request_rows: Rows of a request.
        plans: Plans them.

    Raises:
        OutOfBudgetError: no plan or no time is left.
        PlanError: a member, or all of them together, do not fit one host.
    """
    config = variant.config
    ask = _Servers(variant, hardware=hardware, request_rows=request_rows, plans=plans)
    alone = {name: ask.server(_alone(config, name), what=f"member {name}") for name in config.members}
    together = ask.server(_scored(config, config.members), what="all members")
    seconds = {name: _seconds(point) for name, point in alone.items()}
    slowest = max(seconds, key=lambda name: seconds[name])
    copies = {name: member.copies for name, member in config.members.items()}
    return {
        "request_rows": request_rows,
        "hardware": hardware.name,
        "one_server_seconds": _seconds(together),
        "one_server_ranks": together.world_size,
        "one_server_bytes": max(held_bytes(together)),
        "parallel_seconds": seconds[slowest],
        "parallel_servers": sum(copies.values()),
        "parallel_ranks": sum(copies[name] * point.world_size for name, point in alone.items()),
        "slowest_member": slowest,
        "members": seconds,
        "member_ranks": {name: point.world_size for name, point in alone.items()},
        "member_bytes": {name: max(held_bytes(point)) for name, point in alone.items()},
        "member_copies": copies,
    }


def check_request_rows(rows: int) -> None:
    """Refuses a request without rows.

    Raises:
        ConfigError: names the flag.
    """
    if rows < 1:
        raise ConfigError(f"--request-rows: {rows} is no request; give 1 or more")


def _alone(config: RunConfig, name: str) -> RunConfig:
    """The run with this member alone, without its copies, as far as scoring goes."""
    return _scored(config, {name: dataclasses.replace(config.members[name], copies=1)})


def _scored(config: RunConfig, members: Mapping[str, Member]) -> RunConfig:
    """The run with these members, without what is training's alone and may name others."""
    used = {member.tables for member in members.values()}
    return dataclasses.replace(
        config,
        members={name: dataclasses.replace(member, freeze=False) for name, member in members.items()},
        tables={name: group for name, group in config.tables.items() if name in used},
        train=dataclasses.replace(config.train, watch=type(config.train.watch)(), early_stop=EarlyStop()),
        loss=Loss(),
    )


def _seconds(point: CapacityPoint) -> float:
    assert point.step is not None
    return sum(point.step.parts[part] for part in _REQUEST_PARTS)


class _Servers:
    def __init__(self, variant: Variant, *, hardware: HardwareFile, request_rows: int, plans: Plans) -> None:
        self._variant, self._hardware, self._rows, self._plans = variant, hardware, request_rows, plans

    def server(self, config: RunConfig, *, what: str) -> CapacityPoint:
        """The smallest part of a host that holds it."""
        why = ""
        for size in world_sizes(self._hardware, most=self._hardware.host.ranks):
            score = dataclasses.replace(config.score, batch_size=-(-self._rows // size))
            variant = dataclasses.replace(self._variant, config=dataclasses.replace(config, score=score))
            case = Case(variant=variant, hardware=self._hardware, purpose="score", world_size=size)
            point = self._plans.try_point(case)
            if point.refusal is None:
                return point
            why = point.refusal.sentence
        raise PlanError(
            f"--serving: {what} on one server: no part of a host of {self._hardware.name} holds the tables ({why});"
            f" {_remedy(config)}"
        )


def _remedy(config: RunConfig) -> str:
    """What is left to do for a server that does not hold these members."""
    int8 = ['quantise them with score.tables = "int8"'] * (config.score.tables != "int8")
    fewer = ["put fewer members on a server"] * (len(config.expanded_members()) > 1)
    return ", ".join([*int8, "take a smaller dim", *fewer]) + ", or name hosts with more memory"
