"""The GDCN member against its equation written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from modules.members.gdcn import Config, GatedCrossMember, Structure
from tests.unit.modules import plain
from tests.unit.modules.small import DIM, NUM_DENSE, NUM_FEATURES, member_input

WIDTH = NUM_DENSE + NUM_FEATURES * DIM


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("structure", ["parallel", "stacked"])
def test_the_member_is_its_equation(structure: Structure, batch_norm: bool) -> None:
    config = Config(kind="gdcn", num_layers=2, hidden=(7, 3), structure=structure, batch_norm=batch_norm)
    member = plain.unsettled(config.build(num_dense=NUM_DENSE, num_features=NUM_FEATURES, dim=DIM))
    inputs, weights = member_input(9, dtype=torch.float64), plain.weights_of(member)
    expected = []
    for dense, embedded, _ in plain.rows_of(inputs):
        x0 = x = np.array([*dense, *(value for vector in embedded for value in vector)])
        for layer in range(2):
            cross = plain.linear(weights, f"cross.crosses.{layer}", x)
            gate = [1 / (1 + math.exp(-value)) for value in plain.linear(weights, f"cross.gates.{layer}", x)]
            x = np.array([x0[i] * cross[i] * gate[i] + x[i] for i in range(WIDTH)])
        below = x0 if structure == "parallel" else x
        deep = plain.mlp(weights, "deep.layers", below, num_hidden=2, last_linear=False, batch_norms=batch_norm)
        read = [*x, *deep] if structure == "parallel" else deep
        expected.append(plain.linear(weights, "output", np.array(read))[0])
    np.testing.assert_allclose(member(inputs).detach().numpy(), expected, rtol=1e-12, atol=1e-10)


def test_the_default_is_parallel() -> None:
    member = Config(kind="gdcn").build(num_dense=1, num_features=2, dim=3)
    assert isinstance(member, GatedCrossMember)
    assert member.output.in_features == 7 + 128


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"num_layers": 0}, "num_layers: 0 must be above zero"),
        ({"hidden": ()}, "hidden: give at least one width; the output reads the last hidden layer"),
    ],
)
def test_keys_without_meaning_are_refused(keys: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        Config(kind="gdcn", **keys)  # type: ignore[arg-type]
    assert str(refused.value) == sentence
