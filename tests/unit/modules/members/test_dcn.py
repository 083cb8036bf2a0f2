"""The DCN member against its equation written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modules.members.dcn import Config, VectorCrossMember
from tests.unit.modules import plain
from tests.unit.modules.small import DIM, NUM_DENSE, NUM_FEATURES, member_input

WIDTH = NUM_DENSE + NUM_FEATURES * DIM


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_the_member_is_its_equation(num_layers: int, batch_norm: bool) -> None:
    member = plain.unsettled(
        VectorCrossMember(in_features=WIDTH, num_layers=num_layers, hidden=(7, 8), batch_norm=batch_norm)
    )
    inputs, weights = member_input(9, dtype=torch.float64), plain.weights_of(member)
    expected = []
    for dense, embedded, _ in plain.rows_of(inputs):
        x0 = x = plain.side_by_side(dense, embedded)
        for layer in range(num_layers):
            along = plain.inner(weights[f"cross.layers.{layer}.weight"][0], x)
            bias = weights[f"cross.biases.{layer}"]
            x = np.array([x0[i] * along + bias[i] + x[i] for i in range(WIDTH)])
        deep = plain.mlp(weights, "deep.layers", x0, num_hidden=2, last_linear=False, batch_norms=batch_norm)
        expected.append(plain.linear(weights, "output", np.array([*x, *deep]))[0])
    plain.assert_rows_are(member(inputs), expected)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"num_layers": 0}, "num_layers: 0 must be above zero"),
        ({"hidden": ()}, "hidden: give at least one width; the output reads the last hidden layer"),
    ],
)
def test_keys_without_meaning_are_refused(keys: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        Config(kind="dcn", **keys)  # type: ignore[arg-type]
    assert str(refused.value) == sentence
