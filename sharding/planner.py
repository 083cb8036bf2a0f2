"""plan_tables(): which rank holds which rows and columns of which table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import nn
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints
from torchrec.distributed.planner.proposers import GreedyProposer, GridSearchProposer, UniformProposer
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import PlannerError
from torchrec.distributed.types import ShardingPlan

from sharding.constraints import HOST_MEMORY_KERNELS
from sharding.hardware import Hardware
from sharding.ledger import PlannedJob, PlannedTable, dense_bytes
from sharding.shard_storage import ShardStorage
from sharding.sharders import TableSharder
from sharding.table_choices import Room, TableChoices, TablesDoNotFitError, kernels_of

_FUSED = EmbeddingComputeKernel.FUSED.value
_MOST_COMBINATIONS = 1_000
_MOST_WORSE_PLANS = 10


def plan_tables(
    module: nn.Module,
    *,
    hardware: Hardware,
    constraints: Mapping[str, ParameterConstraints],
    tables: Mapping[str, PlannedTable],
    job: PlannedJob,
    extra_bytes: int = 0,
) -> ShardingPlan:
    """Plans the module's tables, which may be on the meta device. Pure: it needs no other process and no GPU.

    GPU memory comes first: tables that may have more kernels than the fused one are planned without the others, and
    only where they do not fit so are these offered. TorchRec alone moves tables into host memory that would fit.

    A rank's memory is there for tables but for three things: the hardware's reserve, what the members' own parameters
    and their training take, and `extra_bytes`. What a shard takes is counted as the plan's report counts it.

    The search is bounded by counts, not by time, so that equal jobs get equal plans: all combinations where there are
    no more than a thousand; TorchRec's greedy proposer by summed cost, which moves one table at a time to its next
    choice and stops after ten plans in a row that are worse than the best; and each placement for all tables. TorchRec
    also tries the greedy proposer by the costliest shard: it found nothing better, at half of the time.

    Args:
        module: Holds the embedding bag collections.
        hardware: The machine to plan for.
        constraints: Table name -> what the planner may choose.
        tables: Table name -> what it is.
        job: The job around them, on this hardware.
        extra_bytes: What a rank holds, where it computes, that the report does not count: activations, the process.

    Raises:
        TablesDoNotFitError: nothing fits; says what is needed, what there is, and which table is too large.
    """
    storage = ShardStorage(tables, job=job)
    room = Room(hardware, taken_bytes=dense_bytes(job) + storage.bytes_everywhere() + extra_bytes)
    on_gpu = {table: _without_host_memory(one) for table, one in constraints.items()}
    refusal = room.refusal()
    for attempt in [on_gpu, dict(constraints)] if on_gpu != constraints else [on_gpu]:
        if room.free <= 0:
            break
        choices = TableChoices(room, storage=storage, rows_per_rank=job.rows_per_rank, constraints=attempt)
        planner = _planner(room, choices, rows_per_rank=job.rows_per_rank, constraints=attempt)
        try:
            plan: ShardingPlan = planner.plan(module, [TableSharder()])
            return plan
        except PlannerError:
            refusal = choices.uneven()
        except TablesDoNotFitError as error:
            refusal = error
    raise refusal


def _planner(
    room: Room, choices: TableChoices, *, rows_per_rank: int, constraints: dict[str, ParameterConstraints]
) -> EmbeddingShardingPlanner:
    return EmbeddingShardingPlanner(
        topology=room.topology,
        batch_size=rows_per_rank,
        constraints=constraints,
        enumerator=choices,
        storage_reservation=FixedPercentageStorageReservation(0.0),  # the topology is what is left
        proposer=[
            GridSearchProposer(max_proposals=_MOST_COMBINATIONS),
            GreedyProposer(use_depth=False, threshold=_MOST_WORSE_PLANS),
            UniformProposer(),
        ],
        stats=[],
    )


def _without_host_memory(one: ParameterConstraints) -> ParameterConstraints:
    if _FUSED not in kernels_of(one):
        return one
    return dataclasses.replace(
        one, compute_kernels=[name for name in kernels_of(one) if name not in HOST_MEMORY_KERNELS]
    )
