"""ByteSum: the least that an ensemble's weights and optimizer state take on a rank under any plan, by arithmetic.

It counts tables and dense parameters alone, the tables spread as evenly as their placements allow; buffers, batches and
activations come on top. So what it rules out no planner can place, and what it lets through may still not fit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from configs.ensemble_schema import COLUMN_PLACEMENTS
from configs.hardware_schema import HardwareFile
from configs.schema import RunConfig
from modules.tables import TableSpec
from sharding.constraints import piece_columns
from sharding.hardware import Hardware, planned_hardware
from trainer.built_task import build_task
from trainer.data.reading.source import SourceFeatures
from trainer.planning.page.words import size
from trainer.quantised_tables import quantised_bytes

Purpose = Literal["train", "score"]

_VALUE_BYTES = 4
# Rule -> state values of one weight; row-wise Adagrad keeps one of a row, or of a piece of a row.
_STATE_VALUES: Mapping[str, int] = {"sgd": 0, "adagrad": 1, "adam": 2, "dense_adam": 2}
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

    def least_per_rank(self, hardware: HardwareFile, *, world_size: int) -> int:
        """The least that the fullest rank holds where it computes: in its GPU, or in its share of a CPU host."""
        return round(self._least("device_bytes", on=planned_hardware(hardware, world_size=world_size)))

    def shortfall(self, hardware: HardwareFile, *, world_size: int) -> Shortfall | None:
        """What so many ranks lack for any plan; None: the bytes alone do not rule them out."""
        on = planned_hardware(hardware, world_size=world_size)
        need, capacity = self._least("device_bytes", on=on), room(hardware, world_size=world_size)
        where: Literal["device", "host", "placement"] = "device" if hardware.device == "cuda" else "host"
        if need > capacity:
            subject = "weights and optimizer state take"
            if (table := self._too_large(capacity, on=on)) is not None:
                where, subject = "placement", f"table {table.name} alone takes, placed as {table.key} says,"
            sentence = (
                f"{subject} at least {size(need)} on a rank of {world_size}, and beside the reserve and the process"
                f" there are {size(max(capacity, 0))}"
            )
            need += on.rank_bytes - capacity
            return Shortfall(where=where, need_bytes=round(need), capacity_bytes=on.rank_bytes, sentence=sentence)
        need, capacity = self._least("host_bytes", on=on), on.ddr_bytes
        if hardware.device == "cuda" and need > capacity:
            sentence = f"tables in host memory take at least {size(need)} a rank, whose share of it is {size(capacity)}"
            return Shortfall(where="host", need_bytes=round(need), capacity_bytes=capacity, sentence=sentence)
        return None

    def _least(self, kind: str, *, on: Hardware) -> float:
        replicated = self._replicated(kind) + (self.dense_bytes if kind == "device_bytes" else 0)
        pieces = [table.least(getattr(table, kind), on=on) for table in self._cut]
        return replicated + max(self._spread(kind) / on.world_size, *pieces, 0.0)

    @property
    def _cut(self) -> list[TableBytes]:
        return [table for table in self.tables if table.spread != "every_rank"]

    def _spread(self, kind: str) -> float:
        return sum(table.rows * getattr(table, kind) for table in self._cut)

    def _replicated(self, kind: str) -> float:
        return sum(table.rows * getattr(table, kind) for table in self.tables if table.spread == "every_rank")

    def _too_large(self, capacity: float, *, on: Hardware) -> TableBytes | None:
        """The largest of the tables that their placement puts where they do not fit even alone."""
        bound = (table for table in self._cut if table.spread != "all_ranks")
        found = [(least, table) for table in bound if (least := table.least(table.device_bytes, on=on)) > capacity]
        return max(found, key=lambda one: one[0])[1] if found else None


def room(hardware: HardwareFile, *, world_size: int) -> int:
    """Bytes of a rank, where it computes, that are there beside the reserve and its process."""
    return planned_hardware(hardware, world_size=world_size).free_bytes(
        taken_bytes=round(hardware.memory.process_gib * 2**30)
    )


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
    dense = 0
    for name, module in ensemble.bank.members.items():
        rule = members[name].optimizer or config.dense.optimizer
        values = 1 if purpose == "score" else 2 + keeps_best + _STATE_VALUES[rule]
        dense += _VALUE_BYTES * values * sum(parameter.numel() for parameter in module.parameters())
    if purpose == "score" and config.score.tables != "sharded":
        dtype, of = config.score.tables, torch.device(device)
        quantised = (_quantised(spec, quantised_bytes([spec], dtype=dtype, device=of)) for spec in built.specs)
        return ByteSum(tables=tuple(quantised), dense_bytes=dense)
    frozen = ensemble.frozen_groups
    tables = (
        _table(spec, trains=purpose == "train" and spec.group not in frozen, keeps_best=keeps_best, device=device)
        for spec in built.specs
    )
    return ByteSum(tables=tuple(tables), dense_bytes=dense)


def _table(spec: TableSpec, *, trains: bool, keeps_best: bool, device: str) -> TableBytes:
    weights = _VALUE_BYTES * spec.dim
    placement = "data_parallel" if trains and device == "cpu" and spec.optimizer == "adam" else spec.placement
    columns = piece_columns(spec.dim) if placement in COLUMN_PLACEMENTS else spec.dim
    state = 0
    if trains:
        by_row = spec.optimizer == "rowwise_adagrad"
        state = _VALUE_BYTES * (spec.dim // columns) if by_row else weights * _STATE_VALUES[spec.optimizer]
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
        spread="every_rank",
    )
