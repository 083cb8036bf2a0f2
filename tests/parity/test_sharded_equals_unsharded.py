"""A sharded run equals the same run without sharding, from initialisation on, under every plan."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.runs import placed, small_run
from tests.support.state import assert_bit_equal, assert_close
from tests.support.training import step_by_hand
from tests.support.unsharded import train_unsharded

NUM_STEPS = 9  # the epoch has 200 rows in batches of 24: the last one is ragged
ATOL = 2e-5


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("placement", ["data_parallel", "table_wise", "row_wise", "auto"])
def test_predictions_tables_and_optimizer_state(ranks, tmp_path, world_size, placement):
    config = small_run(*placed(placement))
    plain = train_unsharded(config, NUM_STEPS)
    sharded = ranks(world_size).run(step_by_hand, config, str(tmp_path), NUM_STEPS)[0]
    if placement != "auto":
        assert set(sharded.placements.values()) == {placement}
    assert len(plain.logits) == NUM_STEPS and len(plain.logits[-1]) == 200 - 8 * 24
    assert_bit_equal(plain.start, sharded.start)
    for step in range(NUM_STEPS):
        np.testing.assert_allclose(sharded.logits[step], plain.logits[step], atol=ATOL, err_msg=f"step {step}")
        np.testing.assert_allclose(sharded.losses[step], plain.losses[step], atol=ATOL, err_msg=f"step {step}")
    assert_close(plain.end, sharded.end, atol=ATOL)


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
@pytest.mark.parametrize("placement", ["data_parallel", "table_wise", "row_wise"])
def test_other_table_rules(ranks, tmp_path, optimizer, placement):
    # Element-wise Adagrad divides a first gradient by its own size: with a tiny eps the rounding of a
    # gradient near zero is blown up to a step of lr. A larger eps keeps the comparison well conditioned.
    config = small_run(
        *placed(placement),
        *(f"--tables.{group}.{key}" for group in ("shared", "own") for key in (f"optimizer={optimizer}", "eps=1e-3")),
    )
    plain = train_unsharded(config, NUM_STEPS)
    sharded = ranks(2).run(step_by_hand, config, str(tmp_path), NUM_STEPS)[0]
    assert_close(plain.end, sharded.end, atol=ATOL)


def test_more_ranks_than_rows_in_a_batch(ranks, tmp_path):
    config = small_run(*placed("row_wise"), "--data.synthetic.train_rows=7", "--train.batch_size=3")
    plain = train_unsharded(config, 3)
    sharded = ranks(4).run(step_by_hand, config, str(tmp_path), 3)[0]
    assert [len(logits) for logits in sharded.logits] == [3, 3, 1]
    assert_close(plain.end, sharded.end, atol=ATOL)


def test_a_feature_can_be_placed_otherwise(ranks, tmp_path):
    config = small_run(*placed("table_wise"), "--tables.shared.features.C3.placement=data_parallel")
    trained = ranks(2).run(step_by_hand, config, str(tmp_path), 1)[0]
    replicated = {name for name, placement in trained.placements.items() if placement == "data_parallel"}
    assert replicated == {"shared/C3"}


@pytest.mark.parametrize("placement", ["data_parallel", "table_wise", "auto"])
def test_every_parameter_is_updated_by_exactly_one_optimizer(ranks, tmp_path, placement):
    config = small_run(*placed(placement))
    of_rank = ranks(2).run(step_by_hand, config, str(tmp_path), NUM_STEPS)
    trained = of_rank[0]
    owners = of_rank[0].owners | of_rank[1].owners
    parameters = {key.removeprefix("model/") for key in trained.end if key.startswith("model/")}
    assert set(owners) == parameters
    for name in parameters:
        before, after = trained.start[f"model/{name}"], trained.end[f"model/{name}"]
        assert (before != after).any(), f"{name} was not updated"
        if trained.placements.get(name.split(".embedding_bags.")[-1].removesuffix(".weight")) == "data_parallel":
            assert owners[name] == "dense RowWiseAdagrad"
