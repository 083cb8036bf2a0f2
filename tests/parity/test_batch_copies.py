"""A run whose copies are computed as one equals, to rounding, the run that computes them one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.support.ranks import RankPool
from tests.support.runs import placed, small_run, without
from tests.support.state import assert_close
from tests.support.training import Trained, step_by_hand

# The eps is large: with a small one Adam makes whole steps of gradients that are rounding alone.
RUN = (
    *placed("data_parallel"),
    "--dense.eps=0.01",
    "--train.batch_size=21",
    "--members.deep.copies=3",
    '--members.deep.arch={kind = "mlp", hidden = [16, 8], dropout = 0.3, batch_norm = true}',
    "--members.deep.feature_dropout=0.2",
    "--members.factor.copies=2",
    '--members.factor.arch={kind = "deepfm", hidden = [8], batch_norm = true}',
)
NUM_STEPS = 5


@pytest.mark.parametrize("world_size", [1, 2])
def test_steps_are_the_same_to_rounding(ranks: Callable[[int], RankPool], tmp_path: Any, world_size: int) -> None:
    """On two ranks a batch of 21 rows is padded on one of them, which batch norm leaves out."""
    found, wanted = (
        ranks(world_size).run(step_by_hand, small_run(*RUN, *more, text=without("dot")), str(tmp_path), NUM_STEPS)[0]
        for more in (("--dense.batch_copies=true",), ())
    )
    assert isinstance(found, Trained)
    assert found.owners == wanted.owners
    np.testing.assert_allclose(found.logits, wanted.logits, atol=1e-5, rtol=1e-4)
    assert_close(wanted.end, found.end, atol=1e-5)
    moved = [key for key in found.end if "deep_2.mlp" in key and not np.array_equal(found.end[key], found.start[key])]
    assert any("running_mean" in key for key in moved) and any("weight" in key for key in moved)
    assert any(not np.array_equal(value, wanted.end[key]) for key, value in found.end.items()), "nothing was stacked"
