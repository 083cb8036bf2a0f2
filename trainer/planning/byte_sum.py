"""ByteSum: the least that an ensemble's weights and optimizer state take on a rank under any plan, by arithmetic.

It counts tables and dense parameters, and the copy of both that checkpoints are written from, the tables spread as
evenly as their placements allow; buffers, batches and activations come on top. So what it rules out no planner can
place, and what it lets through may still not fit.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import torch

from configs.ensemble_schema import COLUMN_PLACEMENTS
from configs.hardware_schema import HardwareFile
from configs.schema import RunConfig
from modules.tables import TableSpec
from sharding.constraints import piece_columns
from sharding.hardware import Hardware, planned_hardware
from sharding.ledger import STATE_VALUES
from trainer.built_task import build_task
from trainer.data.reading.source import SourceFeatures
from trainer.planning.page.words import size
from trainer.quantised_tables import quantised_bytes

Purpose = Literal["train", "score"]
Memory = Literal["device", "host"]  # where ranks compute, or that of a GPU's host

_VALUE_BYTES = 4
_CACHED_SHARE = 0.2  # of the weights, in a GPU's cache before host memory, as fbgemm has it
_ONE_RANK = ("table_wise", "column_wise", "table_column_wise")
_ONE_HOST = ("table_row_wise", "grid")


@dataclass(frozen=True, kw_only=True)
class TableBytes:
    """A table: what a row of it takes, and how far its placement spreads it."""

    name: str
    key: str  # where the config speaks of it, as tables.shared
    feature: str
    rows: int
    device_bytes: float  # of a row, where ranks compute
    host_bytes: float = 0.0  # of a row, in the memory of a GPU's host
    copy_bytes: float = 0.0  # of a row, in the copy that checkpoints are written from
    columns: int = 0
    spread: Literal["every_rank", "one_rank", "one_host", "all_ranks"] = "all_ranks"
    piece_share: float = 1.0  # of a row: columns that stay together

    def least(self, row_bytes: float, *, on: Hardware) -> float:
        """The least that the rank with the most of this table holds of it."""
        total = self.rows * row_bytes
        if self.spread == "every_rank":
            return total
        if self.spread == "all_ranks":
            return total / on.world_size
        num_ranks = 1 if self.spread == "one_rank" else on.local_world_size
        return total * self.piece_share / num_ranks


@dataclass(frozen=True, kw_only=True)
class Shortfall:
    """Memory that is not there."""

    where: Literal["device", "host", "placement"]
    need_bytes: int  # of a rank, reserve and process included
    capacity_bytes: int  # of a rank
    sentence: str


@dataclass(frozen=True, kw_only=True)
class ByteSum:
    """Tables and dense parameters in bytes, the best weights that early stop keeps included."""

    tables: tuple[TableBytes, ...]
    dense_bytes: int  # on every rank: weights, and in training gradients and optimizer state
    dense_copy_bytes: int = 0  # on every rank, in the copy that checkpoints are written from
    copy_in: Memory = "device"  # where that copy lies
    purpose: Purpose = "train"
    is_replicated: bool = False  # every rank holds all tables, quantised

    @property
    def table_bytes(self) -> int:
        """All tables, weights and state, each counted once."""
        return round(sum(table.rows * (table.device_bytes + table.host_bytes) for table in self.tables))

    def grown(self, factor: float) -> ByteSum:
        """With so many times the rows in every table."""
        return dataclasses.replace(
            self,
            tables=tuple(dataclasses.replace(table, rows=math.ceil(table.rows * factor)) for table in self.tables),
        )

    def least_per_rank(self, hardware: HardwareFile, *, world_size: int, memory: Memory = "device") -> int:
        """The least that the fullest rank holds where it computes, in its GPU or its share of a CPU host.

        Args:
            hardware: The kind of machine.
            world_size: Ranks.
            memory: "host": in a GPU host's memory instead.
        """
        return round(self._least(memory, on=planned_hardware(hardware, world_size=world_size)))

    def shortfall(self, hardware: HardwareFile, *, world_size: int, host_memory: bool = False) -> Shortfall | None:
        """What so many ranks lack for any plan; None: the bytes alone do not rule them out.

        Args:
            hardware: The kind of machine.
            world_size: Ranks.
            host_memory: Whether tables may lie in GPU hosts' memory whatever their kernel.
        """
        on = planned_hardware(hardware, world_size=world_size)
        need, capacity = self._least("device", on=on), room(hardware, world_size=world_size)
        of_host = host_room(hardware, world_size=world_size)
        if host_memory and hardware.device == "cuda":
            both, there = self._least("device", "host", on=on), capacity + of_host
            if both > there:
                sentence = (
                    f"{self.kinds('device', 'host')} take at least {size(both)} of GPU and host memory on a rank of"
                    f" {world_size}, and beside the reserve and the process there are {size(max(there, 0))}"
                )
                return Shortfall(where="host", need_bytes=round(both), capacity_bytes=there, sentence=sentence)
        elif need > capacity:
            return self._device_shortfall(need, capacity=capacity, on=on)
        need = self._least("host", on=on)
        if hardware.device == "cuda" and need > of_host:
            sentence = (
                f"{self.kinds('host')} take at least {size(need)} of a rank's share of its host's memory, which is"
                f" {size(of_host)} beside the reserve"
            )
            return Shortfall(where="host", need_bytes=round(need), capacity_bytes=of_host, sentence=sentence)
        return None

    def _device_shortfall(self, need: float, *, capacity: int, on: Hardware) -> Shortfall:
        where: Literal["device", "host", "placement"] = "device" if on.device == "cuda" else "host"
        subject = f"{self.kinds('device')} take"
        if (table := self._too_large(capacity, on=on)) is not None:
            where, subject = "placement", f"table {table.name} alone takes, placed as {table.key} says,"
        sentence = (
            f"{subject} at least {size(need)} on a rank of {on.world_size}, and beside the reserve and the process"
            f" there are {size(max(capacity, 0))}"
        )
        if self.is_replicated:
            sentence += "; every rank holds all tables: more ranks do not help"
        need += on.rank_bytes - capacity
        return Shortfall(where=where, need_bytes=round(need), capacity_bytes=on.rank_bytes, sentence=sentence)

    def kinds(self, *memories: Memory) -> str:
        """What is counted in these kinds of memory, in words."""
        kinds = ["weights"]
        if "device" not in memories:
            kinds = ["tables"] if any(table.host_bytes for table in self.tables) else []
        elif self.purpose == "train":
            kinds.append("optimizer state")
        if self.dense_copy_bytes and self.copy_in in memories:
            kinds.append("the checkpoint's copy (checkpoint.background)")
        return " and ".join(filter(None, [", ".join(kinds[:-1]), *kinds[-1:]]))

    def _least(self, *memories: Memory, on: Hardware) -> float:
        """Of these kinds of memory together."""
        cut = [table for table in self.tables if table.spread != "every_rank"]
        everywhere = [table for table in self.tables if table.spread == "every_rank"]
        row = {table.name: sum(self._row_bytes(table, memory) for memory in memories) for table in self.tables}
        replicated = sum(table.rows * row[table.name] for table in everywhere)
        dense = self.dense_bytes * ("device" in memories) + self.dense_copy_bytes * (self.copy_in in memories)
        spread = sum(table.rows * row[table.name] for table in cut) / on.world_size
        return replicated + dense + max(spread, *(table.least(row[table.name], on=on) for table in cut), 0.0)

    def _row_bytes(self, table: TableBytes, memory: Memory) -> float:
        held = table.device_bytes if memory == "device" else table.host_bytes
        return held + table.copy_bytes * (self.copy_in == memory)

    def _too_large(self, capacity: float, *, on: Hardware) -> TableBytes | None:
        """The largest of the tables that their placement puts where they do not fit even alone."""
        bound = (table for table in self.tables if table.spread not in ("all_ranks", "every_rank"))
        of = ((table.least(self._row_bytes(table, "device"), on=on), table) for table in bound)
        found = [(least, table) for least, table in of if least > capacity]
        return max(found, key=lambda one: one[0])[1] if found else None


def room(hardware: HardwareFile, *, world_size: int) -> int:
    """Bytes of a rank, where it computes, that are there beside the reserve and its process."""
    return planned_hardware(hardware, world_size=world_size).free_bytes(
        taken_bytes=round(hardware.memory.process_gib * 2**30)
    )


def host_room(hardware: HardwareFile, *, world_size: int) -> int:
    """Bytes of a rank's share of its host's memory that are there beside the reserve."""
    on = planned_hardware(hardware, world_size=world_size)
    return int(on.ddr_bytes * (1 - on.reserve_share))


def byte_sum(
    config: RunConfig, *, features: SourceFeatures, purpose: Purpose, device: Literal["cpu", "cuda"]
) -> ByteSum:
    """Adds up an ensemble, which is built on the meta device.

    Args:
        config: The run.
        features: What the rows hold.
        purpose: Scoring has neither gradients nor optimizer state, and may quantise rows.
        device: What ranks compute on.

    Raises:
        ConfigError: the ensemble cannot be built of these features.
    """
    # Copies that are computed as one have the same weights, and telling whether they can be needs real ones.
    alone = dataclasses.replace(config, dense=dataclasses.replace(config.dense, batch_copies=False))
    with torch.device("meta"):
        built = build_task(alone, features=features)
    ensemble = built.task.ensemble
    members = dict(config.expanded_members())
    keeps_best = purpose == "train" and config.train.early_stop.evaluations > 0
    copies = purpose == "train" and config.checkpoint.background
    dense = dense_copy = 0
    for name, module in ensemble.bank.members.items():
        rule = members[name].optimizer or config.dense.optimizer
        values = 1 if purpose == "score" else 2 + keeps_best + STATE_VALUES[rule]
        parameter_bytes = _VALUE_BYTES * sum(parameter.numel() for parameter in module.parameters())
        dense += values * parameter_bytes
        dense_copy += (values - 1) * parameter_bytes * copies  # gradients are not kept
    if purpose == "score" and config.score.tables != "sharded":
        dtype, of = config.score.tables, torch.device(device)
        quantised = (_quantised(spec, quantised_bytes([spec], dtype=dtype, device=of)) for spec in built.specs)
        return ByteSum(tables=tuple(quantised), dense_bytes=dense, purpose=purpose, is_replicated=True)
    frozen = ensemble.frozen_groups
    tables = (
        _table(spec, trains=purpose == "train" and spec.group not in frozen, keeps_best=keeps_best, device=device)
        for spec in built.specs
    )
    return ByteSum(
        tables=tuple(table if copies else dataclasses.replace(table, copy_bytes=0.0) for table in tables),
        dense_bytes=dense,
        dense_copy_bytes=dense_copy,
        copy_in="host" if device == "cuda" else "device",
        purpose=purpose,
    )


def _table(spec: TableSpec, *, trains: bool, keeps_best: bool, device: str) -> TableBytes:
    weights = _VALUE_BYTES * spec.dim
    placement = "data_parallel" if trains and device == "cpu" and spec.optimizer == "adam" else spec.placement
    columns = piece_columns(spec.dim) if placement in COLUMN_PLACEMENTS else spec.dim
    state = 0
    if trains:
        by_row = spec.optimizer == "rowwise_adagrad"
        state = _VALUE_BYTES * (spec.dim // columns) if by_row else weights * STATE_VALUES[spec.optimizer]
    best = weights * keeps_best
    on_device: float = best + (2 if trains and placement == "data_parallel" else 1) * weights + state
    on_host: float = 0.0
    if device == "cuda" and spec.kernel in ("uvm", "uvm_caching") and placement != "data_parallel":
        on_device = best + _CACHED_SHARE * weights * (spec.kernel == "uvm_caching")
        on_host = weights + state
    return TableBytes(
        name=spec.name,
        key=spec.key,
        feature=spec.feature,
        rows=spec.num_rows,
        device_bytes=on_device,
        host_bytes=on_host,
        copy_bytes=best * (not on_host) + weights + state,
        columns=spec.dim,
        spread=_spread_of(placement),
        piece_share=columns / spec.dim,
    )


def _spread_of(placement: str) -> Literal["every_rank", "one_rank", "one_host", "all_ranks"]:
    if placement == "data_parallel":
        return "every_rank"
    return "one_rank" if placement in _ONE_RANK else "one_host" if placement in _ONE_HOST else "all_ranks"


def _quantised(spec: TableSpec, count: int) -> TableBytes:
    row = count / spec.num_rows
    return TableBytes(
        name=spec.name,
        key=spec.key,
        feature=spec.feature,
        rows=spec.num_rows,
        device_bytes=row,
        columns=spec.dim,
        spread="every_rank",
    )
