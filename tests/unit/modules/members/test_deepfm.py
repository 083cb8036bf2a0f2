"""The DeepFM member against its equation written out."""

from __future__ import annotations

import numpy as np
import pytest

from modules.members.deepfm import FactorizationMember
from tests.unit.modules import plain
from tests.unit.modules.small import DIM, NUM_DENSE, NUM_FEATURES, member_input


def build() -> FactorizationMember:
    return FactorizationMember(num_dense=NUM_DENSE, num_features=NUM_FEATURES, dim=DIM, hidden=(7, 3))


def test_the_member_is_its_equation() -> None:
    member = build()
    inputs, weights = member_input(9), plain.weights_of(member)
    expected = []
    for dense, embedded, first_order in plain.rows_of(inputs):
        side_by_side = np.array([*dense, *(value for vector in embedded for value in vector)])
        pairs = sum(plain.inner(embedded[i], embedded[j]) for j in range(NUM_FEATURES) for i in range(j))
        deep = plain.mlp(weights, "deep.layers", side_by_side, num_hidden=2, last_linear=True)[0]
        expected.append(plain.linear(weights, "dense_linear", dense)[0] + sum(first_order) + pairs + deep)
    np.testing.assert_allclose(member(inputs).detach().numpy(), expected, atol=1e-5, rtol=1e-5)


def test_it_declares_and_insists_on_first_order_weights() -> None:
    assert FactorizationMember.first_order
    with pytest.raises(AssertionError, match="first-order weights"):
        build()(member_input(2)._replace(first_order_BF=None))
