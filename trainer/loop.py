"""The training loop: steps, and what happens between them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.train_pipeline import TrainPipelineBase, TrainPipelineSparseDist

from configs.schema import Data, Every, Train
from modules.contracts import EnsembleOutput
from modules.task import EnsembleTask
from trainer.clock import clock
from trainer.data.reading.batch import Batch
from trainer.data.reading.loading import BatchReader
from trainer.data.reading.order import RowOrder
from trainer.data.reading.prefetch import prefetched
from trainer.data.reading.source import RowSource
from trainer.evaluation import Evaluator, as_scalars, quality_line
from trainer.loss_window import LossWindow
from trainer.metrics.meters import MeteredColumn
from trainer.optimizers import TaskOptimizer
from trainer.progress import Progress
from trainer.reporting import Reporter, Stopwatch
from trainer.runtime import Runtime
from trainer.step_times import StepTimes

Pipeline: TypeAlias = TrainPipelineBase[Batch, EnsembleOutput] | TrainPipelineSparseDist[Batch, EnsembleOutput]


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the loop works on."""

    model: DistributedModelParallel  # the sharded task
    task: EnsembleTask
    optimizer: TaskOptimizer
    progress: Progress
    source: RowSource
    evaluator: Evaluator | None
    member_names: Sequence[str]
    save: Callable[[], str]  # writes a checkpoint and gives its folder; a collective


@dataclass(frozen=True, kw_only=True)
class LoopEnd:
    """How the loop ended."""

    preempted: bool
    seconds: float  # spent in steps
    rows: int
    quality: dict[str, MeteredColumn]  # of the last evaluation; empty without one


def train(
    training: Training, *, config: Train, data: Data, save_every: Every, reporter: Reporter, runtime: Runtime
) -> LoopEnd:
    """Trains until `config.until` or a stop signal, and leaves a checkpoint. All ranks must call this.

    Raises:
        ChorusError: a member's loss is not finite; names the member and the step.
    """
    progress, source = training.progress, training.source
    reader = BatchReader(source=source, batch_size=config.batch_size, rank=runtime.rank, world_size=runtime.world_size)
    first_step, first_row = progress.step, progress.rows_total
    num_steps = progress.steps_left(config.until, epoch_rows=source.num_rows, batch_size=config.batch_size)
    last_step = first_step + num_steps
    times = StepTimes(runtime.device)
    times.watch(training.task.ensemble.tables)
    training.optimizer.mark = times.mark
    made = _training_batches(reader, epoch=progress.epoch, row=progress.row, data=data, num_steps=num_steps)
    pipeline = _build_pipeline(config.pipeline, training=training, device=runtime.device)
    losses = LossWindow(training.member_names, step=first_step, runtime=runtime)
    runtime.listen_for_stop()
    watch, quality, stop = Stopwatch(rows=first_row), dict[str, MeteredColumn](), False

    with prefetched(made, ahead=data.prefetch_batches, device=runtime.device) as waiting:
        batches = times.timed(waiting)
        while progress.step < last_step and not stop:
            training.task.begin_step(step=progress.step, rank=runtime.rank)
            output = pipeline.progress(batches)
            losses.add(output.losses_M)
            progress.advance(reader.rows_of_step(progress.row), epoch_rows=source.num_rows)

            step, end = progress.step, progress.step == last_step
            log = config.log_every.due(step) or end
            evaluate = config.evaluate_every.due(step) or end
            save = save_every.due(step) or end
            if not (log or evaluate or save or losses.due(step)):
                continue
            stop = losses.agree(step) and not end
            if log:
                seconds_left = (last_step - step) * watch.mean_seconds(steps=step - first_step)
                lap = watch.lap(rows=progress.rows_total)
                scalars = _scalars(losses.take(), rows_per_second=lap.rows_per_second, times=times, seconds=lap.seconds)
                reporter.write(step, scalars)
                runtime.say(_step_line(step, last_step=last_step, scalars=scalars, seconds_left=seconds_left))
            with watch.paused():
                if evaluate and training.evaluator is not None:
                    quality = _evaluate(training.evaluator, pipeline=pipeline, model=training.model)
                    reporter.write(step, as_scalars(quality))
                    quality_line(quality, say=runtime.say)
                if save or stop:
                    runtime.say(f"checkpoint: {training.save()}")
    return LoopEnd(preempted=stop, seconds=watch.seconds, rows=progress.rows_total - first_row, quality=quality)


def _training_batches(reader: BatchReader, *, epoch: int, row: int, data: Data, num_steps: int) -> Generator[Batch]:
    """This rank's batches from a row of an epoch on, across epochs, exactly `num_steps` of them."""
    while num_steps > 0:
        order = RowOrder(num_rows=reader.num_rows, seed=data.seed, epoch=epoch, window=data.shuffle_window)
        with contextlib.closing(reader.batches(order, first_row=row)) as batches:
            for batch in batches:
                yield batch
                num_steps -= 1
                if num_steps == 0:
                    return
        epoch, row = epoch + 1, 0


def _build_pipeline(kind: str, *, training: Training, device: torch.device) -> Pipeline:
    # On CPU there is no stream to overlap on: both take the same time and give the same bits.
    overlapped = kind == "sparse_dist" or (kind == "auto" and device.type == "cuda")
    pipeline = TrainPipelineSparseDist if overlapped else TrainPipelineBase
    return pipeline(training.model, training.optimizer, device)


def _evaluate(evaluator: Evaluator, *, pipeline: Pipeline, model: DistributedModelParallel) -> dict[str, MeteredColumn]:
    # The overlapped pipeline has put its own forward into the sharded module; batches in flight are kept.
    overlapped = isinstance(pipeline, TrainPipelineSparseDist)
    if overlapped:
        pipeline.detach()
    quality = evaluator.evaluate(model)
    if overlapped:
        pipeline.attach(model)
    return quality


def _scalars(losses: dict[str, float], *, rows_per_second: float, times: StepTimes, seconds: float) -> dict[str, float]:
    scalars = {f"train/{member}/loss_nats": loss for member, loss in losses.items()}
    scalars["train/rows_per_second"] = rows_per_second
    phases = times.take()
    scalars |= {f"time/{phase}_fraction": spent / max(seconds, 1e-9) for phase, spent in phases.items()}
    return scalars


def _step_line(step: int, *, last_step: int, scalars: dict[str, float], seconds_left: float) -> str:
    losses = "  ".join(
        f"{key.split('/')[1]} {value:.4f}" for key, value in scalars.items() if key.endswith("/loss_nats")
    )
    rate = f"{scalars['train/rows_per_second']:,.0f} rows/s  data {scalars['time/data_fraction']:.0%}"
    return f"step {step}/{last_step}  {rate}  ETA {clock(seconds_left)}  loss_nats  {losses}"
