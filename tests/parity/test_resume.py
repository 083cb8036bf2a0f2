"""A resumed run equals an uninterrupted one; a checkpoint loads at any world size and under any plan."""

from __future__ import annotations

import pytest

from tests.support.runs import placed, small_run
from tests.support.state import assert_bit_equal
from tests.support.training import loaded_state, rows_trained, train_run


@pytest.mark.parametrize(
    ("world_size", "placement"),
    [
        (1, "row_wise"),
        (2, "data_parallel"),
        (2, "row_wise"),
        pytest.param(2, "table_wise", marks=pytest.mark.slow),
        pytest.param(1, "data_parallel", marks=pytest.mark.slow),
        pytest.param(1, "table_wise", marks=pytest.mark.slow),
    ],
)
def test_resumed_equals_uninterrupted(ranks, tmp_path, world_size, placement):
    pool = ranks(world_size)
    common = (*placed(placement), "--members.deep.arch.dropout=0.2", "--train.evaluate_every={steps=4}")
    # 200 rows in batches of 24 are 9 steps: 5 ends within the first epoch, 14 within the second.
    whole, whole_progress = pool.run(train_run, small_run(*common, "--train.until={steps=14}"), f"{tmp_path}/a")[0]
    pool.run(train_run, small_run(*common, "--train.until={steps=5}"), f"{tmp_path}/b")
    resumed, progress = pool.run(train_run, small_run(*common, "--train.until={steps=14}"), f"{tmp_path}/b")[0]
    assert progress == whole_progress == {"step": 14, "epoch": 1, "row": 120, "rows_total": 320}
    assert_bit_equal(whole, resumed)


PLACEMENTS_SAVED_AND_LOADED = [
    ("table_wise", "row_wise"),
    ("data_parallel", "table_wise"),
    pytest.param(("auto", "auto"), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("placements", PLACEMENTS_SAVED_AND_LOADED)
def test_a_checkpoint_of_2_ranks_loads_at_1_and_4(ranks, tmp_path, placements):
    saved_under, loaded_under = placements
    saved, progress = ranks(2).run(train_run, small_run(*placed(saved_under)), str(tmp_path))[0]
    for world_size in (1, 4):
        config = small_run(*placed(loaded_under))
        loaded, loaded_progress = ranks(world_size).run(loaded_state, config, str(tmp_path))[0]
        assert loaded_progress == progress
        assert_bit_equal(saved, loaded)


@pytest.mark.parametrize("world_sizes", [(2, 1, 4), pytest.param((4, 2, 1), marks=pytest.mark.slow)])
def test_every_row_is_trained_once_an_epoch_while_the_world_changes(ranks, tmp_path, world_sizes):
    rows = []
    for world_size, steps in zip(world_sizes, (2, 7, 18), strict=True):  # 9 steps are an epoch
        config = small_run(f"--train.until={{steps={steps}}}", "--data.prefetch_batches=0")
        of_rank = ranks(world_size).run(rows_trained, config, str(tmp_path))
        rows += [row for of_one in of_rank for row in of_one]
    assert sorted(rows) == sorted([*range(200)] * 2)


def test_the_overlapped_pipeline_gives_the_same_bits(ranks, tmp_path):
    common = (*placed("auto"), "--train.evaluate_every={steps=4}", "--train.until={steps=14}")
    plain, _ = ranks(2).run(train_run, small_run(*common, "--train.pipeline=plain"), f"{tmp_path}/a")[0]
    overlapped, _ = ranks(2).run(train_run, small_run(*common, "--train.pipeline=sparse_dist"), f"{tmp_path}/b")[0]
    assert_bit_equal(plain, overlapped)
