"""CapacityPoint: what one ensemble takes on so many ranks of one kind of machine, or why it does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

PHASES = ("data", "lookup", "communication", "dense", "optimizer")
# Kinds of bytes that a rank holds where it computes (its GPU, or its share of a CPU host), in the order they are shown.
HELD = (
    "table_weights",
    "table_optimizer",
    "table_gradients",
    "table_cache",
    "id_buffers",
    "embedding_buffers",
    "dense_weights",
    "dense_gradients",
    "dense_optimizer",
    "activations",
    "best_weights",
    "batches",  # those made ahead; on CPU hosts the shuffle windows too
    "checkpoint_copy",  # CPU hosts: the state, while a checkpoint is written beside training
    "process",  # libraries, context
    "reserve",
)


@dataclass(frozen=True, kw_only=True)
class StepSeconds:
    """A step of the slowest rank."""

    parts: Mapping[str, float]  # of PHASES, as if nothing overlapped
    total: float  # as the machine overlaps them

    @property
    def bottleneck(self) -> str:
        """The part that takes longest."""
        return max(self.parts, key=lambda phase: self.parts[phase])


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why it does not fit."""

    where: Literal["device", "host", "placement", "planner"]
    need_bytes: int  # of the fullest rank, or of all where `per` says so
    capacity_bytes: int
    sentence: str


@dataclass(frozen=True, kw_only=True)
class CapacityPoint:
    """One ensemble on so many ranks of one kind of machine."""

    hardware: str
    device: Literal["cpu", "cuda"]
    purpose: Literal["train", "score"]
    world_size: int
    num_hosts: int
    batch_size: int
    rows_per_rank: int
    num_members: int
    refusal: Refusal | None  # None: it fits, and all below is there
    held: Mapping[str, tuple[int, ...]]  # of HELD -> bytes of each rank; empty where it was not planned
    host_held: tuple[int, ...]  # bytes that each rank puts into a GPU host's memory
    capacity_bytes: int  # of a rank, the reserve not taken off
    imbalance: float  # the fullest rank's bytes of tables over the mean
    tables_per_sharding_type: Mapping[str, int]
    sent_bytes: Mapping[str, int]  # link (intra_host, inter_host) -> of the busiest rank in a step
    step: StepSeconds | None
    dense_shares: Mapping[str, float]  # member -> its share of all members' forward passes, by time
    rows_per_second: float  # of all ranks
    hours: float  # of an epoch, or of scoring all rows
    cost: float | None  # of those hours; None without a price
    plan: Mapping[str, Any] | None  # as a plan file has it
    seconds_to_plan: float

    @property
    def fits(self) -> bool:
        """Whether it fits."""
        return self.refusal is None

    @property
    def device_hours(self) -> float:
        """Hours of all ranks."""
        return self.hours * self.world_size

    def as_json(self) -> dict[str, Any]:
        """Plain values, the plan left out."""
        return {
            "hardware": self.hardware,
            "device": self.device,
            "purpose": self.purpose,
            "world_size": self.world_size,
            "num_hosts": self.num_hosts,
            "batch_size": self.batch_size,
            "rows_per_rank": self.rows_per_rank,
            "num_members": self.num_members,
            "fits": self.fits,
            "refusal": None if self.refusal is None else vars(self.refusal),
            "held_bytes_per_rank": {kind: list(of_ranks) for kind, of_ranks in self.held.items()},
            "host_bytes_per_rank": list(self.host_held),
            "capacity_bytes": self.capacity_bytes,
            "imbalance": self.imbalance,
            "tables_per_sharding_type": dict(self.tables_per_sharding_type),
            "sent_bytes_per_step": dict(self.sent_bytes),
            "step_seconds": None if self.step is None else dict(self.step.parts) | {"total": self.step.total},
            "dense_shares": dict(self.dense_shares),
            "bottleneck": None if self.step is None else self.step.bottleneck,
            "rows_per_second": self.rows_per_second,
            "hours": self.hours,
            "device_hours": self.device_hours,
            "cost": self.cost,
            "seconds_to_plan": self.seconds_to_plan,
        }
