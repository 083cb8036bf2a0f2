"""What only a CUDA device can verify of placements: its kernels, memory of the host behind them, Adam's fused state."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from sharding.constraints import KERNELS, SHARDING_TYPES
from tests.parity.test_sharded_equals_unsharded import EVERY_PLACEMENT, EVERY_RULE
from tests.support.runs import small_run
from tests.support.training import train_run
from tests.support.unsharded import train_unsharded
from trainer.runtime import Runtime

pytestmark = pytest.mark.gpu

FUSED = [placement for placement in SHARDING_TYPES if placement != "data_parallel"]


@pytest.mark.parametrize("kernel", ["auto", *KERNELS])
def test_every_placement_under_every_rule_and_kernel(tmp_path: Any, kernel: str) -> None:
    """`auto` leaves in the replicated tables; Adam's tables go round the placements too."""
    rules = ("sgd", "adagrad", "rowwise_adagrad", "adam")
    fused = [
        f"--tables.{rule}.features.C{feature}.placement={placement}"
        for rule in rules
        for feature, placement in zip(range(1, 27), itertools.cycle(FUSED), strict=False)
    ]
    kernels = [f"--tables.{rule}.kernel={kernel}" for rule in rules]
    words = EVERY_PLACEMENT if kernel == "auto" else [*fused, *kernels]
    config = small_run(*words, "--run.device=cuda", "--train.until={steps=9}", text=EVERY_RULE)
    plain = train_unsharded(config, 9)
    with Runtime(config.run) as runtime:
        found, _ = train_run(runtime, config, str(tmp_path))
    assert found.keys() == plain.end.keys()
    for key, value in plain.end.items():
        np.testing.assert_allclose(found[key], value, atol=2e-4, rtol=1e-4, err_msg=key)
