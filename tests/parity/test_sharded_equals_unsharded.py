"""A sharded run equals the same run without sharding, from initialisation on, under every plan."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from configs.ensemble_schema import COLUMN_PLACEMENTS
from configs.schema import RunConfig
from sharding.constraints import SHARDING_TYPES, piece_columns
from tests.support.runs import SMALL, placed, small_run
from tests.support.state import assert_bit_equal, assert_close
from tests.support.training import step_by_hand
from tests.support.unsharded import train_unsharded

DIMS = {"sgd": 8, "adagrad": 16, "rowwise_adagrad": 12, "adam": 8}  # 2, 4 and 3 pieces of a row
# Adagrad and Adam divide a first gradient by its own size: with a tiny eps the rounding of a gradient
# near zero is blown up to a step of lr. A larger eps keeps the comparison well conditioned.
EVERY_RULE = SMALL.split("[tables.shared]")[0] + "".join(
    f"""[tables.{rule}]
optimizer = "{rule}"
dim = {dim}
lr = 0.1
eps = 1e-3
column_sums = {str(rule == "rowwise_adagrad").lower()}
[members.on_{rule}]
tables = "{rule}"
arch = {{ kind = "{"deepfm" if rule == "rowwise_adagrad" else "mlp"}", hidden = [8] }}
"""
    for rule, dim in DIMS.items()
)
EVERY_PLACEMENT = [
    f"--tables.{rule}.features.C{feature}.placement={placement}"
    for rule in ("sgd", "adagrad", "rowwise_adagrad")
    for feature, placement in zip(range(1, 27), itertools.cycle(SHARDING_TYPES), strict=False)
]
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


@pytest.mark.parametrize("world_size", [1, pytest.param(2, marks=pytest.mark.slow), 4])
def test_every_placement_under_every_rule(ranks, tmp_path, world_size):
    """One run of a group of tables for each rule, whose features go round the placements."""
    config = small_run(*EVERY_PLACEMENT, text=EVERY_RULE)
    plain = train_unsharded(config, NUM_STEPS)
    sharded = ranks(world_size).run(step_by_hand, config, str(tmp_path), NUM_STEPS)[0]
    _check_layout(sharded.plan, config)
    assert_bit_equal(plain.start, sharded.start)
    for step in range(NUM_STEPS):
        np.testing.assert_allclose(sharded.logits[step], plain.logits[step], atol=ATOL, err_msg=f"step {step}")
    assert_close(plain.end, sharded.end, atol=ATOL)
    still = [key for key, value in plain.end.items() if key.startswith("model/") and (value == plain.start[key]).all()]
    assert still == [], "not trained"


def _check_layout(plan: dict[str, Any], config: RunConfig) -> None:
    """Every table lies as wished, and the column-wise kinds in more than one piece."""
    for rule in DIMS:
        for feature, override in config.tables[rule].features.items():
            placed = plan[f"{rule}/{feature}"]
            assert placed["sharding_type"] == SHARDING_TYPES[override.placement].value
            pieces = {shard["offsets"][1] for shard in placed["shards"]}
            wished = DIMS[rule] // piece_columns(DIMS[rule]) if override.placement in COLUMN_PLACEMENTS else 1
            assert len(pieces) == (wished if override.placement != "data_parallel" else 0)
    assert {plan[name]["sharding_type"] for name in plan if name.startswith("adam/")} == {"data_parallel"}


def test_more_ranks_than_rows_in_a_batch(ranks, tmp_path):
    config = small_run(*placed("row_wise"), "--data.synthetic.train_rows=7", "--train.batch_size=3")
    plain = train_unsharded(config, 3)
    sharded = ranks(4).run(step_by_hand, config, str(tmp_path), 3)[0]
    assert [len(logits) for logits in sharded.logits] == [3, 3, 1]
    assert_close(plain.end, sharded.end, atol=ATOL)


@pytest.mark.parametrize("placement", ["row_wise", "table_row_wise", "grid"])
def test_ranks_that_hold_no_row_of_any_table(ranks, tmp_path, placement):
    """Three rows over four ranks leave the last one's kernels empty; over a host's two, some end in an empty table."""
    config = small_run(
        *placed(placement),
        *(f"--tables.{group}.{key}" for group in ("shared", "own") for key in ("dim=8", "optimizer=sgd")),
        "--data.synthetic.max_table_rows=3",
    )
    plain = train_unsharded(config, 3)
    sharded = ranks(4).run(step_by_hand, config, str(tmp_path), 3)[0]
    if placement == "row_wise":
        shards = [shard for table in sharded.plan.values() for shard in table["shards"] if shard["rank"] == 3]
        assert {shard["sizes"][0] for shard in shards} == {0}
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
