"""The IPNN member against its equation written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modules.members.ipnn import ProductMember
from tests.unit.modules import plain
from tests.unit.modules.small import DIM, NUM_DENSE, NUM_FEATURES, member_input


@pytest.mark.parametrize("num_features", [1, NUM_FEATURES])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("num_dense", [0, NUM_DENSE])
def test_the_member_is_its_equation(num_dense: int, batch_norm: bool, num_features: int) -> None:
    member = plain.unsettled(
        ProductMember(num_dense=num_dense, num_features=num_features, dim=DIM, hidden=(7, 8), batch_norm=batch_norm)
    )
    inputs = member_input(9, num_dense=num_dense, num_features=num_features, dtype=torch.float64)
    weights = plain.weights_of(member)
    expected = []
    for dense, embedded, _ in plain.rows_of(inputs):
        pairs = [plain.inner(embedded[i], embedded[j]) for i in range(num_features) for j in range(i + 1, num_features)]
        values = np.array([*plain.side_by_side(dense, embedded), *pairs])
        logit = plain.mlp(weights, "deep.layers", values, num_hidden=2, last_linear=True, batch_norms=batch_norm)
        expected.append(logit[0])
    plain.assert_rows_are(member(inputs), expected)
