"""Under every schedule a sharded run equals plain optimizers whose learning rates are set by hand.

One run has tables that are data-parallel, table-wise and row-wise, so each way to set a rate is in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from configs.schema import RunConfig
from modules.tables import build_tables
from tests.support.ranks import RankPool
from tests.support.runs import small_run
from tests.support.state import State, assert_close, whole_tensors
from tests.support.unsharded import PlainTableRule
from trainer.assembly import AssembledTraining, assemble_training, training_tensors
from trainer.built_task import build_task
from trainer.data.reading.loading import BatchReader
from trainer.data.reading.opening import open_sources
from trainer.data.reading.order import RowOrder
from trainer.runtime import Runtime
from trainer.schedules import LrSchedule

NUM_STEPS = 9
PLACED = (
    "--tables.shared.placement=table_wise",
    "--tables.shared.features.C3.placement=data_parallel",
    "--tables.shared.features.C4.placement=row_wise",
    "--tables.own.placement=row_wise",
    "--tables.own.features.C5.placement=data_parallel",
    "--tables.own.features.C6.placement=table_wise",
)
# Steps after which the plateau is told of an evaluation without improvement.
STALE_AFTER = (3, 6)
SCHEDULES = {
    "{warmup_steps = 4}": [1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1, 1, 1],
    "{kind = 'polynomial', warmup_steps = 2, decay_start_step = 3, decay_steps = 5}": [
        *(1 / 2, 1, 1),
        *((4 / 5) ** 2, (3 / 5) ** 2, (2 / 5) ** 2, (1 / 5) ** 2, 0, 0),
    ],
    "{kind = 'cosine', decay_steps = 6, final_factor = 0.1}": [
        0.1 + 0.9 * (1 + np.cos(np.pi * min(step, 6) / 6)) / 2 for step in range(1, 10)
    ],
    "{kind = 'plateau', plateau_factor = 0.2, warmup_steps = 2}": [1 / 2, 1, 1, 0.2, 0.2, 0.2, 0.04, 0.04, 0.04],
}


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Weights before and after."""

    start: State
    end: State


def weights(assembled: AssembledTraining, *, runtime: Runtime) -> State:
    """All weights, whole."""
    training = assembled.training
    state = whole_tensors(training_tensors(training.model, training.optimizer), runtime=runtime)
    return {key.removeprefix("model/"): value for key, value in state.items() if key.startswith("model/")}


def train_sharded(runtime: Runtime, config: RunConfig, folder: str) -> Trained:
    """Steps with the run's schedule, as the loop does."""
    assembled = assemble_training(config, folder=folder, runtime=runtime)
    training, schedule = assembled.training, LrSchedule(config.train.schedule)
    start = weights(assembled, runtime=runtime)
    reader = BatchReader(
        source=training.source, batch_size=config.train.batch_size, rank=runtime.rank, world_size=runtime.world_size
    )
    order = RowOrder(num_rows=training.source.num_rows, seed=config.data.seed, window=config.data.shuffle_window)
    for step, batch in enumerate(reader.batches(order), start=1):
        training.task.begin_step(step=step, rank=runtime.rank)
        training.optimizer.set_lr_factor(schedule.factor(step))
        training.optimizer.zero_grad()
        training.model(batch)[0].backward()
        training.optimizer.step()
        if step in STALE_AFTER:
            schedule.on_evaluation(False)
        if step == NUM_STEPS:
            break
    return Trained(start=start, end=weights(assembled, runtime=runtime))


def train_plain(
    config: RunConfig, start: State, *, factors: list[float], clip_norms: dict[str, float] | None = None
) -> State:
    """One process, plain tables and torch's optimizers from the same weights, each step's rates set by hand."""
    torch.set_num_threads(1)
    source = open_sources(config.data).train
    built = build_task(config, features=source.features)
    ensemble = built.task.ensemble
    ensemble.tables = build_tables(built.specs, device="cpu")
    built.task.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in start.items()})
    tables = [PlainTableRule(spec, ensemble.tables.embedding_bags[spec.name].weight) for spec in built.specs]
    dense = torch.optim.Adam(ensemble.bank.parameters(), lr=config.dense.lr, eps=config.dense.eps)
    reader = BatchReader(source=source, batch_size=config.train.batch_size, rank=0, world_size=1)
    order = RowOrder(num_rows=source.num_rows, seed=config.data.seed, window=config.data.shuffle_window)
    for factor, batch in zip(factors, reader.batches(order), strict=False):
        dense.zero_grad()
        built.task(batch)[0].backward()
        for member, norm in (clip_norms or {}).items():
            torch.nn.utils.clip_grad_norm_(ensemble.bank.members[member].parameters(), norm)
        dense.param_groups[0]["lr"] = config.dense.lr * factor
        dense.step()
        for table, spec in zip(tables, built.specs, strict=True):
            table.spec = replace(spec, lr=spec.lr * factor)
            table.step()
    return {key: value.numpy().copy() for key, value in built.task.state_dict().items()}


@pytest.mark.parametrize("world_size", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda text: text.split("'")[1] if "'" in text else "warmup")
def test_every_rate_follows_the_schedule(
    ranks: Callable[[int], RankPool], tmp_path: Any, schedule: str, world_size: int
) -> None:
    # What it evaluates is never asked for: the steps are taken by hand.
    config = small_run(*PLACED, f"--train.schedule={schedule}", "--train.evaluate_every.steps=3")
    sharded: Trained = ranks(world_size).run(train_sharded, config, str(tmp_path))[0]
    plain = train_plain(config, sharded.start, factors=SCHEDULES[schedule])
    assert_close(plain, sharded.end, atol=2e-5)
    constant = train_plain(config, sharded.start, factors=[1.0] * NUM_STEPS)
    close = [key for key, value in constant.items() if np.allclose(value, sharded.end[key], atol=1e-4)]
    assert close == [], "the comparison cannot tell a schedule from none"


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_members_clip_norm_bounds_its_mean_gradient(
    ranks: Callable[[int], RankPool], tmp_path: Any, world_size: int
) -> None:
    """The eps is large: without one, Adam's steps hardly depend on a gradient's size."""
    norms = {"deep": 0.02, "cross": 0.05, "dot": 0.05, "factor": 0.05}
    config = small_run(*PLACED, "--dense.eps=0.1", "--dense.clip_norm=0.05", "--members.deep.clip_norm=0.02")
    sharded: Trained = ranks(world_size).run(train_sharded, config, str(tmp_path))[0]
    plain = train_plain(config, sharded.start, factors=[1.0] * NUM_STEPS, clip_norms=norms)
    assert_close(plain, sharded.end, atol=2e-5)
    free = train_plain(config, sharded.start, factors=[1.0] * NUM_STEPS)
    for member in norms:
        moved = [key for key in free if f"members.{member}." in key and np.abs(free[key] - plain[key]).max() > 1e-4]
        assert moved, f"{member} was not clipped"
