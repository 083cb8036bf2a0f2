"""TaskPlan: where an ensemble's tables lie, by the planner or by the file that run.plan names, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torchrec.distributed.types import ShardingPlan, ShardingType

from configs.errors import ConfigError
from configs.schema import RunConfig
from modules.tables import TableSpec
from modules.task import EnsembleTask
from sharding.constraints import TableWish, table_constraints
from sharding.given_plan import given_plan
from sharding.hardware import Hardware, live_hardware
from sharding.ledger import PlannedJob, PlannedTable
from sharding.plan_files import made_for, plan_json, read_plan
from sharding.planner import plan_tables
from sharding.report import PlanReport, report_plan
from trainer import storage
from trainer.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class TaskWork:
    """What a job asks of the ensemble's tables and members, as far as planning goes.

    Attributes:
        rows_per_rank: Rows of a rank's batch.
        dense_rules: Member -> the rule that trains its dense parameters; None: nothing is trained, it is a scoring job.
        keeps_best: Whether early stop keeps a second copy of the weights.
        mean_ids: Id feature -> ids of a row; 1 of those that are not named.
        extra_bytes: What a rank holds beside tables, dense parameters and what trains them: activations, the process.
        host_memory: Whether kernel auto on GPUs may put tables into host memory where GPU memory does not suffice.
    """

    rows_per_rank: int
    dense_rules: Mapping[str, str] | None = None
    keeps_best: bool = False
    mean_ids: Mapping[str, float] = field(default_factory=dict)
    extra_bytes: int = 0
    host_memory: bool = True


@dataclass(frozen=True, kw_only=True)
class TaskPlan:
    """A plan, the same as plan.json has it, and its report."""

    plan: ShardingPlan
    as_json: dict[str, Any]
    report: PlanReport


def training_work(config: RunConfig, *, rows_per_rank: int, mean_ids: Mapping[str, float]) -> TaskWork:
    """What a training run asks.

    Args:
        config: The run.
        rows_per_rank: Rows of a rank's batch.
        mean_ids: Id feature -> ids of a row; 1 of those that are not named.
    """
    return TaskWork(
        rows_per_rank=rows_per_rank,
        dense_rules={name: member.optimizer or config.dense.optimizer for name, member in config.expanded_members()},
        keeps_best=config.train.early_stop.evaluations > 0,
        mean_ids=mean_ids,
    )


def plan_task(
    task: EnsembleTask, specs: Sequence[TableSpec], *, work: TaskWork, path: str = "", runtime: Runtime
) -> TaskPlan:
    """Plans the task's tables for the ranks that run, on rank 0. All ranks must call this.

    Args:
        task: The unsharded task, its tables on the meta device.
        specs: All tables.
        work: What the job asks of them.
        path: A plan file to take the plan from; empty: the planner decides.
        runtime: The ranks to plan for.

    Raises:
        ConfigError: a placement that cannot be met, or the plan file is not of this job.
        PlanError: the tables do not fit.
    """
    hardware = live_hardware(
        device=runtime.device, world_size=runtime.world_size, local_world_size=runtime.local_world_size
    )
    return planned_task(task, specs, hardware=hardware, work=work, path=path, once=runtime.from_main)


def planned_task(
    task: EnsembleTask,
    specs: Sequence[TableSpec],
    *,
    hardware: Hardware,
    work: TaskWork,
    path: str = "",
    once: Callable[[Callable[[], Any]], Any] = lambda make: make(),
) -> TaskPlan:
    """Plans the task's tables for any machine; offline it needs no other process and no GPU.

    Args:
        task: The unsharded task, its tables on the meta device.
        specs: All tables.
        hardware: The machine to plan for.
        work: What the job asks of them.
        path: A plan file to take the plan from; empty: the planner decides.
        once: Makes the plan for all ranks that call this; left out: there is but this process.

    Raises:
        ConfigError: a placement that cannot be met, or the plan file is not of this job.
        PlanError: the tables do not fit.
    """
    job = _job(task, hardware=hardware, work=work)
    tables = {
        spec.name: PlannedTable(
            rows=spec.num_rows, dim=spec.dim, optimizer=spec.optimizer, mean_bag_length=_mean_ids(spec, work=work)
        )
        for spec in specs
    }
    constraints = table_constraints(
        {spec.name: _wish(spec, work=work, device=hardware.device) for spec in specs},
        device=hardware.device,
        host_memory=work.host_memory or bool(path),
    )

    def make() -> ShardingPlan:
        if path:
            return given_plan(
                read_plan(_content(path), path=path),
                module=task,
                hardware=hardware,
                constraints=constraints,
                rows_per_rank=work.rows_per_rank,
            )
        return plan_tables(
            task,
            hardware=hardware,
            constraints=constraints,
            tables=tables,
            job=job,
            extra_bytes=work.extra_bytes,
        )

    plan: ShardingPlan = once(make)
    sizes = {spec.name: (spec.num_rows, spec.dim) for spec in specs}
    as_json = plan_json(plan, facts=made_for(sizes, hardware=hardware, rows_per_rank=work.rows_per_rank))
    report = report_plan(as_json["tables"], tables=tables, job=job)
    return TaskPlan(plan=plan, as_json=as_json | {"report": report.as_json()}, report=report)


def replicated_plan(
    task: EnsembleTask, tables: Mapping[str, PlannedTable], *, hardware: Hardware, work: TaskWork
) -> PlanReport:
    """The report of a scoring job whose every rank holds all tables, as quantised ones are.

    Args:
        task: The unsharded task.
        tables: Table name -> what it is.
        hardware: The machine.
        work: What the job asks of them.
    """
    whole = {"sharding_type": ShardingType.DATA_PARALLEL.value, "kernel": "dense", "shards": []}
    return report_plan(dict.fromkeys(tables, whole), tables=tables, job=_job(task, hardware=hardware, work=work))


def _wish(spec: TableSpec, *, work: TaskWork, device: str) -> TableWish:
    is_scoring = work.dense_rules is None
    return TableWish(
        key=spec.key,
        num_rows=spec.num_rows,
        dim=spec.dim,
        # A scoring job has no state, and a CPU no other memory: what training chose for these binds it not.
        optimizer="sgd" if is_scoring else spec.optimizer,
        placement=spec.placement,
        kernel="auto" if is_scoring and device == "cpu" else spec.kernel,
        mean_ids=_mean_ids(spec, work=work),
    )


def _mean_ids(spec: TableSpec, *, work: TaskWork) -> float:
    return work.mean_ids.get(spec.feature, 1.0)


def _job(task: EnsembleTask, *, hardware: Hardware, work: TaskWork) -> PlannedJob:
    parameters: dict[str, int] = {}
    for name, member in task.ensemble.bank.members.items():
        rule = "sgd" if work.dense_rules is None else work.dense_rules[name]
        parameters[rule] = parameters.get(rule, 0) + sum(parameter.numel() for parameter in member.parameters())
    return PlannedJob(
        device=hardware.device,
        world_size=hardware.world_size,
        ranks_per_host=hardware.local_world_size,
        rows_per_rank=work.rows_per_rank,
        dense_parameters=parameters,
        purpose="score" if work.dense_rules is None else "train",
        keeps_best=work.keeps_best,
    )


def _content(path: str) -> bytes:
    if not storage.is_file(path):
        raise ConfigError(
            f"run.plan: {path!r} is not a file; name the plan.json of a run's folder or checkpoint, or leave it empty"
            " to plan anew"
        )
    with storage.open_file(path, "rb") as file:
        return bytes(file.read())
