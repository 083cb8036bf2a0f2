"""The FM member against its equation written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modules.members.fm import FactorizationMachineMember
from tests.unit.modules import plain
from tests.unit.modules.small import DIM, NUM_DENSE, NUM_FEATURES, member_input


@pytest.mark.parametrize("num_features", [1, NUM_FEATURES])
@pytest.mark.parametrize("num_dense", [0, NUM_DENSE])
def test_the_member_is_its_equation(num_dense: int, num_features: int) -> None:
    member = plain.unsettled(FactorizationMachineMember(num_dense=num_dense))
    inputs = member_input(9, num_dense=num_dense, num_features=num_features, dtype=torch.float64)
    weights = plain.weights_of(member)
    expected = []
    for dense, embedded, first_order in plain.rows_of(inputs):
        logit = weights["linear.bias"][0] + sum(first_order)
        if num_dense:
            logit += plain.inner(weights["linear.dense.weight"][0], dense)
        for j in range(num_features):
            for i in range(j):
                logit += plain.inner(embedded[i], embedded[j])
        expected.append(logit)
    plain.assert_rows_are(member(inputs), expected)


def test_numerics_as_fields_make_it_rendles_machine_of_real_values() -> None:
    """y = b + <w, x> + sum_{i<j} <v_i, v_j> x_i x_j with one input for every field (Rendle 2010, equation 1)."""
    random = np.random.default_rng(0)
    x, w = random.normal(size=(6, NUM_FEATURES)), random.normal(size=NUM_FEATURES)
    v = random.normal(size=(NUM_FEATURES, DIM))
    member = plain.unsettled(FactorizationMachineMember(num_dense=0))
    inputs = member_input(6, num_dense=0, dtype=torch.float64)._replace(
        embedded_BFD=torch.from_numpy(x[:, :, None] * v), first_order_BF=torch.from_numpy(x * w)
    )
    bias = plain.weights_of(member)["linear.bias"][0]
    expected = [
        bias
        + plain.inner(w, row)
        + sum(plain.inner(v[i], v[j]) * row[i] * row[j] for j in range(NUM_FEATURES) for i in range(j))
        for row in x
    ]
    plain.assert_rows_are(member(inputs), expected)


def test_it_declares_and_insists_on_first_order_weights() -> None:
    assert FactorizationMachineMember.first_order
    with pytest.raises(AssertionError, match="first-order weights"):
        FactorizationMachineMember(num_dense=0)(member_input(2, num_dense=0)._replace(first_order_BF=None))
