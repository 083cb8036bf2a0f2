"""Gradients of data-parallel tables, summed in rank order.

TorchRec keeps all data-parallel tables in DistributedDataParallel buckets that mix members. Gloo
adds up a bucket's elements in an order that depends on where they lie in it, so beyond two ranks a
member's tables would differ in the last bits from those of a job in which it is alone. Summing in
rank order makes the place in the bucket irrelevant; it moves more bytes, for tables that are small.
"""

# No `from __future__ import annotations`: the hook's annotations are checked as objects.
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def sum_in_rank_order(model: nn.Module, *, process_group: dist.ProcessGroup) -> None:
    """Replaces the reduction of every replicated table of a sharded model on CPU.

    On CUDA nccl's reduction stays: bit-equality is promised on CPU alone. Two ranks need nothing,
    since the sum of two numbers has one order.
    """
    if process_group.size() <= 2:
        return
    for module in model.modules():
        for lookup in getattr(module, "_lookups", []):
            if isinstance(lookup, DistributedDataParallel) and next(lookup.parameters()).device.type == "cpu":
                lookup.register_comm_hook(process_group, _mean_in_rank_order)


def _mean_in_rank_order(
    process_group: dist.ProcessGroup,
    bucket: dist.GradBucket,
) -> torch.futures.Future[torch.Tensor]:
    mine = bucket.buffer()
    of_rank = [torch.empty_like(mine) for _ in range(process_group.size())]
    dist.all_gather(of_rank, mine, group=process_group)
    total = of_rank[0]
    for gradient in of_rank[1:]:
        total += gradient
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(total / process_group.size())
    return done
