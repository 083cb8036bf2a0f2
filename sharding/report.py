"""PlanReport: what a plan costs each rank, in bytes held and bytes sent, as a table and as JSON.

It is arithmetic over the plan: no process group, no GPU, so that it speaks of machines that are not there too.

Legend: W ranks, H ranks of a host, N = W / H hosts, B rows of a rank's batch, L mean ids of a bag, R rows and D columns
of a table, r rows and c columns of a shard. A value, an id and a bag's length have 4 bytes each. Ids are taken to be
spread evenly over a table's rows; real ids crowd in the first ones, so the first rank of row-wise kinds gets more.

Bytes held, per rank:

- table_weights: 4 r c per shard; 4 R D of a data-parallel table on every rank.
- table_optimizer: rowwise_adagrad 4 r, adagrad 4 r c, adam 8 r c, sgd 0 per shard.
- table_gradients: 4 R D of a data-parallel table; the others update in the backward pass.
- table_cache: load factor (0.2 unless given) of the weights of a fused_uvm_caching shard.
- host_tables: weights and optimizer state under the uvm kernels, which lie in host memory; not in the total.
- dense_weights 4 P, dense_gradients 4 P (8 P beyond one rank: they are reduced in a copy), dense_optimizer adam 8 P,
  adagrad 4 P, sgd 0, for P dense parameters. What is frozen counts as if it were trained.
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
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torchrec.distributed.types import ShardingType

_VALUE_BYTES = 4
_ID_BYTES = 4
_DEFAULT_CACHE_LOAD_FACTOR = 0.2  # fbgemm's
_HOST_KERNELS = ("fused_uvm", "fused_uvm_caching")
_HOST_KIND = "host_tables"
_HELD = (
    "table_weights",
    "table_optimizer",
    "table_gradients",
    "table_cache",
    "dense_weights",
    "dense_gradients",
    "dense_optimizer",
    "best_weights",
    "id_buffers",
    "embedding_buffers",
    _HOST_KIND,
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
_STATE_VALUES: Mapping[str, int] = {"sgd": 0, "adagrad": 1, "adam": 2, "dense_adam": 2}


@dataclass(frozen=True, kw_only=True)
class PlannedTable:
    """One table, as far as its cost goes."""

    rows: int
    dim: int
    optimizer: str
    mean_bag_length: float = 1.0


@dataclass(frozen=True, kw_only=True)
class PlannedJob:
    """The job around the tables. Scoring has no gradients and no optimizer."""

    device: str
    world_size: int
    ranks_per_host: int
    rows_per_rank: int
    num_dense_parameters: int = 0
    dense_optimizer: str = "sgd"
    purpose: Literal["train", "score"] = "train"
    keeps_best: bool = False  # a second copy of all weights, as they were when they were best


@dataclass(frozen=True, kw_only=True)
class PlanReport:
    """Bytes by kind and rank; the module's docstring has the formulas."""

    tables_per_sharding_type: Mapping[str, int]
    bytes_per_rank: Mapping[str, tuple[int, ...]]
    sent_bytes_per_rank: Mapping[str, tuple[int, ...]]
    received_bytes_per_rank: Mapping[str, tuple[int, ...]]

    @property
    def held(self) -> tuple[int, ...]:
        """Bytes of each rank where it computes: of its GPU, or of its host's memory without one."""
        return _total(self.bytes_per_rank, without=(_HOST_KIND,))

    @property
    def sent(self) -> tuple[int, ...]:
        """Bytes that each rank sends in one step."""
        return _total(self.sent_bytes_per_rank)

    @property
    def received(self) -> tuple[int, ...]:
        """Bytes that each rank receives in one step."""
        return _total(self.received_bytes_per_rank)

    @property
    def imbalance(self) -> float:
        """The fullest rank's bytes over the mean; 1.0 is even."""
        return _imbalance(self.held)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        by_kind = {
            "bytes_per_rank": self.bytes_per_rank,
            "sent_bytes_per_rank": self.sent_bytes_per_rank,
            "received_bytes_per_rank": self.received_bytes_per_rank,
        }
        return {
            "tables_per_sharding_type": dict(self.tables_per_sharding_type),
            **{name: {kind: list(of_ranks) for kind, of_ranks in kinds.items()} for name, kinds in by_kind.items()},
            "imbalance": {
                "held": self.imbalance,
                "table_weights": _imbalance(self.bytes_per_rank["table_weights"]),
                "sent": _imbalance(self.sent),
                "received": _imbalance(self.received),
            },
        }

    def sentence(self) -> str:
        """One line for the log."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.tables_per_sharding_type.items()))
        return (
            f"plan: {kinds} tables; {_readable(max(self.held))} on the fullest rank, {self.imbalance:.2f} x the mean;"
            f" {_readable(max(self.sent))} sent by the busiest a step"
        )

    def table(self) -> str:
        """The sentence, and a line per kind of bytes that there are."""
        rows = [*self.bytes_per_rank.items(), ("in all", self.held)]
        held = [(kind, _mean(of), max(of), f"{_imbalance(of):.2f}") for kind, of in rows if any(of)]
        moved = [*((kind, of, self.received_bytes_per_rank[kind]) for kind, of in self.sent_bytes_per_rank.items())]
        moved.append(("in all", self.sent, self.received))
        sent = [(kind, _mean(of), max(of), _readable(max(got))) for kind, of, got in moved if any(of) or any(got)]
        return "\n".join(
            [
                self.sentence(),
                f"  {'held by a rank':<30}{'mean':>12}{'most':>12}{'most/mean':>12}",
                *(_line(*row) for row in held),
                *([f"  {'moved in a step':<30}{'mean':>12}{'most sent':>12}{'most got':>12}"] if sent else []),
                *(_line(*row) for row in sent),
            ]
        )


def report_plan(
    placed: Mapping[str, Mapping[str, Any]], *, tables: Mapping[str, PlannedTable], job: PlannedJob
) -> PlanReport:
    """Adds up a plan.

    Args:
        placed: Table name -> its plan, as `plan_tables_json` gives it.
        tables: Table name -> what it is.
        job: The job around them.
    """
    ledger = _Ledger(job)
    for name, plan in placed.items():
        table = tables[name]
        if plan["sharding_type"] == ShardingType.DATA_PARALLEL.value:
            ledger.add_replicated(table)
        else:
            ledger.add_shards(table, plan)
    ledger.add_dense()
    if job.keeps_best:
        ledger.held["best_weights"] += ledger.held["table_weights"] + ledger.held["dense_weights"]
    return PlanReport(
        tables_per_sharding_type=dict(sorted(Counter(plan["sharding_type"] for plan in placed.values()).items())),
        bytes_per_rank=_rounded(ledger.held),
        sent_bytes_per_rank=_rounded(ledger.sent),
        received_bytes_per_rank=_rounded(ledger.received),
    )


class _Ledger:
    """Bytes by kind, [W] each; what is said of a rank's neighbours is booked on both sides."""

    def __init__(self, job: PlannedJob) -> None:
        def zeros(*kinds: str) -> dict[str, NDArray[np.float64]]:
            return {kind: np.zeros(job.world_size) for kind in kinds}

        self._job = job
        self._trains = job.purpose == "train"
        self.held = zeros(*_HELD)
        self.sent, self.received = zeros(*_MOVED), zeros(*_MOVED)

    def add_replicated(self, table: PlannedTable) -> None:
        """A data-parallel table."""
        job = self._job
        weights = _VALUE_BYTES * table.rows * table.dim
        self.held["table_weights"] += weights
        self.held["id_buffers"] += _ID_BYTES * job.rows_per_rank * (table.mean_bag_length + 1)
        self._hold_pooled(table)
        if self._trains:
            self.held["table_gradients"] += weights
            self.held["table_optimizer"] += _state_bytes(table, rows=table.rows, columns=table.dim)
            in_rank_order = job.device == "cpu" and job.world_size > 2
            self._reduce_all("data_parallel_all_reduce", weights, times=1 if in_rank_order else 2 / job.world_size)

    def add_shards(self, table: PlannedTable, plan: Mapping[str, Any]) -> None:
        """A table under any other placement."""
        job, kind = self._job, plan["sharding_type"]
        self._hold_pooled(table)
        for shard in plan["shards"]:
            (rows, columns), rank = shard["sizes"], shard["rank"]
            self._hold_shard(table, plan, rows=rows, columns=columns, rank=rank)
            ids = _ID_BYTES * job.rows_per_rank * (table.mean_bag_length * rows / table.rows + 1)
            self.held["id_buffers"] += ids
            self.held["id_buffers"][rank] += job.world_size * ids
            self._gather("ids_all_to_all", ids, rank=rank, of=range(job.world_size))
            pooled = _VALUE_BYTES * job.rows_per_rank * columns
            self.held["embedding_buffers"][rank] += job.world_size * pooled * self._both_ways
            if kind == ShardingType.ROW_WISE.value:
                self._scatter_sums(pooled, num_ranks=job.world_size, rank=rank)
            elif kind in _ON_ONE_RANK:
                self._exchange_pooled(pooled, rank=rank, of=range(job.world_size))
            else:
                num_hosts = job.world_size // job.ranks_per_host
                self._scatter_sums(num_hosts * pooled, num_ranks=job.ranks_per_host, rank=rank)
                peers = range(rank % job.ranks_per_host, job.world_size, job.ranks_per_host)
                self._exchange_pooled(pooled, rank=rank, of=peers)

    def add_dense(self) -> None:
        """The members' own parameters."""
        job = self._job
        weights = _VALUE_BYTES * job.num_dense_parameters
        self.held["dense_weights"] += weights
        if self._trains:
            self.held["dense_gradients"] += weights * (2 if job.world_size > 1 else 1)
            self.held["dense_optimizer"] += weights * _STATE_VALUES[job.dense_optimizer]
            self._reduce_all("dense_all_reduce", weights, times=2 / job.world_size)

    @property
    def _both_ways(self) -> int:
        return 2 if self._trains else 1

    def _hold_pooled(self, table: PlannedTable) -> None:
        self.held["embedding_buffers"] += _VALUE_BYTES * self._job.rows_per_rank * table.dim * self._both_ways

    def _hold_shard(self, table: PlannedTable, plan: Mapping[str, Any], *, rows: int, columns: int, rank: int) -> None:
        weights = _VALUE_BYTES * rows * columns
        state = _state_bytes(table, rows=rows, columns=columns) if self._trains else 0
        if plan["kernel"] not in _HOST_KERNELS:
            self.held["table_weights"][rank] += weights
            self.held["table_optimizer"][rank] += state
            return
        self.held[_HOST_KIND][rank] += weights + state
        if plan["kernel"] == "fused_uvm_caching":
            self.held["table_cache"][rank] += weights * plan.get("cache_load_factor", _DEFAULT_CACHE_LOAD_FACTOR)

    def _gather(self, kind: str, count: float, *, rank: int, of: range) -> None:
        """`count` bytes from each of the others of `of` to `rank`."""
        self.sent[kind][of.start : of.stop : of.step] += count
        self.sent[kind][rank] -= count
        self.received[kind][rank] += count * (len(of) - 1)

    def _exchange_pooled(self, count: float, *, rank: int, of: range) -> None:
        kind = "pooled_all_to_all"
        self.sent[kind][rank] += count * (len(of) - 1)
        self.received[kind][of.start : of.stop : of.step] += count
        self.received[kind][rank] -= count
        if self._trains:
            self._gather("pooled_gradients_all_to_all", count, rank=rank, of=of)

    def _scatter_sums(self, count: float, *, num_ranks: int, rank: int) -> None:
        """Partial sums of `count` bytes for each of `num_ranks`, of which each keeps its own."""
        for kind in ("reduce_scatter", "gradients_all_gather") if self._trains else ("reduce_scatter",):
            self.sent[kind][rank] += count * (num_ranks - 1)
            self.received[kind][rank] += count * (num_ranks - 1)

    def _reduce_all(self, kind: str, count: float, *, times: float) -> None:
        moved = count * times * (self._job.world_size - 1)
        self.sent[kind] += moved
        self.received[kind] += moved


def _state_bytes(table: PlannedTable, *, rows: int, columns: int) -> int:
    values = rows if table.optimizer == "rowwise_adagrad" else rows * columns * _STATE_VALUES[table.optimizer]
    return _VALUE_BYTES * values


def _rounded(kinds: Mapping[str, NDArray[np.float64]]) -> dict[str, tuple[int, ...]]:
    return {kind: tuple(round(count) for count in of_ranks.tolist()) for kind, of_ranks in kinds.items()}


def _total(kinds: Mapping[str, tuple[int, ...]], *, without: Sequence[str] = ()) -> tuple[int, ...]:
    return tuple(map(sum, zip(*(of_ranks for kind, of_ranks in kinds.items() if kind not in without), strict=True)))


def _mean(of_ranks: Sequence[int]) -> float:
    return sum(of_ranks) / len(of_ranks)


def _imbalance(of_ranks: Sequence[int]) -> float:
    return max(of_ranks) / _mean(of_ranks) if any(of_ranks) else 1.0


def _readable(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:,.0f} bytes" if unit == "bytes" else f"{count:,.1f} {unit}"


def _line(kind: str, mean: float, most: int, last: str) -> str:
    return f"    {kind:<28}{_readable(mean):>12}{_readable(most):>12}{last:>12}"
