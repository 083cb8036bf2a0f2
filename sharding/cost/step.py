"""The time of a step: what each rank looks up, computes and sends, at a machine's rates.

Legend: W ranks, B rows of a rank's batch, R rows and D columns of a table, n ids, d distinct rows among them.

    data           B / batch_rows_per_s, and the ranks of a host read B H stored bytes at disk_gb_per_s; the greater
    lookup         of the slowest rank: forward and update of its shards (AccessRate: n ids, d rows, the bags, 4 c bytes
                   a row); for a data-parallel table a gradient of 4 R D bytes is filled with zeros first; what lies in
                   host memory crosses to the GPU and back; table_us a sharded table, replica_us a replicated; step_us
    communication  each kind of bytes of the plan's report by its collective: latency and the bytes that the busiest
                   rank sends, over the slower of the two links
    dense          each matrix product at its shape's rate or its operands' bytes, whichever is more; each other
                   operation its bytes; op_us for each
    optimizer      bytes of weights, gradients and states that the rules read and write, op_us for each operation

Each part is multiplied by its factor of the hardware file's calibration. A step takes their sum; of data (overlap =
"data") and of the ids' exchange too (overlap = "data_and_ids") only what exceeds the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from configs.hardware_schema import PHASES, HardwareFile
from sharding.cost.rates import Access, Rates
from sharding.cost.work import DenseWork, Pass

_BUCKET_BYTES = 25 * 2**20  # of the replicated tables' reduction, DistributedDataParallel's default
# What a kind of bytes in the plan's report travels by, and how many such collectives an exchange takes: ids are
# announced (splits), then their bags' lengths and they themselves go.
_COLLECTIVES = {
    "ids_all_to_all": ("all_to_all", 3),
    "pooled_all_to_all": ("all_to_all", 1),
    "pooled_gradients_all_to_all": ("all_to_all", 1),
    "reduce_scatter": ("reduce_scatter", 1),
    "gradients_all_gather": ("all_gather", 1),
    "data_parallel_all_reduce": ("all_reduce", 1),
    "dense_all_reduce": ("all_reduce", 1),
}


@dataclass(frozen=True, kw_only=True)
class TableLoad:
    """What one rank does with its shard of a table in a step."""

    rank: int
    rows: int  # of the shard
    columns: int
    ids: float  # looked up by this rank
    distinct: float  # rows among them
    bags: float  # that they are summed into
    rule: str | None  # that updates it; None: it is only read
    is_replica: bool = False
    value_bytes: float = 4.0
    state_bytes: float = 0.0  # of the shard
    host_share: float = 0.0  # of the distinct rows, those that come from a GPU host's memory

    @property
    def table_bytes(self) -> float:
        """Weights and state of the shard."""
        return self.rows * self.columns * self.value_bytes + self.state_bytes


@dataclass(frozen=True, kw_only=True)
class Sent:
    """Bytes of one kind that the busiest rank sends to others in a step, by link, and in how many exchanges."""

    intra_host: float
    inter_host: float
    exchanges: int = 1


@dataclass(frozen=True, kw_only=True)
class StepWork:
    """All that a step asks of the ranks."""

    world_size: int
    rows_per_rank: int
    loads: Sequence[TableLoad]
    sent: Mapping[str, Sent]  # kind, as the plan's report names them
    dense: DenseWork
    optimizer: DenseWork
    stored_bytes: float  # of a row on the disk
    stored_values: float  # numbers and ids of a row


def step_parts(work: StepWork, *, hardware: HardwareFile) -> dict[str, float]:
    """Seconds of each part, by the names of configs.hardware_schema.PHASES, as if nothing overlapped."""
    rates = Rates(hardware)
    ids, others = _communication(work, rates=rates)
    parts = {
        "data": _data(work, hardware=hardware),
        "lookup": _lookup(work, hardware=hardware),
        "communication": ids + others,
        "dense": rates.dense(work.dense),
        "optimizer": rates.dense(work.optimizer),
    }
    return {phase: parts[phase] * hardware.calibration.factors.get(phase, 1.0) for phase in PHASES}


def step_seconds(work: StepWork, *, hardware: HardwareFile) -> float:
    """The step as the machine overlaps its parts."""
    parts = step_parts(work, hardware=hardware)
    total = sum(parts.values())
    if hardware.overlap == "none":
        return total
    ids = 0.0
    if hardware.overlap == "data_and_ids":
        factor = hardware.calibration.factors.get("communication", 1.0)
        ids = _communication(work, rates=Rates(hardware))[0] * factor
    hidden = parts["data"] + ids
    return max(total - hidden, hidden)


def _data(work: StepWork, *, hardware: HardwareFile) -> float:
    host = hardware.host
    ranks_of_host = min(work.world_size, host.ranks)
    made = work.rows_per_rank * work.stored_values / (host.batch_rows_per_s * _VALUES_OF_A_ROW)
    read = work.rows_per_rank * ranks_of_host * work.stored_bytes / (host.disk_gb_per_s * 1e9)
    return max(made, read)


_VALUES_OF_A_ROW = 40  # what host.batch_rows_per_s counts on: 13 numbers, 26 ids and a label


def _lookup(work: StepWork, *, hardware: HardwareFile) -> float:
    of_rank = [[load for load in work.loads if load.rank == rank] for rank in range(work.world_size)]
    slowest = max((_lookup_of(loads, hardware=hardware) for loads in of_rank), default=0.0)
    return slowest + hardware.overheads.step_us * 1e-6


def _lookup_of(loads: Sequence[TableLoad], *, hardware: HardwareFile) -> float:
    rates = Rates(hardware, table_bytes=sum(load.table_bytes for load in loads))
    overheads = hardware.overheads
    seconds = 0.0
    for load in loads:
        row_bytes = load.columns * load.value_bytes
        access = Access(ids=load.ids, distinct=load.distinct, bags=load.bags, row_bytes=row_bytes)
        seconds += rates.lookup(access)
        crossings = 1
        if load.rule is not None and load.is_replica:
            # The gradient is a tensor of the table's size: filled with zeros, then added to as plain SGD would.
            seconds += rates.update("sgd", access)
            seconds += rates.tensor_pass(Pass(moved_bytes=round(load.rows * row_bytes)))
        elif load.rule is not None:
            seconds += rates.update(load.rule, access)
            crossings = 2
        seconds += rates.from_host(crossings * load.host_share * load.distinct * row_bytes)
        seconds += (overheads.replica_us if load.is_replica else overheads.table_us) * 1e-6
    return seconds


def _communication(work: StepWork, *, rates: Rates) -> tuple[float, float]:
    """The ids' exchange, and all else."""
    ids = others = 0.0
    for kind, sent in work.sent.items():
        name, times = _COLLECTIVES[kind]
        if kind == "data_parallel_all_reduce":
            times = max(1, round((sent.intra_host + sent.inter_host) / _BUCKET_BYTES))
        seconds = rates.collective(
            name, times=times * sent.exchanges, intra_bytes=sent.intra_host, inter_bytes=sent.inter_host
        )
        if kind == "ids_all_to_all":
            ids += seconds
        else:
            others += seconds
    return ids, others
