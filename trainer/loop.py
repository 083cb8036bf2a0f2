"""The training loop: steps, and what happens between them."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.train_pipeline import TrainPipelineBase, TrainPipelineSparseDist

from configs.interval_schema import Until
from configs.schema import Data, RunConfig
from modules.contracts import EnsembleOutput
from modules.task import EnsembleTask
from trainer.checkpoints.run_checkpoints import RunCheckpoints, Snapshot
from trainer.clock import clock
from trainer.data.reading.batch import Batch
from trainer.data.reading.loading import BatchReader
from trainer.data.reading.order import RowOrder
from trainer.data.reading.prefetch import prefetched
from trainer.data.reading.source import RowSource
from trainer.early_stop import EarlyStop
from trainer.evaluation import Evaluator, as_scalars, quality_line
from trainer.loss_window import LossWindow
from trainer.metrics.meters import MeteredColumn
from trainer.optimizers import TaskOptimizer
from trainer.profiling import StepProfiler
from trainer.progress import Progress
from trainer.reporting import Reporter, Stopwatch
from trainer.runtime import Runtime
from trainer.schedules import LrSchedule
from trainer.step_times import StepTimes, fractions
from trainer.usage import UsageLog
from trainer.watch import QualityWatch

Pipeline: TypeAlias = TrainPipelineBase[Batch, EnsembleOutput] | TrainPipelineSparseDist[Batch, EnsembleOutput]


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the loop works on."""

    model: DistributedModelParallel  # the sharded task
    task: EnsembleTask
    optimizer: TaskOptimizer
    progress: Progress
    schedule: LrSchedule
    watch: QualityWatch
    early_stop: EarlyStop
    source: RowSource
    evaluator: Evaluator | None
    member_names: Sequence[str]
    checkpoints: RunCheckpoints
    losses: LossWindow
    usage: UsageLog
    snapshot: Callable[[float | None], Snapshot]  # of now; takes the watched figure, higher is better

    def leave_out_stopped(self) -> None:
        """Trains on without the members that have stopped."""
        self.task.stop(self.early_stop.stopped_members)
        self.optimizer.stop(self.early_stop.stopped_groups)


@dataclass(frozen=True, kw_only=True)
class LoopEnd:
    """How the loop ended."""

    preempted: bool
    reached_target: bool
    seconds: float  # spent in steps
    rows: int
    quality: dict[str, MeteredColumn]  # of the last evaluation; empty without one


def train(training: Training, *, config: RunConfig, reporter: Reporter, runtime: Runtime) -> LoopEnd:
    """Trains until `train.until`, the watched figure's target or a stop signal, and leaves a checkpoint.

    All ranks must call this.

    Raises:
        ChorusError: a member's loss is not finite (names the member and the step), or a checkpoint cannot be written.
    """
    progress = training.progress
    reader = BatchReader(
        source=training.source, batch_size=config.train.batch_size, rank=runtime.rank, world_size=runtime.world_size
    )
    num_steps = _steps_left(training, until=config.train.until, batch_size=config.train.batch_size)
    times = StepTimes(runtime.device, world_size=runtime.world_size)
    times.watch(training.task.ensemble.tables)
    training.optimizer.mark = times.mark
    made = _training_batches(reader, epoch=progress.epoch, row=progress.row, data=config.data, num_steps=num_steps)
    between = _BetweenSteps(
        training,
        config=config,
        last_step=progress.step + num_steps,
        times=times,
        reporter=reporter,
        runtime=runtime,
    )
    profiled = config.train.profile_steps
    if profiled and profiled[0] > progress.step + num_steps:
        runtime.say(f"train.profile_steps: nothing is recorded, the run ends at step {progress.step + num_steps}")
    pipeline = _build_pipeline(config.train.pipeline, training=training, device=runtime.device)
    runtime.listen_for_stop()
    profiler = StepProfiler(
        profiled,
        folder=reporter.folder,
        rank=runtime.rank,
        device=runtime.device,
        steps_done=progress.step,
    )
    training.usage.begin()
    if num_steps:
        training.early_stop.hold_best(False)
        training.leave_out_stopped()
    waiting = prefetched(made, ahead=config.data.prefetch_batches, device=runtime.device)
    whole = training.checkpoints.ended_before_failing()
    with waiting as ready, profiler, times.waits(), runtime.steps(), whole:
        batches = times.timed(ready)
        while not between.is_over:
            runtime.beat(f"step {progress.step + 1}")
            factor = training.schedule.factor(progress.step + 1)
            training.optimizer.set_lr_factor(factor, by_group=training.early_stop.lr_factors)
            num_rows = reader.local_rows_of_step(progress.row)
            training.task.begin_step(step=progress.step, rank=runtime.rank, num_rows=num_rows)
            output = pipeline.progress(batches)
            progress.advance(reader.rows_of_step(progress.row), epoch_rows=training.source.num_rows)
            profiler.step(progress.step)
            between.after_step(output.losses_M, pipeline=pipeline)
    with runtime.patience("the end of the last checkpoint"):
        training.checkpoints.wait()
    training.usage.settle()
    return between.end()


class _BetweenSteps:
    """What happens between steps: losses, logs, evaluations, checkpoints, and whether to stop."""

    def __init__(
        self,
        training: Training,
        *,
        config: RunConfig,
        last_step: int,
        times: StepTimes,
        reporter: Reporter,
        runtime: Runtime,
    ) -> None:
        self._training = training
        self._config = config.train
        self._save_every = config.checkpoint.every
        self._first_step, self._last_step = training.progress.step, last_step
        self._logged_step = self._first_step
        self._first_row = training.progress.rows_total
        self._steps_per_epoch = -(-training.source.num_rows // config.train.batch_size)
        self._times = times
        self._reporter = reporter
        self._runtime = runtime
        self._losses = training.losses
        self._losses.begin(self._first_step)
        self._watch = Stopwatch(rows=self._first_row)
        self._saved_at = time.monotonic()
        self._quality: dict[str, MeteredColumn] = {}
        self._preempted = False
        self._reached_target = False

    @property
    def is_over(self) -> bool:
        """Whether there is no further step to take."""
        training = self._training
        ended = self._reached_target or training.early_stop.is_over
        return training.progress.step >= self._last_step or self._preempted or ended

    def after_step(self, losses_M: torch.Tensor, *, pipeline: Pipeline) -> None:
        """Does what is due after a step. All ranks must call this."""
        self._losses.add(losses_M)
        step = self._training.progress.step
        end = step == self._last_step
        log = end or self._config.log_every.due(step, steps_per_epoch=self._steps_per_epoch)
        counts = self._config.evaluate_every.due(step, steps_per_epoch=self._steps_per_epoch)
        evaluate = end or counts
        save = end or self._save_every.due(
            step,
            steps_per_epoch=self._steps_per_epoch,
            cycles_done=self._training.schedule.cycles_at_end(step),
        )
        if not (log or evaluate or save or self._losses.due(step)):
            return
        agreed = self._losses.agree(step, save=self._is_time_to_save(), failed=self._training.checkpoints.has_failed)
        if agreed.failed:
            self._training.checkpoints.wait()  # raises what went wrong
        self._preempted = self._runtime.stopped_on_request = agreed.stop and not end
        if log:
            self._log(step)
        with self._watch.paused():
            quality = None
            if evaluate and self._training.evaluator is not None:
                quality = self._evaluate(step, pipeline=pipeline, counts=counts)
            best = quality is not None and self._training.checkpoints.is_among_best(quality)
            if self.is_over and not self._preempted and self._training.early_stop.is_on:
                quality = self._end_with_best(step, pipeline=pipeline)
            if save or best or agreed.save or self.is_over:
                self._save(quality)

    def end(self) -> LoopEnd:
        """How it ended."""
        return LoopEnd(
            preempted=self._preempted,
            reached_target=self._reached_target,
            seconds=self._watch.seconds,
            rows=self._training.progress.rows_total - self._first_row,
            quality=self._quality,
        )

    def _is_time_to_save(self) -> bool:
        return 0 < self._save_every.seconds <= time.monotonic() - self._saved_at

    def _log(self, step: int) -> None:
        seconds_left = (self._last_step - step) * self._watch.mean_seconds(steps=step - self._first_step)
        lap = self._watch.lap(rows=self._training.progress.rows_total)
        stopped = self._training.early_stop.stopped_members
        losses = {member: loss for member, loss in self._losses.take().items() if member not in stopped}
        scalars = {f"train/{member}/loss_nats": loss for member, loss in losses.items()}
        scalars["train/rows_per_second"] = lap.rows_per_second
        scalars["train/lr_factor"] = self._training.schedule.factor(step)
        phases = self._times.take()
        scalars |= fractions(phases, of=lap.seconds)
        self._training.usage.add(steps=step - self._logged_step, rows=lap.rows, seconds=lap.seconds, phases=phases)
        self._logged_step = step
        self._reporter.write(step, scalars)
        self._runtime.say(_step_line(step, last_step=self._last_step, scalars=scalars, seconds_left=seconds_left))

    def _evaluate(self, step: int, *, pipeline: Pipeline, counts: bool) -> float | None:
        """Gives the watched figure, higher is better; None where the rows do not define it.

        One that does not count, at the end of a run alone, leaves no trace in watch and schedule: a run that ended
        there and goes on is as one that never ended.
        """
        training = self._training
        self._measure(step, pipeline=pipeline, name="eval")
        watch = training.watch if counts else copy.copy(training.watch)
        verdict = watch.update(self._quality)
        if verdict.reached_target and not counts:
            training.watch.update(self._quality)  # it has ended for good
        if counts:
            self._learn_from_evaluation(verdict.improved)
        if verdict.reached_target:
            self._reached_target = True
            self._runtime.say(f"  train.watch.target is reached: {verdict.value:.5f}")
        return verdict.rank if verdict.rank > -torch.inf else None

    def _measure(self, step: int, *, pipeline: Pipeline, name: str) -> None:
        training = self._training
        assert training.evaluator is not None
        with self._runtime.patience("an evaluation"), _detached(pipeline, training.model):
            self._quality = training.evaluator.evaluate(
                training.model, settled=training.early_stop.stopped_members, skip=training.task.ensemble.bank.skip
            )
        self._reporter.write(step, as_scalars(self._quality, name=name))
        quality_line(self._quality, say=self._runtime.say)

    def _learn_from_evaluation(self, improved: bool) -> None:
        training = self._training
        if self._config.schedule.plateau_of == "watch":
            training.schedule.on_evaluation(improved)
        for sentence in training.early_stop.update(self._quality):
            self._runtime.say(f"  {sentence}")
        training.leave_out_stopped()

    def _end_with_best(self, step: int, *, pipeline: Pipeline) -> float | None:
        """Puts every member's best weights in place and gives the watched figure with them."""
        training = self._training
        training.early_stop.hold_best(True)
        self._runtime.say("  with every member's best weights:")
        self._measure(step, pipeline=pipeline, name="best")
        rank = copy.copy(training.watch).update(self._quality).rank
        return rank if rank > -torch.inf else None

    def _save(self, quality: float | None) -> None:
        with self._runtime.patience("a checkpoint"):
            self._training.checkpoints.save(self._training.snapshot(quality))
        self._saved_at = time.monotonic()


def _steps_left(training: Training, *, until: Until, batch_size: int) -> int:
    if training.watch.is_done or training.early_stop.is_over:
        return 0
    return training.progress.steps_left(until, epoch_rows=training.source.num_rows, batch_size=batch_size)


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


@contextlib.contextmanager
def _detached(pipeline: Pipeline, model: DistributedModelParallel) -> Iterator[None]:
    """The overlapped pipeline has put its own forward into the sharded module; batches in flight are kept."""
    overlapped = isinstance(pipeline, TrainPipelineSparseDist)
    if overlapped:
        pipeline.detach()
    yield
    if overlapped:
        pipeline.attach(model)


def _step_line(step: int, *, last_step: int, scalars: dict[str, float], seconds_left: float) -> str:
    losses = "  ".join(
        f"{key.split('/')[1]} {value:.4f}" for key, value in scalars.items() if key.endswith("/loss_nats")
    )
    rate = f"{scalars['train/rows_per_second']:,.0f} rows/s  data {scalars['time/data_fraction']:.0%}"
    return f"step {step}/{last_step}  {rate}  ETA {clock(seconds_left)}  loss_nats  {losses}"
