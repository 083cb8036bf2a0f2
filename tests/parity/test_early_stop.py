"""Early stop: each own-table member stops as it would alone, and a resumed run stops as one that never ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.parity.test_independent_members import _of_member
from tests.support.runs import placed, small_run, without
from tests.support.state import assert_bit_equal
from tests.support.training import train_run

STOPPING = (
    *placed("data_parallel"),
    "--train.until={steps=60}",
    "--train.evaluate_every={steps=3}",
    "--train.early_stop={evaluations=2, metric='log_loss_nats'}",
    "--train.schedule={kind='plateau',plateau_of='early_stop',plateau_factor=0.3}",
    "--members.dot.arch.batch_norm=true",
    "--members.factor.arch={kind='deepfm',hidden=[8],batch_norm=true,dropout=0.3}",
    "--members.dot.optimizer=sgd",
    "--members.dot.lr=0.3",
    "--tables.own={dim=6,lr=0.05,placement='data_parallel',optimizer='dense_adam',l2=0.001,clip_norm=0.01}",
)
OWN = without("deep", "cross")


def _curves(folder: str) -> dict[str, list[float]]:
    """Column -> its log loss at every evaluation."""
    lines = [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]
    return {
        member: [
            line[f"{name}/{member}/log_loss_nats"]
            for line in lines
            for name in ("eval", "best")
            if f"{name}/{member}/log_loss_nats" in line
        ]
        for member in ("dot", "factor")
    }


@pytest.mark.parametrize("world_size", [1, 2])
def test_members_stop_one_by_one_as_they_would_alone(ranks, tmp_path, world_size):
    pool = ranks(world_size)
    folder = f"{tmp_path}/together"
    together, progress = pool.run(train_run, small_run(*STOPPING, text=OWN), folder)[0]
    curves = _curves(folder)
    ends = {}
    for member, other in (("dot", "factor"), ("factor", "dot")):
        given = tuple(word for word in STOPPING if f".{other}." not in word)
        config = small_run(*given, text=without("deep", "cross", other))
        alone, alone_progress = pool.run(train_run, config, f"{tmp_path}/{member}")[0]
        assert any("running_mean" in key for key in alone)
        assert_bit_equal(_of_member(alone, member), _of_member(together, member))
        assert curves[member][-1] == min(curves[member])  # the best weights are back
        ends[member] = alone_progress["step"]
    assert len(set(ends.values())) == 2 and progress["step"] == max(ends.values()) < 60


def test_resumed_equals_uninterrupted(ranks, tmp_path):
    pool = ranks(2)
    whole, whole_progress = pool.run(train_run, small_run(*STOPPING, text=OWN), f"{tmp_path}/a")[0]
    stops = whole_progress["step"]
    for steps in (4, stops - 3):  # before anything has stopped, and between the first stop and the last
        words = (word for word in STOPPING if not word.startswith("--train.until"))
        pool.run(train_run, small_run(*words, f"--train.until={{steps={steps}}}", text=OWN), f"{tmp_path}/b")
    resumed, progress = pool.run(train_run, small_run(*STOPPING, text=OWN), f"{tmp_path}/b")[0]
    assert progress == whole_progress
    assert_bit_equal(whole, resumed)


@pytest.mark.parametrize("placement", ["table_wise", "row_wise"])
def test_members_that_share_tables_stop_as_one_under_every_placement(ranks, tmp_path, placement):
    words = (
        *placed(placement),
        "--train.until={steps=60}",
        "--train.evaluate_every={steps=3}",
        "--train.early_stop={evaluations=1, columns={shared='merged'}}",
    )
    states = []
    for steps in (60, 90):  # where all have stopped nothing moves any more, however long it may go on
        config = small_run(*words, f"--train.until={{steps={steps}}}")
        state, progress = ranks(2).run(train_run, config, str(tmp_path))[0]
        states.append(state)
        assert progress["step"] < 60
    assert_bit_equal(*states)
