"""The MLP member against its equation written out."""

from __future__ import annotations

import pytest
import torch

from modules.members.mlp import MultiLayerMember
from tests.unit.modules import plain
from tests.unit.modules.small import DIM, NUM_DENSE, NUM_FEATURES, member_input

WIDTH = NUM_DENSE + NUM_FEATURES * DIM


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_member_is_its_equation(batch_norm: bool) -> None:
    member = plain.unsettled(MultiLayerMember(in_features=WIDTH, hidden=(7, 8), batch_norm=batch_norm))
    inputs, weights = member_input(9, dtype=torch.float64), plain.weights_of(member)
    expected = []
    for dense, embedded, _ in plain.rows_of(inputs):
        x0 = plain.side_by_side(dense, embedded)
        logit = plain.mlp(weights, "mlp.layers", x0, num_hidden=2, last_linear=True, batch_norms=batch_norm)
        expected.append(logit[0])
    plain.assert_rows_are(member(inputs), expected)


def test_without_hidden_layers_it_is_a_linear_model() -> None:
    member = MultiLayerMember(in_features=WIDTH, hidden=())
    assert [tuple(p.shape) for p in member.parameters()] == [(1, WIDTH), (1,)]
