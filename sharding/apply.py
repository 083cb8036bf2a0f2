"""shard_model(): the only place where DistributedModelParallel is built."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
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
    admit_tables_without_rows(model)
    return model


def admit_tables_without_rows(model: nn.Module) -> None:
    """Lets a rank take part that got no row of a table, or of any table of a kernel.

    Row-wise kinds cut into blocks of ceil(rows / ranks), so small tables leave the last ranks empty. Two things
    in fbgemm's CPU operators do not bear that (embedding_backward_split_cpu_template.cpp):

    - They look for the next table that has rows, past the end of the list where the last one has none, and
      read what lies there. An entry that ends the search stands there instead.
    - A kernel is known for one of the CPU by its values in host memory, so that without a single value it
      runs as a GPU's and fails, and the other ranks wait for this one. A value that no row has is enough.

    Both can go once fbgemm bounds that search and asks the weights for their device.
    """
    for kernel in _kernels(model):
        ends = kernel.hash_size_cumsum
        if ends.device.type == "cpu" and ends[-1] == ends[-2]:
            kernel.hash_size_cumsum = torch.cat([ends, ends[-1:] + 1])
        values = getattr(kernel, "weights_host", None)  # the dense kernels have none
        if kernel.use_cpu and values is not None and values.numel() == 0:
            kernel.weights_host = nn.Parameter(values.new_zeros(1))


def _kernels(model: nn.Module) -> Iterator[Any]:
    """fbgemm's modules on this rank: of tables that train, fused; of replicated ones and in a scoring job, dense."""
    for module in model.modules():
        for lookup in getattr(module, "_lookups", []):
            inner = lookup.module if isinstance(lookup, DistributedDataParallel) else lookup
            yield from (kernel.emb_module for kernel in inner._emb_modules)
