"""The MLP member against its equation written out."""

from __future__ import annotations

import numpy as np

from modules.members.mlp import MultiLayerMember
from tests.unit.modules import plain
from tests.unit.modules.small import DIM, NUM_DENSE, NUM_FEATURES, member_input


def test_the_member_is_its_equation() -> None:
    member = MultiLayerMember(num_dense=NUM_DENSE, num_features=NUM_FEATURES, dim=DIM, hidden=(7, 3))
    inputs, weights = member_input(9), plain.weights_of(member)
    expected = []
    for dense, embedded, _ in plain.rows_of(inputs):
        side_by_side = np.array([*dense, *(value for vector in embedded for value in vector)])
        expected.append(plain.mlp(weights, "mlp.layers", side_by_side, num_hidden=2, last_linear=True)[0])
    np.testing.assert_allclose(member(inputs).detach().numpy(), expected, atol=1e-5)


def test_without_hidden_layers_it_is_a_linear_model() -> None:
    member = MultiLayerMember(num_dense=NUM_DENSE, num_features=NUM_FEATURES, dim=DIM, hidden=())
    assert [tuple(p.shape) for p in member.parameters()] == [(1, NUM_DENSE + NUM_FEATURES * DIM), (1,)]
