"""What planning says that tables, their optimizer state and members take is what ranks allocate, to the byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from configs.hardware_schema import PHASES
from tests.support.hardware_files import small_machine
from tests.support.ranks import RankPool
from tests.support.runs import placed, small_run
from tests.support.training import train_run
from trainer import storage
from trainer.analysis.plan_comparison.comparison import compare
from trainer.analysis.plan_comparison.prediction import past_run, predicted
from trainer.analysis.plan_comparison.run_usage import read_usage

ALLOCATED = ("table_weights", "table_optimizer", "dense_weights", "dense_optimizer")


@pytest.mark.parametrize(
    ("world_size", "words"),
    [
        (2, ("--tables.shared.optimizer=adagrad", "--tables.own.optimizer=sgd")),
        (2, (*placed("data_parallel"), "--tables.own.optimizer=adam")),
        (
            4,
            (
                *placed("column_wise"),
                "--tables.shared.optimizer=adagrad",
                "--tables.own.column_sums=true",
                "--tables.own.dim=8",
            ),
        ),
    ],
)
def test_predicted_bytes_are_allocated_bytes(
    ranks: Callable[[int], RankPool], tmp_path: Path, world_size: int, words: tuple[str, ...]
) -> None:
    config = small_run("--train.until={steps = 2}", "--train.log_every.steps=1", *words)
    folder = str(tmp_path / "run")
    ranks(world_size).run(train_run, config, folder)
    storage.write_json(storage.join(folder, "plan.json"), storage.read_json(newest_plan(folder)))
    storage.write_text(storage.join(folder, "run.toml"), storage.read_text(newest_plan(folder, "run.toml")))
    usage = read_usage(folder)
    hardware = small_machine(ranks=2)
    past = past_run(folder, usage)
    point = predicted(past, usage, folder=folder, hardware=hardware)
    for kind in ALLOCATED:
        assert point.held.get(kind, (0,) * world_size) == usage.allocated[kind], kind
    figures = {one.name: one for one in compare(point, usage, config=past.config, data=past.data, hardware=hardware)}
    assert set(PHASES) <= set(figures)
    assert figures["weights of tables"].error == 0.0
    assert all(usage.phases[phase] > 0 for phase in ("lookup", "communication", "dense", "optimizer"))
    assert sum(usage.phases.values()) <= 1.02 * usage.step_seconds


def newest_plan(folder: str, name: str = "plan.json") -> str:
    """A file that the last checkpoint holds, as the run's folder would."""
    return storage.join(folder, "checkpoints", "step_0000000002", name)
