"""The DCN-V2 member against its equation written out, in every structure and every form of the crosses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from modules.members.dcn_v2 import Config
from tests.unit.modules import plain
from tests.unit.modules.plain import Vector
from tests.unit.modules.small import DIM, NUM_DENSE, NUM_FEATURES, member_input

WIDTH = NUM_DENSE + NUM_FEATURES * DIM
NUM_LAYERS = 2
BENDS: dict[str, Callable[[float], float]] = {"tanh": math.tanh, "relu": lambda value: max(0.0, value)}


def experts(weights: Mapping[str, Vector], layer: int, x0: Vector, x: Vector, *, keys: Mapping[str, Any]) -> Vector:
    """sum_k g_k(x) x_0 * (U_k s(C_k s(V_k x)) + b), one expert after the other."""
    num_experts, rank = keys.get("num_experts", 1), keys["low_rank_dim"]
    name = f"cross.layers.{layer}"
    gates = [1.0]
    if num_experts > 1:
        scores = [math.exp(score) for score in plain.linear(weights, "cross.gate", x)]
        gates = [score / sum(scores) for score in scores]
    total = np.zeros(WIDTH)
    for k in range(num_experts):
        own = slice(k * rank, (k + 1) * rank)
        down, up = weights[f"{name}.down.weight"][own], weights[f"{name}.up.weight"][:, own]
        hidden = np.array([plain.inner(row, x) for row in down])
        if keys.get("projection", "linear") != "linear":
            bend = BENDS[keys["projection"]]
            bent = np.array([bend(value) for value in hidden])
            mixed = [plain.inner(row, bent) for row in weights[f"{name}.mixing_KRR"][k]]
            hidden = np.array([bend(value) for value in mixed])
        bias = weights[f"{name}.up.bias"]
        for i in range(WIDTH):
            total[i] += gates[k] * x0[i] * (plain.inner(up[i], hidden) + bias[i])
    return total


def crossed(weights: Mapping[str, Vector], x0: Vector, keys: Mapping[str, Any]) -> Vector:
    x = x0
    for layer in range(NUM_LAYERS):
        name = f"cross.layers.{layer}"
        if keys.get("num_experts", 1) > 1 or keys.get("projection", "linear") != "linear":
            step = experts(weights, layer, x0, x, keys=keys)
        elif "low_rank_dim" in keys:
            step = x0 * plain.linear(weights, f"{name}.1", plain.linear(weights, f"{name}.0", x))
        else:
            step = x0 * plain.linear(weights, name, x)
        x = step + x
    return x


@pytest.mark.parametrize("structure", ["parallel", "stacked", "cross"])
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"low_rank_dim": 2},
        {"low_rank_dim": 2, "num_experts": 3},
        {"low_rank_dim": 2, "num_experts": 3, "projection": "tanh"},
        {"low_rank_dim": 3, "num_experts": 2, "projection": "relu"},
        {"low_rank_dim": 3, "projection": "tanh"},
    ],
    ids=str,
)
def test_the_member_is_its_equation(keys: dict[str, Any], structure: str) -> None:
    deep_keys: dict[str, Any] = {"hidden": ()} if structure == "cross" else {"hidden": (7, 8), "batch_norm": True}
    config = Config(kind="dcn_v2", num_layers=NUM_LAYERS, structure=structure, **keys, **deep_keys)  # type: ignore[arg-type]
    member = plain.unsettled(config.build(num_dense=NUM_DENSE, num_features=NUM_FEATURES, dim=DIM))
    inputs, weights = member_input(5, dtype=torch.float64), plain.weights_of(member)
    expected = []
    for dense, embedded, _ in plain.rows_of(inputs):
        x0 = plain.side_by_side(dense, embedded)
        last = crossed(weights, x0, keys)
        if structure != "cross":
            read = last if structure == "stacked" else x0
            deep = plain.mlp(weights, "deep.layers", read, num_hidden=2, last_linear=False, batch_norms=True)
            last = deep if structure == "stacked" else np.array([*last, *deep])
        expected.append(plain.linear(weights, "output", last)[0])
    plain.assert_rows_are(member(inputs), expected)


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
        ({"num_experts": 0, "low_rank_dim": 4}, "num_experts: 0 must be above zero"),
        ({"num_experts": 4}, "num_experts: 4 works on low-rank cross layers; give low_rank_dim"),
        ({"projection": "tanh"}, "projection: 'tanh' works on low-rank cross layers; give low_rank_dim"),
        ({"hidden": ()}, "hidden: give at least one width; the output reads the last hidden layer"),
        (
            {"structure": "cross", "hidden": (8,)},
            "hidden: [8] has no place without a deep network; set hidden = [], or another structure",
        ),
        (
            {"structure": "cross", "hidden": (), "dropout": 0.1},
            "dropout: 0.1 has no place without a deep network; set dropout = 0, or another structure",
        ),
        (
            {"structure": "cross", "hidden": (), "batch_norm": True},
            "batch_norm: True has no place without a deep network; set batch_norm = false, or another structure",
        ),
    ],
)
def test_keys_without_meaning_are_refused(keys: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        Config(kind="dcn_v2", **keys)  # type: ignore[arg-type]
    assert str(refused.value) == sentence
