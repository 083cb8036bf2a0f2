"""shard_model(): the only place where DistributedModelParallel is built."""

from __future__ import annotations

from typing import cast

import torch
import torch.distributed as dist
from torch import nn
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.types import ModuleSharder, ShardingEnv, ShardingPlan

from sharding.replicated_gradients import sum_in_rank_order
from sharding.sharders import TableSharder


def shard_model(
    module: nn.Module, *, plan: ShardingPlan, device: torch.device, process_group: dist.ProcessGroup
) -> DistributedModelParallel:
    """Shards the tables by the plan and moves the rest to the device. All ranks must call this.

    Dense parameters are left out of DistributedDataParallel: its buckets would mix members, and its
    static graph breaks when a member stops. `DenseGradients` reduces them member by member.
    """
    model = DistributedModelParallel(
        module=module,
        env=ShardingEnv.from_process_group(process_group),
        device=device,
        plan=plan,
        sharders=[cast(ModuleSharder[nn.Module], TableSharder())],
        init_data_parallel=False,
    )
    model.module.to(device)  # the dense parts, which DistributedDataParallel would have moved
    sum_in_rank_order(model, process_group=process_group)
    return model
