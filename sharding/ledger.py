"""Ledger: what a plan costs each rank, added up table by table: bytes held, bytes sent, rows looked up.

Legend: W ranks, H ranks of a host, N = W / H hosts, B rows of a rank's batch, L mean ids of a bag, R rows and D columns
of a table, r rows and c columns of a shard. A value, an id and a bag's length have 4 bytes each. Ids are taken to be
spread evenly over a table's rows; real ids crowd in the first ones, so the first rank of row-wise kinds gets more.

Bytes held, per rank:

- table_weights: 4 r c per shard; 4 R D of a data-parallel table on every rank; a quantised table's own bytes of a row.
- table_optimizer: rowwise_adagrad 4 r, adagrad 4 r c, adam 8 r c, sgd 0 per shard.
- table_gradients: 4 R D of a data-parallel table; the others update in the backward pass.
- table_cache: load factor (0.2 unless given) of the weights of a fused_uvm_caching shard.
- host_tables: weights and optimizer state under the uvm kernels, which lie in host memory; not in the total.
- dense_weights 4 P, dense_gradients 4 P (8 P beyond one rank: they are reduced in a copy), dense_optimizer adam 8 P,
  adagrad 4 P, sgd 0, for the P dense parameters under each rule. What is frozen counts as if it were trained.
- best_weights: table_weights and dense_weights once more, where early stop keeps the best.
- id_buffers: what a rank sends, itself included, 4 B (L r/R + 1) per shard of any rank, and what it gets,
  4 W B (L r/R + 1) per shard of its own. Of a data-parallel table 4 B (L + 1).
- embedding_buffers: 4 W B c per shard of its own and 4 B D per table; twice that in training, for the gradients.

Bytes sent to other ranks in one step, per rank; the same are received, where to is said with them:

- ids_all_to_all: to each other rank 4 B (L r/R + 1) per shard that it holds.
- pooled_all_to_all: the rank of a shard of table_wise, column_wise, table_column_wise sends 4 B c to each other rank;
  each rank of a host of table_row_wise, grid_shard sends 4 B c to its N - 1 peers of other hosts.
- pooled_gradients_all_to_all: the same bytes on the way back.
- reduce_scatter: row_wise 4 (W - 1) B D on every rank; table_row_wise, grid_shard 4 (H - 1) N B c within the host.
- gradients_all_gather: the same bytes on the way back.
- data_parallel_all_reduce: 8 (W - 1)/W R D on every rank (a ring); on CPU beyond two ranks 4 (W - 1) R D, since
  gradients are added in rank order there.
- dense_all_reduce: 8 (W - 1)/W P on every rank.

Of these to other hosts: all_to_all counts each pair of ranks. The other collectives go in rings, and what goes round a
ring leaves each host once: on GPUs, where nccl has as many rings as a host has links, 1/H of every rank's bytes; on
CPUs, where gloo has one ring in rank order, all bytes of the last rank of each host and none of the others.

Looked up in one step, per shard, over all ranks' rows: W B L r/R ids into W B bags; of a data-parallel table each rank
looks up its own B L ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torchrec.distributed.types import ShardingType

_VALUE_BYTES = 4
_ID_BYTES = 4
_DEFAULT_CACHE_LOAD_FACTOR = 0.2  # fbgemm's
_CACHED_KERNEL = "fused_uvm_caching"
_HOST_KERNELS = ("fused_uvm", _CACHED_KERNEL)
HOST_KIND = "host_tables"
_DENSE = ("dense_weights", "dense_gradients", "dense_optimizer")
_HELD = (
    "table_weights",
    "table_optimizer",
    "table_gradients",
    "table_cache",
    *_DENSE,
    "best_weights",
    "id_buffers",
    "embedding_buffers",
    HOST_KIND,
)
_MOVED = (
    "ids_all_to_all",
    "pooled_all_to_all",
    "pooled_gradients_all_to_all",
    "reduce_scatter",
    "gradients_all_gather",
    "data_parallel_all_reduce",
    "dense_all_reduce",
)
_ON_ONE_RANK = (
    ShardingType.TABLE_WISE.value,
    ShardingType.COLUMN_WISE.value,
    ShardingType.TABLE_COLUMN_WISE.value,
)
# Rule -> optimizer state values of one parameter value; row-wise Adagrad has one of a row instead.
STATE_VALUES: Mapping[str, int] = {"sgd": 0, "adagrad": 1, "adam": 2, "dense_adam": 2}


@dataclass(frozen=True, kw_only=True)
class PlannedTable:
    """One table, as far as its cost goes."""

    rows: int
    dim: int
    optimizer: str
    mean_bag_length: float = 1.0
    row_bytes: int | None = None  # of a quantised row, whose table is whole on every rank; None: 4 a column


@dataclass(frozen=True, kw_only=True)
class PlannedJob:
    """The job around the tables. Scoring has no gradients and no optimizer."""

    device: Literal["cpu", "cuda"]
    world_size: int
    ranks_per_host: int
    rows_per_rank: int
    dense_parameters: Mapping[str, int] = field(default_factory=dict)  # rule -> how many are under it
    purpose: Literal["train", "score"] = "train"
    keeps_best: bool = False  # a second copy of all weights, as they were when they were best


@dataclass(frozen=True, kw_only=True)
class ShardLoad:
    """What a rank looks up in its part of a table in one step."""

    table: str
    rule: str  # that updates it in training
    sharding_type: str
    kernel: str
    rank: int
    first_row: int  # of the table
    rows: int  # of the shard
    columns: int
    ids: float  # looked up in it
    bags: int  # that they are summed into


class Ledger:
    """Bytes by kind, [W] each; what is said of a rank's neighbours is booked on both sides.

    Args:
        job: The job that the tables are of.
    """

    def __init__(self, job: PlannedJob) -> None:
        def zeros(*kinds: str) -> dict[str, NDArray[np.float64]]:
            return {kind: np.zeros(job.world_size) for kind in kinds}

        self._job = job
        self._trains = job.purpose == "train"
        self._host_of = np.arange(job.world_size) // job.ranks_per_host
        self.held = zeros(*_HELD)
        self.sent, self.received = zeros(*_MOVED), zeros(*_MOVED)
        self.sent_to_hosts = zeros(*_MOVED)  # of `sent`, what goes to other hosts
        self.loads: list[ShardLoad] = []

    def add(self, name: str, table: PlannedTable, plan: Mapping[str, Any]) -> None:
        """A table, by its plan as `plan_tables_json` gives it."""
        if plan["sharding_type"] == ShardingType.DATA_PARALLEL.value:
            self._add_replicated(name, table, plan)
        else:
            assert table.row_bytes is None, f"{name}: quantised tables are not sharded"
            self._add_shards(name, table, plan)

    def add_dense(self) -> None:
        """The members' own parameters, and the copies that early stop keeps of all weights."""
        job = self._job
        for kind, count in _dense_bytes(job).items():
            self.held[kind] += count
        if self._trains:
            self._reduce_all("dense_all_reduce", _dense_bytes(job)["dense_weights"], times=2 / job.world_size)
        if job.keeps_best:
            self.held["best_weights"] += self.held["table_weights"] + self.held["dense_weights"]

    def _add_replicated(self, name: str, table: PlannedTable, plan: Mapping[str, Any]) -> None:
        job = self._job
        kinds = replica_bytes(table, job=job)
        for kind, count in (*kinds.items(), *bytes_everywhere(table, job=job).items()):
            self.held[kind] += count
        for rank in range(job.world_size):
            whole = {"offsets": (0, 0), "sizes": (table.rows, table.dim), "rank": rank}
            self._look_up(name, table, plan, shard=whole, bags=job.rows_per_rank)
        if self._trains:
            in_rank_order = job.device == "cpu" and job.world_size > 2
            times = 1 if in_rank_order else 2 / job.world_size
            self._reduce_all("data_parallel_all_reduce", kinds["table_gradients"], times=times)

    def _add_shards(self, name: str, table: PlannedTable, plan: Mapping[str, Any]) -> None:
        job, kind = self._job, plan["sharding_type"]
        self.held["embedding_buffers"] += bytes_everywhere(table, job=job)["embedding_buffers"]
        for shard in plan["shards"]:
            (rows, columns), rank = shard["sizes"], shard["rank"]
            held_of = shard_bytes(table, job=job, plan=plan, rows=rows, columns=columns)
            for held, count in held_of.items():
                self.held[held][rank] += count
            self._look_up(name, table, plan, shard=shard, bags=job.world_size * job.rows_per_rank)
            ids = _id_bytes(table, job=job, rows=rows)
            self.held["id_buffers"] += ids
            self._gather("ids_all_to_all", ids, rank=rank, of=range(job.world_size))
            pooled = _VALUE_BYTES * job.rows_per_rank * columns
            if kind == ShardingType.ROW_WISE.value:
                self._scatter_sums(pooled, num_ranks=job.world_size, rank=rank)
            elif kind in _ON_ONE_RANK:
                self._exchange_pooled(pooled, rank=rank, of=range(job.world_size))
            else:
                num_hosts = job.world_size // job.ranks_per_host
                self._scatter_sums(num_hosts * pooled, num_ranks=job.ranks_per_host, rank=rank)
                peers = range(rank % job.ranks_per_host, job.world_size, job.ranks_per_host)
                self._exchange_pooled(pooled, rank=rank, of=peers)

    def _look_up(
        self, name: str, table: PlannedTable, plan: Mapping[str, Any], *, shard: Mapping[str, Any], bags: int
    ) -> None:
        rows, columns = shard["sizes"]
        if not rows:  # fewer rows than ranks: the last ranks have none
            return
        self.loads.append(
            ShardLoad(
                table=name,
                rule=table.optimizer,
                sharding_type=plan["sharding_type"],
                kernel=plan["kernel"],
                rank=shard["rank"],
                first_row=shard["offsets"][0],
                rows=rows,
                columns=columns,
                ids=bags * table.mean_bag_length * rows / table.rows,
                bags=bags,
            )
        )

    def _gather(self, kind: str, count: float, *, rank: int, of: range) -> None:
        """`count` bytes from each of the others of `of` to `rank`."""
        peers = np.asarray(of)
        self.sent[kind][peers] += count
        self.sent[kind][rank] -= count
        self.sent_to_hosts[kind][peers[self._elsewhere(peers, rank=rank)]] += count
        self.received[kind][rank] += count * (len(of) - 1)

    def _exchange_pooled(self, count: float, *, rank: int, of: range) -> None:
        kind, peers = "pooled_all_to_all", np.asarray(of)
        self.sent[kind][rank] += count * (len(of) - 1)
        self.sent_to_hosts[kind][rank] += count * np.count_nonzero(self._elsewhere(peers, rank=rank))
        self.received[kind][peers] += count
        self.received[kind][rank] -= count
        if self._trains:
            self._gather("pooled_gradients_all_to_all", count, rank=rank, of=of)

    def _elsewhere(self, peers: NDArray[np.int_], *, rank: int) -> NDArray[np.bool_]:
        """Which of the ranks are on another host than `rank`."""
        elsewhere: NDArray[np.bool_] = self._host_of[peers] != self._host_of[rank]
        return elsewhere

    def _scatter_sums(self, count: float, *, num_ranks: int, rank: int) -> None:
        """Partial sums of `count` bytes for each of `num_ranks`, of which each keeps its own."""
        moved = np.zeros(self._job.world_size)
        moved[rank] = count * (num_ranks - 1)
        within_host = num_ranks <= self._job.ranks_per_host
        for kind in ("reduce_scatter", "gradients_all_gather") if self._trains else ("reduce_scatter",):
            self._send_in_ring(kind, moved, within_host=within_host)

    def _reduce_all(self, kind: str, count: float, *, times: float) -> None:
        moved = np.full(self._job.world_size, count * times * (self._job.world_size - 1))
        self._send_in_ring(kind, moved, within_host=self._job.world_size <= self._job.ranks_per_host)

    def _send_in_ring(self, kind: str, moved: NDArray[np.float64], *, within_host: bool) -> None:
        self.sent[kind] += moved
        self.received[kind] += moved
        if within_host:
            return
        of_host = self._job.ranks_per_host
        if self._job.device == "cuda":
            self.sent_to_hosts[kind] += moved / of_host
        else:
            self.sent_to_hosts[kind][of_host - 1 :: of_host] += moved[of_host - 1 :: of_host]


def shard_bytes(
    table: PlannedTable, *, job: PlannedJob, plan: Mapping[str, Any], rows: int, columns: int
) -> dict[str, float]:
    """Kind -> what the rank of a shard holds for it.

    Args:
        table: The table.
        job: The job.
        plan: The table's kernel, and its cache_load_factor if it has one.
        rows: Of the shard.
        columns: Of the shard.
    """
    weights = _VALUE_BYTES * rows * columns
    state = _state_bytes(table, rows=rows, columns=columns) if job.purpose == "train" else 0
    pooled = _VALUE_BYTES * job.rows_per_rank * columns * _both_ways(job)
    buffers = {
        "id_buffers": job.world_size * _id_bytes(table, job=job, rows=rows),
        "embedding_buffers": float(job.world_size * pooled),
    }
    if plan["kernel"] not in _HOST_KERNELS:
        return {"table_weights": weights, "table_optimizer": state, **buffers}
    factor = plan.get("cache_load_factor", _DEFAULT_CACHE_LOAD_FACTOR) if plan["kernel"] == _CACHED_KERNEL else 0.0
    return {HOST_KIND: weights + state, "table_cache": weights * factor, **buffers}


def replica_bytes(table: PlannedTable, *, job: PlannedJob) -> dict[str, float]:
    """Kind -> what each rank holds of a data-parallel table, beside `bytes_everywhere`."""
    weights = table.rows * (table.row_bytes or _VALUE_BYTES * table.dim)
    if job.purpose == "score":
        return {"table_weights": weights}
    state = _state_bytes(table, rows=table.rows, columns=table.dim)
    return {"table_weights": weights, "table_gradients": weights, "table_optimizer": state}


def bytes_everywhere(table: PlannedTable, *, job: PlannedJob) -> dict[str, float]:
    """Kind -> what each rank holds for a table wherever it lies: its own rows' ids and pooled embeddings."""
    return {
        "id_buffers": _id_bytes(table, job=job, rows=table.rows),
        "embedding_buffers": float(_VALUE_BYTES * job.rows_per_rank * table.dim * _both_ways(job)),
    }


def _id_bytes(table: PlannedTable, *, job: PlannedJob, rows: int) -> float:
    """One rank's ids that are in so many of the table's rows, and the lengths of their bags."""
    return _ID_BYTES * job.rows_per_rank * (table.mean_bag_length * rows / table.rows + 1)


def _both_ways(job: PlannedJob) -> int:
    return 2 if job.purpose == "train" else 1


def dense_bytes(job: PlannedJob) -> int:
    """What a rank holds of the members' own parameters: weights, gradients, optimizer state, the best copy."""
    kinds = _dense_bytes(job)
    return sum(kinds.values()) + (kinds["dense_weights"] if job.keeps_best else 0)


def _dense_bytes(job: PlannedJob) -> dict[str, int]:
    weights = _VALUE_BYTES * sum(job.dense_parameters.values())
    if job.purpose == "score":
        return dict(zip(_DENSE, (weights, 0, 0), strict=True))
    gradients = weights * (2 if job.world_size > 1 else 1)
    state = sum(_VALUE_BYTES * STATE_VALUES[rule] * count for rule, count in job.dense_parameters.items())
    return dict(zip(_DENSE, (weights, gradients, state), strict=True))


def _state_bytes(table: PlannedTable, *, rows: int, columns: int) -> int:
    values = rows if table.optimizer == "rowwise_adagrad" else rows * columns * STATE_VALUES[table.optimizer]
    return _VALUE_BYTES * values
