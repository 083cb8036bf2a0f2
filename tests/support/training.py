"""What ranks run in tests: assemble a training, step it, give its whole state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from configs.schema import RunConfig
from tests.support.state import State, whole_tensors
from trainer import storage
from trainer.announcements import metrics_of
from trainer.assembly import assemble_training, training_tensors
from trainer.data.reading.batch import Rows
from trainer.data.reading.loading import BatchReader
from trainer.data.reading.order import RowOrder
from trainer.loop import train
from trainer.metrics.exact import BinaryMetrics
from trainer.reporting import Reporter
from trainer.runtime import Runtime
from trainer.score import score
from trainer.scored_run import ScoredRun


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What steps gave."""

    logits: list[np.ndarray]  # per step, of the global batch's rows in order, [rows, M]
    losses: list[np.ndarray]  # per step, the mean over the global batch, [M]
    start: State
    end: State
    owners: dict[str, str]
    placements: dict[str, str]
    plan: dict[str, Any]  # table -> where it lies, as plan.json has it


def step_by_hand(runtime: Runtime, config: RunConfig, folder: str, num_steps: int) -> Trained:
    """Steps with the plain forward, backward, step; keeps each step's logits and losses."""
    assembled = assemble_training(config, folder=folder, runtime=runtime)
    training = assembled.training
    tensors = training_tensors(training.model, training.optimizer)
    start = whole_tensors(tensors, runtime=runtime)
    reader = BatchReader(
        source=training.source,
        batch_size=config.train.batch_size,
        rank=runtime.rank,
        world_size=runtime.world_size,
    )
    order = RowOrder(num_rows=training.source.num_rows, seed=config.data.seed, window=config.data.shuffle_window)
    logits, losses = [], []
    for step, batch in enumerate(reader.batches(order)):
        if step == num_steps:
            break
        training.task.begin_step(step=step, rank=runtime.rank)
        training.optimizer.zero_grad()
        loss, output = training.model(batch)
        loss.backward()
        training.optimizer.step()
        mine = output.logits_BM[batch.mask_B > 0].numpy()
        logits.append(np.concatenate(runtime.gather(mine)))
        losses.append(np.mean(runtime.gather(output.losses_M.numpy()), axis=0))
    tensors = training_tensors(training.model, training.optimizer)
    return Trained(
        logits=logits,
        losses=losses,
        start=start,
        end=whole_tensors(tensors, runtime=runtime),
        owners=training.optimizer.owners(),
        placements={name: table["sharding_type"] for name, table in assembled.plan["tables"].items()},
        plan=assembled.plan["tables"],
    )


def train_run(runtime: Runtime, config: RunConfig, folder: str) -> tuple[State, dict[str, int]]:
    """The real loop, from the newest checkpoint of the folder if there is one; gives the state and the progress."""
    runtime.from_main(lambda: storage.make_folder(folder))
    assembled = assemble_training(config, folder=folder, runtime=runtime)
    training = assembled.training
    reporter = Reporter(folder=folder, resumed_step=training.progress.step, runtime=runtime)
    train(training, config=config, reporter=reporter, runtime=runtime)
    reporter.close()
    tensors = training_tensors(training.model, training.optimizer)
    return whole_tensors(tensors, runtime=runtime), training.progress.as_json()


def rows_trained(runtime: Runtime, config: RunConfig, folder: str) -> list[int]:
    """The real loop, as `train_run`; gives the training rows that this rank was given, in order."""
    runtime.from_main(lambda: storage.make_folder(folder))
    training = assemble_training(config, folder=folder, runtime=runtime).training
    rows: list[int] = []
    read = training.source.read

    def keep(asked: range | np.ndarray) -> Rows:
        rows.extend(int(row) for row in asked)
        return read(asked)

    training.source.read = keep  # type: ignore[method-assign, assignment]
    reporter = Reporter(folder=folder, resumed_step=training.progress.step, runtime=runtime)
    train(training, config=config, reporter=reporter, runtime=runtime)
    reporter.close()
    return rows


def loaded_state(runtime: Runtime, config: RunConfig, folder: str) -> tuple[State, dict[str, int]]:
    """The state right after restoring the folder's newest checkpoint."""
    assembled = assemble_training(config, folder=folder, runtime=runtime)
    assert assembled.resumed_from is not None
    tensors = training_tensors(assembled.training.model, assembled.training.optimizer)
    return whole_tensors(tensors, runtime=runtime), assembled.training.progress.as_json()


def score_run(runtime: Runtime, config: RunConfig, checkpoint: str, folder: str) -> dict[str, BinaryMetrics]:
    """Scores with a checkpoint and finishes the folder; gives the figures."""
    manifest = score([ScoredRun(label="", folder=checkpoint, config=config)], output=folder, runtime=runtime)
    return metrics_of(manifest)
