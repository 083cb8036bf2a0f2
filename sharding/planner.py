"""plan_tables(): which rank holds which rows and columns of which table."""

from __future__ import annotations

from collections.abc import Mapping

import torch.distributed as dist
from torch import nn
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints
from torchrec.distributed.planner.types import PlannerError
from torchrec.distributed.types import ShardingPlan

from configs.errors import PlanError
from sharding.hardware import Hardware
from sharding.sharders import TableSharder


def plan_tables(
    module: nn.Module,
    *,
    hardware: Hardware,
    constraints: Mapping[str, ParameterConstraints],
    rows_per_rank: int,
    process_group: dist.ProcessGroup | None = None,
) -> ShardingPlan:
    """Plans the module's tables, which may be on the meta device.

    Args:
        module: Holds the embedding bag collections.
        hardware: The machine to plan for.
        constraints: Table name -> what the planner may choose.
        rows_per_rank: Rows of a rank's batch.
        process_group: Given: rank 0 plans and broadcasts, and all ranks must call this. None: plans offline.

    Raises:
        PlanError: nothing fits.
    """
    planner = EmbeddingShardingPlanner(
        topology=hardware.topology(), batch_size=rows_per_rank, constraints=dict(constraints)
    )
    sharders = [TableSharder()]
    try:
        if process_group is None:
            return planner.plan(module, sharders)
        return planner.collective_plan(module, sharders, process_group)
    except PlannerError as error:
        raise PlanError(
            f"the tables do not fit {hardware.world_size} x {hardware.device}"
            f" ({hardware.hbm_bytes:,} bytes of GPU and {hardware.ddr_bytes:,} of host memory a rank):"
            " lower tables.*.dim, give members shared tables, or add ranks"
            f" (the planner said: {' '.join(str(error).split())[:300]})"
        ) from error
