"""The models of a scoring job on their ranks: weights only, every checkpoint under a new plan for this world."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import nn

from configs.errors import PlanError
from sharding.apply import shard_model
from sharding.hardware import live_hardware
from sharding.report import PlanReport
from trainer.built_task import BuiltTask, build_task
from trainer.checkpoints.loading import Wanted, load
from trainer.checkpoints.manifest import CheckpointManifest, verify
from trainer.checkpoints.matching import check_same_model
from trainer.data.reading.mean_ids import mean_ids
from trainer.quantised_tables import RowType, quantised_model
from trainer.runtime import Runtime
from trainer.scored_run import ScoredRun
from trainer.scoring import ScoringJob, ScoringWork
from trainer.scoring_plan import ScoringPlan
from trainer.task_plan import TaskPlan, TaskWork, plan_task
from trainer.votes import Ranks


@dataclass(frozen=True, kw_only=True)
class AssembledScoring:
    """A scoring job, ready to start."""

    job: ScoringJob
    reports: tuple[PlanReport, ...]  # a checkpoint each; none where tables are not sharded


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """A checkpoint's ensemble and where its tables will lie."""

    run: ScoredRun
    manifest: CheckpointManifest
    built: BuiltTask
    plan: TaskPlan | None  # None: every rank holds all of its tables


def assemble_scoring(plan: ScoringPlan, *, done: Collection[str], runtime: Runtime) -> AssembledScoring:
    """Builds, plans and loads the ensembles. All ranks must call this.

    The planner lays out each checkpoint's tables as if it were alone; what all of them hold together is compared with
    a rank's memory afterwards. Batches, host buffers of logits and what libraries take are in neither.

    Args:
        plan: The job.
        done: Names of the ranges that are there already.
        runtime: The ranks.

    Raises:
        ChorusError: a checkpoint is damaged or of another model, or the tables do not fit.
    """
    with runtime.patience("planning"):
        placed = [
            _placed(run, manifest, plan=plan, runtime=runtime)
            for run, manifest in zip(plan.runs, plan.checkpoints, strict=True)
        ]
    reports = tuple(one.plan.report for one in placed if one.plan is not None)
    _check_memory(reports, runs=plan.runs, runtime=runtime)
    with runtime.patience("restoring"):
        ranks = runtime.open_side_group()
        models = [_ensemble_model(one, plan=plan, ranks=ranks, runtime=runtime) for one in placed]
    work = ScoringWork(
        source=plan.source,
        ranges=plan.ranges,
        batch_size=plan.config.score.batch_size,
        done=done,
        prefetch_batches=plan.data.prefetch_batches,
    )
    return AssembledScoring(job=ScoringJob(models=models, work=work, runtime=runtime), reports=reports)


def _placed(run: ScoredRun, manifest: CheckpointManifest, *, plan: ScoringPlan, runtime: Runtime) -> _Placed:
    built = build_task(run.config, features=plan.source.features)
    check_same_model(manifest, built.facts)
    planned = None
    if plan.config.score.tables == "sharded":
        work = TaskWork(rows_per_rank=plan.config.score.batch_size, mean_ids=mean_ids(plan.source))
        planned = plan_task(built.task, built.specs, work=work, runtime=runtime)
    return _Placed(run=run, manifest=manifest, built=built, plan=planned)


def _ensemble_model(placed: _Placed, *, plan: ScoringPlan, ranks: Ranks, runtime: Runtime) -> nn.Module:
    """The checkpoint's ensemble with its weights; gives (loss, EnsembleOutput) of a batch. A collective."""
    loading = f"loading {placed.run.called}"
    runtime.beat(loading)
    verify(placed.manifest, ranks=runtime.ranks)
    if placed.plan is None:
        dtype: RowType = "fp16" if plan.config.score.tables == "fp16" else "int8"

        def say(text: str) -> None:  # every few seconds
            runtime.beat(loading)
            runtime.say(text)

        model: nn.Module = runtime.together(
            lambda: quantised_model(
                placed.built,
                placed.manifest,
                dtype=dtype,
                device=runtime.device,
                say=say,
                ranks_beside=runtime.local_world_size,
            )
        )
        return model
    sharded = shard_model(placed.built.task, plan=placed.plan.plan, device=runtime.device, process_group=runtime.group)
    load(placed.manifest, Wanted.weights(sharded.state_dict()), ranks=ranks, say=runtime.say)
    return sharded


def _check_memory(reports: Sequence[PlanReport], *, runs: Sequence[ScoredRun], runtime: Runtime) -> None:
    """Refuses plans that fit one by one and not together."""
    if len(reports) < 2:
        return
    hardware = live_hardware(
        device=runtime.device, world_size=runtime.world_size, local_world_size=runtime.local_world_size
    )
    there = hardware.rank_bytes
    held = [sum(of_rank) for of_rank in zip(*(report.held for report in reports), strict=True)]
    if max(held) > there:
        raise PlanError(
            f"--checkpoint: {', '.join(run.called for run in runs)} together take {max(held):,} bytes of rank"
            f" {held.index(max(held))}'s {there:,}; score them in jobs of their own, or add ranks"
        )
