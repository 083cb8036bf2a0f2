"""The xDeepFM member against its equation written out, and against published sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modules.members.xdeepfm import CompressedInteractionMember, Config
from tests.unit.modules import plain
from tests.unit.modules.small import member_input

NUM_DENSE, NUM_FEATURES, DIM, CIN = 2, 3, 5, (4, 2, 3)


def interactions(weights: dict[str, plain.Vector], fields: plain.Vector) -> float:
    maps, pooled = [list(vector) for vector in fields], []
    for layer, num_maps in enumerate(CIN):
        weight, bias = weights[f"map_layers.{layer}.weight"], weights[f"map_layers.{layer}.bias"]
        new = []
        for h in range(num_maps):
            vector = [bias[h]] * DIM
            for i, of_map in enumerate(maps):
                for j, of_field in enumerate(fields):
                    for d in range(DIM):
                        vector[d] += weight[h][i * NUM_FEATURES + j] * of_map[d] * of_field[d]
            new.append(vector)
        maps = new
        pooled += [sum(vector) for vector in maps]
    return plain.linear(weights, "cin_output", np.array(pooled))[0]


@pytest.mark.parametrize("num_dense", [0, NUM_DENSE])
@pytest.mark.parametrize("hidden", [(), (7, 3)])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_member_is_its_equation(num_dense: int, hidden: tuple[int, ...], batch_norm: bool) -> None:
    config = Config(kind="xdeepfm", cin_hidden=CIN, hidden=hidden, batch_norm=batch_norm)
    member = plain.unsettled(config.build(num_dense=num_dense, num_features=NUM_FEATURES, dim=DIM))
    inputs = member_input(6, num_dense=num_dense, num_features=NUM_FEATURES, dim=DIM, dtype=torch.float64)
    weights, expected = plain.weights_of(member), []
    for dense, embedded, first in plain.rows_of(inputs):
        logit = sum(first) + interactions(weights, embedded)
        if num_dense:
            logit += plain.linear(weights, "dense_linear", dense)[0]
        if hidden:
            x = np.array([*dense, *embedded.reshape(-1)])
            logit += plain.mlp(
                weights, "deep.layers", x, num_hidden=len(hidden), last_linear=True, batch_norms=batch_norm
            )[0]
        expected.append(logit)
    np.testing.assert_allclose(member(inputs).detach().numpy(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("published", "keys"),
    [
        (429_809, {"cin_hidden": (64,), "hidden": (400, 400, 400), "dropout": 0.2, "batch_norm": True}),
        (147_984, {"cin_hidden": (64, 64, 64), "hidden": ()}),  # CIN alone, with its linear part
    ],
)
def test_it_has_the_published_number_of_parameters_on_frappe(published: int, keys: dict[str, object]) -> None:
    member = Config(kind="xdeepfm", **keys).build(num_dense=0, num_features=10, dim=10)  # type: ignore[arg-type]
    tables = 5389 * 10 + 5389
    assert sum(weight.numel() for weight in member.parameters()) + tables == published


def test_the_interaction_network_starts_as_a_convolution_does() -> None:
    member = CompressedInteractionMember(num_dense=0, num_features=10, dim=4, cin_hidden=(64, 64), hidden=())
    for layer, pairs in zip(member.map_layers, (100, 640), strict=True):
        for weight in layer.parameters():
            assert 0.9 * pairs**-0.5 < weight.abs().max() <= pairs**-0.5


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"cin_hidden": ()}, "cin_hidden: give at least one number of maps; mlp has no interaction network"),
        ({"cin_hidden": (8, 0)}, "cin_hidden: 0 must be above zero"),
    ],
)
def test_senseless_keys_are_refused(keys: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        Config(kind="xdeepfm", **keys)  # type: ignore[arg-type]
    assert str(refused.value) == sentence
