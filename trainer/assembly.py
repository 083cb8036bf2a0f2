"""Config to objects, in order; the only file that knows every type of a training run.

The order is fixed: tables on the meta device, their optimizers declared, plan, shard, initial
weights, the dense optimizer, restore.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torchrec.distributed.model_parallel import DistributedModelParallel

from configs.errors import ConfigError
from configs.loader import dump_run
from configs.schema import RunConfig
from modules.layers.batch_norm import BatchNorm
from modules.tables import FIRST_ORDER_SUFFIX
from sharding.apply import shard_model
from sharding.fused_kernels import FusedKernel, fused_kernels
from sharding.initialisation import TableInit, initialise_tables
from sharding.report import PlanReport
from sharding.shards import table_name
from trainer import storage
from trainer.built_task import BuiltTask, build_task, member_losses
from trainer.checkpoints.manifest import PLAN_NAME, RUN_NAME
from trainer.checkpoints.pieces import Pieces, State, pieces_of
from trainer.checkpoints.run_checkpoints import RunCheckpoints, Snapshot
from trainer.data.reading.loading import slice_size
from trainer.data.reading.mean_ids import mean_ids
from trainer.data.reading.opening import TrainingSources, open_sources
from trainer.data.reading.source import RowSource
from trainer.early_stop import EarlyStop
from trainer.evaluation import Evaluator
from trainer.loop import Training
from trainer.loss_window import LossWindow
from trainer.optimizers import TaskOptimizer, member_of, member_rules, update_tables_in_backward
from trainer.progress import Progress
from trainer.restoring import LiveState, restore
from trainer.runtime import Runtime
from trainer.schedules import run_schedule
from trainer.table_state import column_pieces
from trainer.task_plan import TaskWork, plan_task, training_work
from trainer.usage import UsageLog
from trainer.watch import QualityWatch

CHECKPOINTS_NAME = "checkpoints"


@dataclass(frozen=True, kw_only=True)
class ShardedTask:
    """The ensemble laid over the ranks."""

    built: BuiltTask
    model: DistributedModelParallel
    plan: dict[str, Any]
    report: PlanReport


def shard_task(built: BuiltTask, *, work: TaskWork, runtime: Runtime, plan_path: str = "") -> ShardedTask:
    """Plans, or takes the plan of a file, and shards. All ranks must call this.

    Args:
        built: What to shard.
        work: What the job asks of it.
        runtime: The ranks.
        plan_path: A plan file; empty: the planner decides.

    Raises:
        ConfigError: the plan file is not of this job.
        PlanError: the tables do not fit.
    """
    planned = plan_task(built.task, built.specs, work=work, path=plan_path, runtime=runtime)
    model = shard_model(built.task, plan=planned.plan, device=runtime.device, process_group=runtime.group)
    return ShardedTask(built=built, model=model, plan=planned.as_json, report=planned.report)


@dataclass(frozen=True, kw_only=True)
class AssembledTraining:
    """A training run, ready to start."""

    training: Training
    sources: TrainingSources
    report: PlanReport
    plan: dict[str, Any]
    resumed_from: str | None


def assemble_training(config: RunConfig, *, folder: str, runtime: Runtime) -> AssembledTraining:
    """Everything a training run needs. All ranks must call this.

    Raises:
        ChorusError: data, checkpoint or plan do not fit the config.
    """
    usage = UsageLog(folder=folder, runtime=runtime)
    sources = open_sources(config.data, ranks=runtime)
    schedule = run_schedule(config.train, epoch_rows=sources.train.num_rows)
    losses_of = member_losses(config, mean_over_ranks=lambda values: runtime.sum(values) / runtime.world_size)
    built = build_task(config, features=sources.train.features, losses=losses_of)
    _check_validation(config, sources)
    update_tables_in_backward(built.task, built.specs, frozen_groups=built.task.ensemble.frozen_groups)
    rows_per_rank = slice_size(batch_size=config.train.batch_size, world_size=runtime.world_size)
    work = training_work(config, rows_per_rank=rows_per_rank, mean_ids=mean_ids(sources.train))
    with runtime.patience("planning"):
        sharded = shard_task(built, work=work, runtime=runtime, plan_path=config.run.plan)
    model = sharded.model
    initialise_tables(
        model.state_dict(), inits={spec.name: TableInit(seed=spec.seed, bound=spec.init_bound) for spec in built.specs}
    )
    optimizer = _task_optimizer(config, sharded, runtime=runtime)
    early_stop = _early_stop(config, sharded)
    _check_groups_can_part(config, optimizer, runtime=runtime)
    _check_batch_norms(built, rows_per_rank=rows_per_rank)
    ranks = runtime.open_side_group()  # so that a checkpoint can be written beside training
    run_checkpoints = RunCheckpoints(
        folder=storage.join(folder, CHECKPOINTS_NAME),
        section=config.checkpoint,
        ranks=ranks,
        watched=f"{config.train.watch.column}/{config.train.watch.metric}",
    )
    data_facts = _data_facts(config, sources)

    def live() -> LiveState:
        return LiveState(
            tensors={**training_tensors(model, optimizer), **early_stop.state_tensors()},
            column_pieces=column_pieces(model.state_dict()),
            facts=built.facts,
            data=data_facts,
        )

    with runtime.patience("restoring"):
        resumed = restore(config, state=live(), run_checkpoints=run_checkpoints, ranks=ranks, say=runtime.say)
    progress, watch = Progress(), QualityWatch(config.train.watch)
    names = built.task.ensemble.member_names
    losses = LossWindow(names, runtime=runtime)
    if resumed is not None:
        progress = Progress(**resumed.progress)
        schedule.restore(resumed.learning["schedule"])
        watch.restore(resumed.learning["watch"])
        losses.restore(resumed.learning["losses"])
        early_stop.restore(resumed.learning["early_stop"])
    else:
        early_stop.begin()
    usage.assembled(
        training_tensors(model, optimizer),
        plan=sharded.plan,
        source=sources.train,
        batch_size=config.train.batch_size,
    )
    texts = {RUN_NAME: dump_run(config), PLAN_NAME: json.dumps(sharded.plan, indent=2) + "\n"}

    def snapshot(quality: float | None) -> Snapshot:
        state = live()
        facts = {
            "step": progress.step,
            "progress": progress.as_json(),
            "learning": {
                "schedule": schedule.state(),
                "watch": watch.state(),
                "losses": losses.state(),
                "early_stop": early_stop.state(),
            },
            "quality": quality,
            "model": built.facts.as_json(),
            "data": data_facts,
            "column_pieces": state.column_pieces,
        }
        return Snapshot(state=state.tensors, facts=facts, texts=texts)

    training = Training(
        model=model,
        task=built.task,
        optimizer=optimizer,
        progress=progress,
        schedule=schedule,
        watch=watch,
        early_stop=early_stop,
        source=sources.train,
        evaluator=None if sources.valid is None else _evaluator(sources.valid, names, config=config, runtime=runtime),
        member_names=names,
        checkpoints=run_checkpoints,
        losses=losses,
        usage=usage,
        snapshot=snapshot,
    )
    return AssembledTraining(
        training=training,
        sources=sources,
        report=sharded.report,
        plan=sharded.plan,
        resumed_from=None if resumed is None else resumed.folder,
    )


def _task_optimizer(config: RunConfig, sharded: ShardedTask, *, runtime: Runtime) -> TaskOptimizer:
    return TaskOptimizer(
        sharded.model,
        specs=sharded.built.specs,
        dense=config.dense,
        members=member_rules(config, groups=sharded.built.facts.groups),
        frozen_groups=sharded.built.task.ensemble.frozen_groups,
        runtime=runtime,
    )


def _early_stop(config: RunConfig, sharded: ShardedTask) -> EarlyStop:
    frozen = sharded.built.task.ensemble.frozen_groups
    trained = {name for name, member in config.expanded_members() if not member.freeze}
    groups = {
        group: own for group, names in config.members_by_group().items() if (own := [n for n in names if n in trained])
    }
    weights: dict[str, dict[str, Pieces | Tensor]] = {group: {} for group in groups}
    for key, value in sharded.model.state_dict().items():
        member, table = member_of(key), table_name(key)
        group = sharded.built.facts.groups[member] if member else _group_of(str(table))
        if (member in trained) if member else (group in groups and group not in frozen):
            weights[group][f"model/{key}"] = pieces_of(value)
    kernels = fused_kernels(sharded.model)
    return EarlyStop(
        config.train.early_stop,
        schedule=config.train.schedule,
        groups=groups,
        weights=weights,
        before_read=lambda: _each(kernels, FusedKernel.flush),
        after_write=lambda: _each(kernels, FusedKernel.drop_cache),
    )


def _each(kernels: Sequence[FusedKernel], do: Callable[[FusedKernel], None]) -> None:
    for kernel in kernels:
        do(kernel)


def _check_batch_norms(built: BuiltTask, *, rows_per_rank: int) -> None:
    for name, member in built.task.ensemble.bank.members.items():
        norms = any(isinstance(layer, BatchNorm) and layer.training for layer in member.modules())
        if norms and rows_per_rank < 2:
            raise ConfigError(
                f"train.batch_size: a rank gets one row a step, and member {name} has batch norm, which needs two or"
                " more; take a larger one, or fewer ranks"
            )


def _check_groups_can_part(config: RunConfig, optimizer: TaskOptimizer, *, runtime: Runtime) -> None:
    """Refuses what one group cannot do without the others."""
    drifting = next((tables for tables in runtime.gather(optimizer.drifting_tables()) if tables), ())
    if config.train.early_stop.evaluations and drifting:
        raise ConfigError(
            f"train.early_stop.evaluations: table {drifting[0]} is under the kernels' Adam, which moves rows of a"
            ' stopped member too; give its group placement = "data_parallel", or another optimizer'
        )
    if config.train.schedule.plateau_of != "early_stop":
        return
    mixed = next((groups for groups in runtime.gather(optimizer.mixed_kernel()) if groups), None)
    if mixed:
        raise ConfigError(
            f"train.schedule.plateau_of: tables of {' and '.join(sorted(mixed))} share a kernel and its learning rate;"
            ' give them placement = "data_parallel", or groups of their own with rates that differ, or take'
            ' plateau_of = "watch"'
        )


def _group_of(table: str) -> str:
    return table.partition("/")[0].removesuffix(FIRST_ORDER_SUFFIX)


def _check_validation(config: RunConfig, sources: TrainingSources) -> None:
    if sources.valid is not None:
        if sources.valid.features != sources.train.features:
            raise ConfigError("data.valid: its features or tables differ from those of data.train")
        return
    every = config.train.evaluate_every
    asks = {
        "train.evaluate_every": bool(every.steps or every.epochs),
        "train.watch.target": config.train.watch.target is not None,
        "train.schedule.kind = 'plateau'": config.train.schedule.kind == "plateau",
        "train.early_stop.evaluations": config.train.early_stop.evaluations > 0,
        "checkpoint.keep_best": config.checkpoint.keep_best > 0,
    }
    for key, asked in asks.items():
        if asked:
            raise ConfigError(f"{key}: there is no data.valid to evaluate on; name its parts")


def _evaluator(source: RowSource, names: Sequence[str], *, config: RunConfig, runtime: Runtime) -> Evaluator:
    return Evaluator(
        source=source,
        batch_size=config.train.batch_size,
        member_names=names,
        rule=config.merge.rule,
        runtime=runtime,
        prefetch_batches=config.data.prefetch_batches,
    )


def training_tensors(model: DistributedModelParallel, optimizer: TaskOptimizer) -> State:
    """All that a checkpoint holds, live: `model/KEY` and `optimizer/KEY`."""
    weights = {f"model/{key}": pieces_of(value) for key, value in model.state_dict().items()}
    return weights | {f"optimizer/{key}": pieces_of(value) for key, value in optimizer.state_tensors()}


def _data_facts(config: RunConfig, sources: TrainingSources) -> dict[str, Any]:
    return {
        "dense_optimizer": {
            name: member.optimizer or config.dense.optimizer for name, member in config.expanded_members()
        },
        "day_by_day": config.train.day_by_day,
        "seed": config.data.seed,
        "shuffle_window": config.data.shuffle_window,
        "parts": [[part.name, part.num_rows] for part in sources.train.parts],
    }
