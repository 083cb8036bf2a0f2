"""The DCN-V2 member against its equation written out, in both structures and both forms of the weights."""

from __future__ import annotations

import numpy as np
import pytest

from modules.members.dcn_v2 import Config, CrossMember, Structure
from tests.unit.modules import plain
from tests.unit.modules.small import DIM, NUM_DENSE, NUM_FEATURES, member_input

WIDTH = NUM_DENSE + NUM_FEATURES * DIM


@pytest.mark.parametrize("structure", ["parallel", "stacked"])
@pytest.mark.parametrize("low_rank_dim", [None, 2])
def test_the_member_is_its_equation(structure: Structure, low_rank_dim: int | None) -> None:
    member = CrossMember(in_features=WIDTH, num_layers=2, hidden=(7, 3), low_rank_dim=low_rank_dim, structure=structure)
    inputs, weights = member_input(9), plain.weights_of(member)
    expected = []
    for dense, embedded, _ in plain.rows_of(inputs):
        x0 = np.array([*dense, *(value for vector in embedded for value in vector)])
        x = x0
        for layer in range(2):
            name = f"cross.layers.{layer}"
            if low_rank_dim is None:
                wx = plain.linear(weights, name, x)
            else:
                wx = plain.linear(weights, f"{name}.1", plain.linear(weights, f"{name}.0", x))
            x = np.array([x0[i] * wx[i] + x[i] for i in range(WIDTH)])
        deep = plain.mlp(weights, "deep.layers", x if structure == "stacked" else x0, num_hidden=2, last_linear=False)
        last = deep if structure == "stacked" else np.array([*x, *deep])
        expected.append(plain.linear(weights, "output", last)[0])
    np.testing.assert_allclose(member(inputs).detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("num_layers", [1, 4])
def test_the_crosses_have_the_degree_the_paper_says(num_layers: int) -> None:
    """Along a ray t x_0 the crosses are a polynomial in t of degree num_layers + 1."""
    config = Config(kind="dcn_v2", num_layers=num_layers)
    cross = config.build(num_dense=3, num_features=1, dim=4).double().cross
    x0 = member_input(1, num_dense=7).dense_BN.double()
    t = np.linspace(-2.0, 2.0, 12)
    values = np.array([cross(x0 * step)[0].sum().item() for step in t])
    fitted = np.polynomial.Polynomial.fit(t, values, deg=10, domain=[-2, 2], window=[-2, 2]).coef
    assert np.abs(fitted[num_layers + 2 :]).max() < 1e-8 * np.abs(fitted).max()
    assert abs(fitted[num_layers + 1]) > 1e-6 * np.abs(fitted).max()


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"num_layers": 0}, "num_layers: 0 must be above zero"),
        ({"low_rank_dim": 0}, "low_rank_dim: 0 must be above zero"),
        ({"hidden": ()}, "hidden: give at least one width; the output reads the last hidden layer"),
    ],
)
def test_keys_without_meaning_are_refused(keys: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        Config(kind="dcn_v2", **keys)  # type: ignore[arg-type]
    assert str(refused.value) == sentence
