"""The Wide & Deep member against its equation written out."""

from __future__ import annotations

import pytest
import torch

from modules.members.wide_deep import WideDeepMember
from tests.unit.modules import plain
from tests.unit.modules.small import DIM, NUM_DENSE, NUM_FEATURES, member_input


def build(*, num_dense: int = NUM_DENSE, batch_norm: bool = False) -> WideDeepMember:
    return WideDeepMember(num_dense=num_dense, num_features=NUM_FEATURES, dim=DIM, hidden=(7, 8), batch_norm=batch_norm)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("num_dense", [0, NUM_DENSE])
def test_the_member_is_its_equation(num_dense: int, batch_norm: bool) -> None:
    member = plain.unsettled(build(num_dense=num_dense, batch_norm=batch_norm))
    inputs, weights = member_input(9, num_dense=num_dense, dtype=torch.float64), plain.weights_of(member)
    expected = []
    for dense, embedded, first_order in plain.rows_of(inputs):
        x0 = plain.side_by_side(dense, embedded)
        deep = plain.mlp(weights, "deep.layers", x0, num_hidden=2, last_linear=True, batch_norms=batch_norm)[0]
        wide = plain.inner(weights["linear.dense.weight"][0], dense) if num_dense else 0.0
        expected.append(sum(first_order) + wide + deep)
    plain.assert_rows_are(member(inputs), expected)


def test_it_declares_and_insists_on_first_order_weights() -> None:
    assert WideDeepMember.first_order
    with pytest.raises(AssertionError, match="first-order weights"):
        build()(member_input(2)._replace(first_order_BF=None))
