"""The LR member against its equation written out."""

from __future__ import annotations

import pytest
import torch

from modules.members.lr import Config, LogisticMember
from tests.unit.modules import plain
from tests.unit.modules.small import NUM_DENSE, NUM_FEATURES, member_input


@pytest.mark.parametrize("num_dense", [0, NUM_DENSE])
def test_the_member_is_its_equation(num_dense: int) -> None:
    member = plain.unsettled(LogisticMember(num_dense=num_dense))
    inputs = member_input(9, num_dense=num_dense, dim=0, dtype=torch.float64)
    weights = plain.weights_of(member)
    expected = [
        weights["linear.bias"][0]
        + sum(first_order)
        + (plain.inner(weights["linear.dense.weight"][0], dense) if num_dense else 0.0)
        for dense, _, first_order in plain.rows_of(inputs)
    ]
    plain.assert_rows_are(member(inputs), expected)


def test_it_reads_no_embeddings_and_starts_at_even_odds() -> None:
    assert not Config.reads_embeddings
    member = Config(kind="lr").build(num_dense=0, num_features=NUM_FEATURES, dim=0)
    inputs = member_input(3, num_dense=0, dim=0)
    assert not member(inputs._replace(first_order_BF=torch.zeros(3, NUM_FEATURES))).any()


def test_it_declares_and_insists_on_first_order_weights() -> None:
    assert LogisticMember.first_order
    with pytest.raises(AssertionError, match="first-order weights"):
        LogisticMember(num_dense=0)(member_input(2, num_dense=0)._replace(first_order_BF=None))
