"""What only a CUDA device can verify of Adam on tables: the fused kernel, which the CPU build has not.

The kernel's rule must be LazyAdam's, its count of steps that of training alone, and freezing must stop both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sharding.fused_kernels import fused_kernels
from tests.parity import test_freeze
from tests.support.runs import placed, small_run
from tests.support.state import State
from tests.support.training import train_run
from trainer.assembly import assemble_training
from trainer.runtime import Runtime

pytestmark = pytest.mark.gpu

# Adam divides a first gradient by its own size: a larger eps keeps rounding from becoming a step of lr.
ADAM = tuple(f"--tables.{group}.{key}" for group in ("shared", "own") for key in ("optimizer=adam", "eps=1e-3"))


def _train(folder: str, *words: str) -> tuple[State, State]:
    config = small_run(*ADAM, *words, "--run.device=cuda")
    with Runtime(config.run) as runtime:
        return test_freeze.train(runtime, config, folder)


@pytest.mark.parametrize("placement", ["table_wise", "row_wise"])
def test_a_kernels_adam_is_that_of_a_replicated_table(tmp_path: Any, placement: str) -> None:
    """Evaluations lie between the steps."""
    _, replicated = _train(f"{tmp_path}/a", *placed("data_parallel"))
    _, fused = _train(f"{tmp_path}/b", *placed(placement))
    for key, value in replicated.items():
        if key.startswith("model/"):
            np.testing.assert_allclose(fused[key], value, atol=2e-4, rtol=1e-4, err_msg=key)


def test_evaluations_are_not_steps_of_adam(tmp_path: Any) -> None:
    config = small_run(*ADAM, *placed("table_wise"), "--run.device=cuda")
    with Runtime(config.run) as runtime:
        assembled = assemble_training(config, folder=str(tmp_path), runtime=runtime)
        test_freeze.take_steps(assembled.training, config, runtime=runtime)
        kernels = fused_kernels(assembled.training.model)
        assert [int(getattr(k.module, count)) for k in kernels for count in ("iter", "iter_cpu")] == [3, 3] * len(
            kernels
        )


def test_frozen_tables_keep_every_bit(tmp_path: Any) -> None:
    first = small_run(*ADAM, *placed("table_wise"), "--train.until={steps=2}", "--run.device=cuda")
    with Runtime(first.run) as runtime:
        train_run(runtime, first, f"{tmp_path}/first")
    (checkpoint,) = (tmp_path / "first" / "checkpoints").iterdir()
    words = (f"--checkpoint.start_from={checkpoint}", *placed("table_wise"), "--members.deep.freeze=true")
    start, end = _train(f"{tmp_path}/second", *words)
    test_freeze.check(start, end, test_freeze.frozen_keys(start, members=("deep",), groups=("shared",)))
