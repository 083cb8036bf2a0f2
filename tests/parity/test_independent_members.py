"""Own-table members trained in one job are bit-equal to the same members trained alone."""

from __future__ import annotations

import pytest

from tests.support.runs import placed, small_run, without
from tests.support.state import State, assert_bit_equal
from tests.support.training import step_by_hand, train_run


def _of_member(state: State, member: str) -> State:
    """The member's dense parameters and own tables, with their optimizer state."""
    marks = (f".members.{member}.", f"{member}/", f"{member}+first_order/")
    return {key: value for key, value in state.items() if any(mark in key for mark in marks)}


ALL_PLACEMENTS = ("data_parallel", "table_wise", "row_wise")


@pytest.mark.parametrize(
    ("world_size", "placement"),
    [
        (1, "table_wise"),
        *((2, placement) for placement in ALL_PLACEMENTS),
        (4, "row_wise"),
        *(pytest.param(1, placement, marks=pytest.mark.slow) for placement in ("data_parallel", "row_wise")),
        *(pytest.param(4, placement, marks=pytest.mark.slow) for placement in ("data_parallel", "table_wise")),
    ],
)
def test_trained_together_equals_trained_alone(ranks, tmp_path, world_size, placement):
    overrides = (*placed(placement), "--members.dot.arch.dropout=0.3", "--train.until={steps=9}")
    pool = ranks(world_size)
    together, _ = pool.run(train_run, small_run(*overrides), f"{tmp_path}/together")[0]
    for member, others in (("dot", ("deep", "cross", "factor")), ("factor", ("deep", "cross", "dot"))):
        given = tuple(word for word in overrides if not any(f".{other}." in word for other in others))
        alone_config = small_run(*given, text=without(*others))
        assert list(alone_config.members) == [member]
        alone, _ = pool.run(train_run, alone_config, f"{tmp_path}/{member}")[0]
        assert len(_of_member(alone, member)) > 26
        assert_bit_equal(_of_member(alone, member), _of_member(together, member))


def test_initial_weights_do_not_depend_on_who_else_is_there(ranks, tmp_path):
    pool = ranks(2)
    together = pool.run(step_by_hand, small_run(), f"{tmp_path}/a", 0)[0].start
    for member, group in (("deep", "shared"), ("cross", "shared"), ("dot", "dot"), ("factor", "factor")):
        others = {"deep", "cross", "dot", "factor"} - {member}
        alone = pool.run(step_by_hand, small_run(text=without(*others)), f"{tmp_path}/{member}", 0)[0].start
        for key, value in alone.items():
            assert (together[key] == value).all(), key
        assert any(f".{group}/C1.weight" in key for key in alone)


def test_copies_differ_from_each_other_and_equal_members_of_that_name(ranks, tmp_path):
    pool = ranks(1)
    text = without("deep", "cross", "factor")
    copies = pool.run(step_by_hand, small_run("--members.dot.copies=2", text=text), f"{tmp_path}/a", 2)[0].end
    spelled_text = text.replace("[members.dot]", "[members.dot_2]")
    spelled = pool.run(step_by_hand, small_run(text=spelled_text), f"{tmp_path}/b", 2)[0].end
    assert_bit_equal(_of_member(spelled, "dot_2"), _of_member(copies, "dot_2"))
    first = copies["model/ensemble.tables.embedding_bags.dot_1/C1.weight"]
    assert (first != copies["model/ensemble.tables.embedding_bags.dot_2/C1.weight"]).any()
