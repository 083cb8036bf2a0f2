"""A process group of one rank in this process, and small ensembles sharded over it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import nn
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.planner import ParameterConstraints
from torchrec.distributed.types import ShardingPlan
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from modules.ensemble import Ensemble
from modules.tables import TableSpec, build_tables
from modules.task import EnsembleTask
from sharding.apply import shard_model
from sharding.constraints import TableWish, table_constraints
from sharding.hardware import Hardware
from sharding.ledger import PlannedJob, PlannedTable
from sharding.planner import plan_tables
from tests.unit.modules.small import deepfm, group_specs, mlp, spec
from trainer import quiet_libraries

GIB = 2**30


@contextlib.contextmanager
def world_of_one() -> Iterator[dist.ProcessGroup]:
    """Opens a gloo group of this process alone and closes it."""
    assert not dist.is_initialized(), "a test before this one left its process group open"
    with warnings.catch_warnings():
        quiet_libraries.silence()
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        try:
            group = dist.group.WORLD
            assert group is not None
            yield group
        finally:
            dist.destroy_process_group()


def cpu_hosts(world_size: int = 1, *, ddr_bytes: int = 8 * GIB) -> Hardware:
    """CPU ranks on one host."""
    return Hardware(device="cpu", world_size=world_size, local_world_size=world_size, hbm_bytes=0, ddr_bytes=ddr_bytes)


def two_member_specs(*, optimizer: str = "rowwise_adagrad") -> list[TableSpec]:
    """Tables of `deep` (own) and `fm` (shared, with first-order tables); four features each."""
    return [
        *(spec("deep", table.feature, optimizer=optimizer) for table in group_specs("deep")),
        *group_specs("shared", first_order=True),
    ]


def two_member_task(specs: Sequence[TableSpec]) -> EnsembleTask:
    """The unsharded task, tables on the meta device."""
    return EnsembleTask(
        Ensemble(
            tables=build_tables(specs, device="meta"),
            members={"deep": mlp(seed=1), "fm": deepfm(seed=2)},
            groups={"deep": "deep", "fm": "shared"},
            seeds={"deep": 1, "fm": 2},
        )
    )


def constraints_of(task: EnsembleTask, placements: Mapping[str, str]) -> dict[str, ParameterConstraints]:
    """What a CPU job lets the planner choose for the task's tables."""
    configs = {config.name: config for config in task.ensemble.tables.embedding_bag_configs()}
    wishes = {
        table: TableWish(
            key=f"tables.{table.partition('/')[0]}",
            num_rows=configs[table].num_embeddings,
            dim=configs[table].embedding_dim,
            optimizer="rowwise_adagrad",
            placement=placement,
        )
        for table, placement in placements.items()
    }
    return table_constraints(wishes, device="cpu")


def planned(
    module: nn.Module,
    *,
    hardware: Hardware,
    constraints: Mapping[str, ParameterConstraints],
    rows_per_rank: int = 8,
    optimizer: str = "rowwise_adagrad",
) -> ShardingPlan:
    """The planner's plan of all tables of a module, in training."""
    collections = [child for child in module.modules() if isinstance(child, EmbeddingBagCollection)]
    tables = {
        config.name: PlannedTable(rows=config.num_embeddings, dim=config.embedding_dim, optimizer=optimizer)
        for collection in collections
        for config in collection.embedding_bag_configs()
    }
    return plan_tables(
        module,
        hardware=hardware,
        constraints=constraints,
        tables=tables,
        job=PlannedJob(
            device=hardware.device,
            world_size=hardware.world_size,
            ranks_per_host=hardware.local_world_size,
            rows_per_rank=rows_per_rank,
        ),
    )


def plan_for_one(task: EnsembleTask, placements: Mapping[str, str]) -> ShardingPlan:
    """A plan for one rank."""
    constraints = constraints_of(task, placements)
    return planned(task, hardware=cpu_hosts(), constraints=constraints)


def shard_for_one(
    task: EnsembleTask, placements: Mapping[str, str], *, group: dist.ProcessGroup
) -> DistributedModelParallel:
    """The task sharded over one rank."""
    plan = plan_for_one(task, placements)
    return shard_model(task, plan=plan, device=torch.device("cpu"), process_group=group)
