"""Fused kernels on one rank: their rate, their count of steps, and what freezing leaves of the backward pass."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import SGD
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from sharding.fused_kernels import fused_kernels
from sharding.initialisation import TableInit, initialise_tables
from sharding.shards import table_name, table_shards
from tests.unit.modules.small import batch
from tests.unit.sharding.world_of_one import shard_for_one, two_member_specs, two_member_task

LR = 0.5
COUNTS = ("iter", "iter_cpu")


def sharded(group: dist.ProcessGroup, rule: type) -> DistributedModelParallel:
    """`deep`'s tables in one kernel, the shared ones data-parallel or in kernels of their own."""
    specs = two_member_specs()
    task = two_member_task(specs)
    for name, parameter in task.named_parameters():
        table = table_name(name)
        if table is not None:
            apply_optimizer_in_backward(rule, [parameter], {"lr": LR if table.startswith("deep/") else 2 * LR})
    placements = {spec.name: "data_parallel" if "+" in spec.group else "table_wise" for spec in specs}
    model = shard_for_one(task, placements, group=group)
    initialise_tables(model.state_dict(), inits={spec.name: TableInit(seed=1, bound=0.3) for spec in specs})
    return model


def tables(model: DistributedModelParallel) -> dict[str, Tensor]:
    return {name: shards.local[0].tensor.clone() for name, shards in table_shards(model.state_dict()).items()}


def moves(model: DistributedModelParallel) -> dict[str, Tensor]:
    """How one backward pass moves the tables."""
    before = tables(model)
    model(batch(16))[0].backward()
    return {name: value - before[name] for name, value in tables(model).items()}


def test_a_kernel_holds_the_tables_of_one_rate(group: dist.ProcessGroup) -> None:
    kernels = fused_kernels(sharded(group, SGD))
    assert [kernel.tables for kernel in kernels] == [
        tuple(f"{name}/C{i}" for i in range(1, 5)) for name in ("deep", "shared")
    ]


def test_a_rate_counts_from_the_next_backward_pass_on(group: dist.ProcessGroup) -> None:
    whole, half = moves(sharded(group, SGD)), sharded(group, SGD)
    deep, shared = fused_kernels(half)
    deep.set_lr(LR / 2)
    found = moves(half)
    for table in deep.tables:
        assert whole[table].any()
        torch.testing.assert_close(found[table], whole[table] / 2, rtol=1e-5, atol=1e-7)
    for table in shared.tables:
        torch.testing.assert_close(found[table], whole[table], rtol=0, atol=0)


def test_evaluations_are_not_steps(group: dist.ProcessGroup) -> None:
    model = sharded(group, RowWiseAdagrad)
    counting, plain = fused_kernels(model)
    counting.count_only_training()
    for _ in range(2):
        model(batch(16))[0].backward()
        with torch.no_grad():
            model(batch(16))
    for count in COUNTS:
        assert int(getattr(counting.module, count)) == 2
        assert int(getattr(plain.module, count)) == 4, "the kernel itself has learnt to tell; drop the hooks"


@pytest.mark.parametrize("rule", [SGD, RowWiseAdagrad])
def test_a_frozen_kernel_takes_no_gradient_at_all(group: dist.ProcessGroup, rule: type) -> None:
    model = sharded(group, rule)
    deep, shared = fused_kernels(model)
    deep.freeze()
    state = deep.optimizer.state_dict()["state"]
    before = [
        shard.tensor.clone() for states in state.values() for value in states.values() for shard in value.local_shards()
    ]
    moved = moves(model)
    assert not any(moved[table].any() for table in deep.tables)
    assert all(moved[table].any() for table in shared.tables)
    after = [shard.tensor for states in state.values() for value in states.values() for shard in value.local_shards()]
    assert len(after) == (0 if rule is SGD else 4) and all(map(torch.equal, before, after))
    assert [int(getattr(deep.module, count)) for count in COUNTS] == [0, 0]
