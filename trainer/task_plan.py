"""TaskPlan: where an ensemble's tables lie, by the planner or by the file that run.plan names, and what that costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torchrec.distributed.types import ShardingPlan

from configs.errors import ConfigError
from configs.training_schema import Dense
from modules.tables import TableSpec
from modules.task import EnsembleTask
from sharding.constraints import TableWish, table_constraints
from sharding.given_plan import given_plan
from sharding.hardware import live_hardware
from sharding.plan_files import made_for, plan_json, read_plan
from sharding.planner import plan_tables
from sharding.report import PlannedJob, PlannedTable, PlanReport, report_plan
from trainer import storage
from trainer.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class TaskPlan:
    """A plan, the same as plan.json has it, and its report."""

    plan: ShardingPlan
    as_json: dict[str, Any]
    report: PlanReport


def plan_task(
    task: EnsembleTask,
    specs: Sequence[TableSpec],
    *,
    rows_per_rank: int,
    dense: Dense | None,
    path: str,
    keeps_best: bool = False,
    runtime: Runtime,
) -> TaskPlan:
    """Plans the task's tables. All ranks must call this.

    Args:
        task: The unsharded task, its tables on the meta device.
        specs: All tables.
        rows_per_rank: Rows of a rank's batch.
        dense: How dense parameters are trained; None: they are not, this is a scoring job.
        path: A plan file to take the plan from; empty: the planner decides.
        keeps_best: Whether early stop keeps a second copy of the weights.
        runtime: The ranks to plan for.

    Raises:
        ConfigError: a placement that cannot be met, or the plan file is not of this job.
        PlanError: the tables do not fit.
    """
    hardware = live_hardware(
        device=runtime.device, world_size=runtime.world_size, local_world_size=runtime.local_world_size
    )
    is_scoring = dense is None
    wishes = {
        spec.name: TableWish(
            key=spec.key,
            num_rows=spec.num_rows,
            dim=spec.dim,
            # A scoring job has no state, and a CPU no other memory: what training chose for these binds it not.
            optimizer="sgd" if is_scoring else spec.optimizer,
            placement=spec.placement,
            kernel="auto" if is_scoring and hardware.device == "cpu" else spec.kernel,
        )
        for spec in specs
    }
    constraints = table_constraints(wishes, device=hardware.device)
    if path:
        plan: ShardingPlan = runtime.from_main(
            lambda: given_plan(
                read_plan(_content(path), path=path),
                module=task,
                hardware=hardware,
                constraints=constraints,
                rows_per_rank=rows_per_rank,
            )
        )
    else:
        plan = plan_tables(
            task,
            hardware=hardware,
            constraints=constraints,
            rows_per_rank=rows_per_rank,
            process_group=runtime.group,
        )
    sizes = {spec.name: (spec.num_rows, spec.dim) for spec in specs}
    as_json = plan_json(plan, facts=made_for(sizes, hardware=hardware, rows_per_rank=rows_per_rank))
    bank = task.ensemble.bank
    report = report_plan(
        as_json["tables"],
        tables={spec.name: PlannedTable(rows=spec.num_rows, dim=spec.dim, optimizer=spec.optimizer) for spec in specs},
        job=PlannedJob(
            device=hardware.device,
            world_size=hardware.world_size,
            ranks_per_host=hardware.local_world_size,
            rows_per_rank=rows_per_rank,
            num_dense_parameters=sum(parameter.numel() for parameter in bank.parameters()),
            dense_optimizer="sgd" if dense is None else dense.optimizer,
            purpose="score" if dense is None else "train",
            keeps_best=keeps_best,
        ),
    )
    return TaskPlan(plan=plan, as_json=as_json | {"report": report.as_json()}, report=report)


def _content(path: str) -> bytes:
    if not storage.is_file(path):
        raise ConfigError(
            f"run.plan: {path!r} is not a file; name the plan.json of a run's folder or checkpoint, or leave it empty"
            " to plan anew"
        )
    with storage.open_file(path, "rb") as file:
        return bytes(file.read())
