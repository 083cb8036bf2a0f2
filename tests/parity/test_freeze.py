"""A frozen member and its tables keep every bit on several ranks, under every placement, while the others train.

Each run starts from a checkpoint of all members, so the frozen ones have optimizer state to lose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from configs.schema import RunConfig
from sharding.fused_kernels import fused_kernels
from tests.support.ranks import RankPool
from tests.support.runs import placed, small_run, without
from tests.support.state import State, whole_tensors
from tests.support.training import train_run
from trainer.assembly import assemble_training, training_tensors
from trainer.data.reading.loading import BatchReader
from trainer.data.reading.order import RowOrder
from trainer.loop import Training
from trainer.runtime import Runtime

Trained = Callable[..., str]


@pytest.fixture(scope="module")
def trained(ranks: Callable[[int], RankPool], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Gives a checkpoint of two steps made with some overrides, as the override that starts from it."""
    made: dict[tuple[str, ...], str] = {}

    def start(*words: str) -> str:
        if words not in made:
            folder = tmp_path_factory.mktemp("trained")
            ranks(1).run(train_run, small_run(*words, "--train.until={steps=2}"), str(folder))
            (checkpoint,) = (folder / "checkpoints").iterdir()
            made[words] = f"--checkpoint.start_from={checkpoint}"
        return made[words]

    return start


def train(runtime: Runtime, config: RunConfig, folder: str) -> tuple[State, State]:
    """Three steps and evaluations; gives all weights and optimizer states before and after."""
    training = assemble_training(config, folder=folder, runtime=runtime).training

    def state() -> State:
        return whole_tensors(training_tensors(training.model, training.optimizer), runtime=runtime)

    start = state()
    take_steps(training, config, runtime=runtime)
    return start, state()


def take_steps(training: Training, config: RunConfig, *, runtime: Runtime) -> None:
    """Three steps, each with an evaluation after it."""
    reader = BatchReader(
        source=training.source, batch_size=config.train.batch_size, rank=runtime.rank, world_size=runtime.world_size
    )
    order = RowOrder(num_rows=training.source.num_rows, seed=config.data.seed, window=config.data.shuffle_window)
    for step, batch in zip(range(3), reader.batches(order), strict=False):
        training.task.begin_step(step=step, rank=runtime.rank)
        training.optimizer.set_lr_factor(1 - 0.1 * step)
        training.optimizer.zero_grad()
        training.model(batch)[0].backward()
        training.optimizer.step()
        with torch.no_grad():
            training.model(batch)


def frozen_keys(state: State, *, members: tuple[str, ...], groups: tuple[str, ...]) -> set[str]:
    marks = [f".members.{name}." for name in members]
    marks += [
        f"{before}{group}{after}" for group in groups for before in (".", "/") for after in ("/", "+first_order/")
    ]
    return {key for key in state if any(mark in key for mark in marks)}


def check(start: State, end: State, frozen: set[str]) -> None:
    assert start.keys() == end.keys() and frozen
    still = {key for key, value in start.items() if (value == end[key]).all()}
    assert still == frozen


@pytest.mark.parametrize(
    ("world_size", "placement"),
    [(1, "row_wise"), (2, "data_parallel"), (2, "table_wise"), (2, "row_wise"), (4, "auto")],
)
def test_a_frozen_member_freezes_the_tables_it_shares(
    ranks: Callable[[int], RankPool], trained: Trained, tmp_path: Any, world_size: int, placement: str
) -> None:
    """`cross` reads the same tables and goes on learning above them."""
    config = small_run(trained(), *placed(placement), "--members.deep.freeze=true", "--members.deep.clip_norm=0.1")
    start, end = ranks(world_size).run(train, config, str(tmp_path))[0]
    check(start, end, frozen_keys(start, members=("deep",), groups=("shared",)))


@pytest.mark.parametrize("rule", ["sgd", "adagrad", "adam"])
def test_whatever_the_rule(ranks: Callable[[int], RankPool], trained: Trained, tmp_path: Any, rule: str) -> None:
    placement = "data_parallel" if rule == "adam" else "table_wise"
    words = (*placed(placement), *(f"--tables.{group}.optimizer={rule}" for group in ("shared", "own")))
    config = small_run(trained(*words), *words, "--members.dot.freeze=true", "--members.factor.freeze=true")
    start, end = ranks(2).run(train, config, str(tmp_path))[0]
    check(start, end, frozen_keys(start, members=("dot", "factor"), groups=("dot", "factor")))


@pytest.mark.parametrize("placement", ["data_parallel", "row_wise", "auto"])
def test_all_tables_frozen_and_some_members_not(
    ranks: Callable[[int], RankPool], trained: Trained, tmp_path: Any, placement: str
) -> None:
    """No gradient leaves the members, so nothing may wait for one."""
    freeze = (f"--members.{name}.freeze=true" for name in ("deep", "dot", "factor"))
    config = small_run(trained(), *placed(placement), *freeze)
    start, end = ranks(2).run(train, config, str(tmp_path))[0]
    check(start, end, frozen_keys(start, members=("deep", "dot", "factor"), groups=("shared", "dot", "factor")))


def kernels(runtime: Runtime, config: RunConfig, folder: str) -> list[tuple[str, ...]]:
    """The tables of each of this rank's kernels."""
    model = assemble_training(config, folder=folder, runtime=runtime).training.model
    return [kernel.tables for kernel in fused_kernels(model)]


def test_a_rank_may_hold_frozen_tables_alone(ranks: Callable[[int], RankPool], trained: Trained, tmp_path: Any) -> None:
    """Its kernels all end the backward pass, and it still takes part in the exchange of gradients."""
    words = [
        f"--tables.{group}.features.C{i}.placement=data_parallel" for group in ("shared", "own") for i in range(2, 27)
    ]
    text = without("cross", "factor")
    config = small_run(trained(), *placed("table_wise"), "--members.deep.freeze=true", *words, text=text)
    assert sorted(ranks(2).run(kernels, config, str(tmp_path))) == [[("dot/C1",)], [("shared/C1",)]]
    start, end = ranks(2).run(train, config, str(tmp_path))[0]
    check(start, end, frozen_keys(start, members=("deep",), groups=("shared",)))
