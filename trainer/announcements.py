"""What a run tells its user at the start and at the end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from configs.loader import dump_run
from configs.schema import RunConfig
from modules.layers.batch_norm import BatchNorm
from trainer import storage
from trainer.assembly import AssembledTraining
from trainer.checkpoints.manifest import PLAN_NAME
from trainer.clock import clock
from trainer.data.reading.loading import slice_size
from trainer.data.synthetic.stream import SyntheticSource
from trainer.loop import LoopEnd
from trainer.metrics.exact import BinaryMetrics
from trainer.predictions.manifest import PredictionManifest
from trainer.reporting import METRICS_NAME, TENSORBOARD_NAME
from trainer.runtime import Runtime
from trainer.scoring_assembly import AssembledScoring
from trainer.scoring_plan import ScoringPlan


def say_start(config: RunConfig, *, assembled: AssembledTraining, folder: str, runtime: Runtime) -> None:
    """The resolved config, the model, the plan, and the best that the data allow where that is known."""
    if not runtime.is_main:
        return
    storage.write_json(storage.join(folder, PLAN_NAME), assembled.plan)
    training = assembled.training
    runtime.say(dump_run(config))
    parameters = sum(p.numel() for p in training.task.ensemble.bank.parameters())
    runtime.say(
        f"{len(training.member_names)} members ({', '.join(training.member_names)}), {parameters:,} dense parameters;"
        f" {runtime.world_size} rank(s) on {runtime.device.type}; {training.source.num_rows:,} training rows"
    )
    norms = [name for name, member in training.task.ensemble.bank.members.items() if _has_batch_norm(member)]
    if norms and runtime.world_size > 1:
        rows = slice_size(batch_size=config.train.batch_size, world_size=runtime.world_size)
        runtime.say(
            f"batch norm ({', '.join(norms)}): by the {rows:,} rows of each rank; running statistics are averaged over"
            " ranks at every step"
        )
    say_where_bf16_is_slow(config.dense.precision, runtime=runtime)
    runtime.say(assembled.report.table())
    if assembled.resumed_from:
        progress = training.progress
        runtime.say(
            f"resuming from {assembled.resumed_from}: step {progress.step}, epoch {progress.epoch}, row {progress.row}"
        )
    valid = assembled.sources.valid
    if isinstance(valid, SyntheticSource):
        best = valid.teacher.ceiling(valid.teacher_rows())
        runtime.say(f"best possible on the held-out rows: AUC {best.auc:.5f}, log loss {best.log_loss_nats:.5f} nats")


def _has_batch_norm(member: nn.Module) -> bool:
    return any(isinstance(layer, BatchNorm) for layer in member.modules())


def say_where_bf16_is_slow(precision: str, *, runtime: Runtime) -> None:
    """A word of advice: a DNN of 400-400-400 trained at 1,900 rows/s so, and at 20,000 in fp32 (AMD EPYC, AVX2)."""
    if precision == "bf16" and runtime.device.type == "cpu" and not has_bf16_kernels():
        runtime.say("dense.precision = 'bf16': this CPU has no instructions for it and emulates them; 'fp32' is faster")


def has_bf16_kernels() -> bool:
    """Whether matrix products in bfloat16 are fast on this CPU."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def say_end(end: LoopEnd, *, assembled: AssembledTraining, folder: str, runtime: Runtime) -> None:
    """What was trained, how good it is, and where everything lies."""
    progress = assembled.training.progress
    if end.preempted:
        runtime.say(f"stopped on request at step {progress.step}, with a checkpoint; start again to go on: {folder}")
        return
    if end.rows == 0 and assembled.training.early_stop.is_over:
        runtime.say(
            f"all members have stopped, the last at step {progress.step}, and only their best weights are left; to"
            f" train them further start another run with checkpoint.start_from: {folder}"
        )
        return
    if end.rows == 0:
        runtime.say(f"already trained to step {progress.step}; nothing to do: {folder}")
        return
    rate = end.rows / max(end.seconds, 1e-9)
    runtime.say(f"trained {end.rows:,} rows in {clock(end.seconds)} ({rate:,.0f} rows/s)")
    if end.quality:
        runtime.say(quality_table({name: column.metrics for name, column in end.quality.items()}))
    runtime.say(f"run folder: {folder}  (metrics: {METRICS_NAME}; tensorboard --logdir {folder}/{TENSORBOARD_NAME})")


def say_scoring(plan: ScoringPlan, assembled: AssembledScoring, *, runtime: Runtime) -> None:
    """What is about to be scored, and where the tables lie."""
    for run, report in zip(plan.runs, assembled.reports, strict=False):
        runtime.say(f"{run.label}: {report.sentence()}" if run.label else report.sentence())
    if not assembled.reports:
        runtime.say(f"every rank holds all tables, rows as {plan.config.score.tables}")
    for run in plan.runs:
        say_where_bf16_is_slow(run.config.dense.precision, runtime=runtime)
    runtime.say(f"scoring {assembled.job.num_rows:,} rows with {', '.join(plan.form.members)}")


def say_predictions(manifest: PredictionManifest, *, plan: ScoringPlan, folder: str, runtime: Runtime) -> None:
    """How good the members are, and where the predictions lie."""
    if manifest.metrics:
        runtime.say(quality_table(metrics_of(manifest)))
    else:
        runtime.say(f"no figures: {', '.join(plan.unlabelled)} without labels")
    runtime.say(f"predictions: {folder}  ({manifest.num_rows:,} rows in {len(manifest.files):,} files)")


def metrics_of(manifest: PredictionManifest) -> dict[str, BinaryMetrics]:
    """The figures of finished predictions, by member, then merged."""
    columns: dict[str, BinaryMetrics] = {}
    for name, figures in manifest.metrics.items():
        values: dict[str, Any] = {key: math.nan if value is None else value for key, value in figures.items()}
        columns[name] = BinaryMetrics(**values)
    return columns


def quality_table(columns: Mapping[str, BinaryMetrics]) -> str:
    """A line per prediction column: AUC, log loss in nats, normalised entropy, calibration."""
    width = max(len(name) for name in (*columns, "member"))
    lines = [f"{'member':<{width}}  {'AUC':>8}  {'log loss':>8}  {'NE':>8}  {'calibration':>11}"]
    for name, metrics in columns.items():
        lines.append(
            f"{name:<{width}}  {metrics.auc:8.5f}  {metrics.log_loss_nats:8.5f}  {metrics.ne:8.5f}"
            f"  {metrics.calibration:11.4f}"
        )
    return "\n".join(lines)
