"""The AutoInt member against its equation written out, and against published sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from modules.members.autoint import Config
from tests.unit.modules import plain
from tests.unit.modules.small import member_input

NUM_FEATURES, DIM, HEADS, WIDTH = 3, 5, 2, 6
LAYER_NORM_EPS = 1e-5
Keys = Mapping[str, object]


def attended(weights: dict[str, plain.Vector], name: str, fields: plain.Vector, *, scale: bool) -> plain.Vector:
    value = [plain.linear(weights, f"{name}.value", x) for x in fields]
    if len(fields) == 1:
        return np.array(value)
    query = [plain.linear(weights, f"{name}.query", x) for x in fields]
    key = [plain.linear(weights, f"{name}.key", x) for x in fields]
    size = WIDTH // HEADS
    out = np.zeros((len(fields), WIDTH))
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        for i in range(len(fields)):
            scores = [plain.inner(query[i][part], other[part]) / (math.sqrt(size) if scale else 1) for other in key]
            powers = [math.exp(score) for score in scores]
            for power, vector in zip(powers, value, strict=True):
                out[i, part] += power / sum(powers) * vector[part]
    return out


def layer_norm(weights: dict[str, plain.Vector], name: str, values: plain.Vector) -> plain.Vector:
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    normal = [(value - mean) / math.sqrt(variance + LAYER_NORM_EPS) for value in values]
    return np.array(normal) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def logit(weights: dict[str, plain.Vector], fields: plain.Vector, first: plain.Vector, config: Config) -> float:
    flat, total = fields.reshape(-1), 0.0
    if config.hidden:
        deep = plain.mlp(
            weights,
            "deep.layers",
            flat,
            num_hidden=len(config.hidden),
            last_linear=True,
            batch_norms=config.batch_norm,
        )
        total += deep[0]
    if config.linear:
        total += sum(first)
    for layer in range(config.num_layers):
        name = f"attention.{layer}"
        out = attended(weights, name, fields, scale=config.scale)
        if config.residual:
            changes = fields.shape[1] != WIDTH
            out = out + [plain.linear(weights, f"{name}.residual", x) if changes else x for x in fields]
        if config.layer_norm:
            out = np.array([layer_norm(weights, f"{name}.norm", x) for x in out])
        fields = np.array([[max(0.0, value) for value in x] for x in out])
    return total + plain.linear(weights, "output", fields.reshape(-1))[0]


@pytest.mark.parametrize("num_features", [1, NUM_FEATURES])
@pytest.mark.parametrize("dim", [DIM, WIDTH])
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"scale": True, "layer_norm": True, "hidden": (7, 3)},
        {"residual": False, "linear": True},
        {"layer_norm": True, "hidden": (4,), "batch_norm": True, "linear": True},
    ],
    ids=str,
)
def test_the_member_is_its_equation(num_features: int, dim: int, keys: Keys) -> None:
    config = Config(kind="autoint", num_layers=2, num_heads=HEADS, attention_dim=WIDTH, **keys)  # type: ignore[arg-type]
    member = plain.unsettled(config.build(num_dense=0, num_features=num_features, dim=dim))
    inputs = member_input(5, num_dense=0, num_features=num_features, dim=dim, dtype=torch.float64)
    weights = plain.weights_of(member)
    expected = [logit(weights, embedded, first, config) for _, embedded, first in plain.rows_of(inputs)]
    np.testing.assert_allclose(member(inputs).detach().numpy(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("published", "keys"),
    [
        (
            622_180,
            {
                "num_layers": 5,
                "num_heads": 4,
                "attention_dim": 128,
                "scale": True,
                "layer_norm": True,
                "hidden": (400, 400, 400),
                "dropout": 0.1,
                "batch_norm": True,
            },
        ),
        (306_051, {"num_layers": 6, "attention_dim": 128}),  # plain AutoInt
    ],
)
def test_it_has_the_published_number_of_parameters_on_frappe(published: int, keys: Keys) -> None:
    member = Config(kind="autoint", **keys).build(num_dense=0, num_features=10, dim=10)  # type: ignore[arg-type]
    assert sum(weight.numel() for weight in member.parameters()) + 5389 * 10 == published


def test_dropout_drops_attention_and_not_only_hidden_layers() -> None:
    member = Config(kind="autoint", dropout=0.5).build(num_dense=0, num_features=NUM_FEATURES, dim=4)
    inputs = member_input(9, num_dense=0, num_features=NUM_FEATURES, dim=4)
    idle = member.eval()(inputs)
    member.train()
    for seed, layer in enumerate(member.attention):  # type: ignore[arg-type]
        layer.dropout.reseed(seed)
    assert (member(inputs) != idle).all()


@pytest.mark.parametrize("linear", [False, True])
def test_it_asks_for_weights_per_id_only_with_a_linear_part(linear: bool) -> None:
    member = Config(kind="autoint", linear=linear).build(num_dense=0, num_features=2, dim=4)
    assert member.first_order == linear


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"num_layers": 0}, "num_layers: 0 must be above zero"),
        ({"num_heads": 0}, "num_heads: 0 must be above zero"),
        ({"attention_dim": -4}, "attention_dim: -4 must be above zero"),
        (
            {"num_heads": 3, "attention_dim": 64},
            "attention_dim: 64 is not a multiple of num_heads, which is 3",
        ),
    ],
)
def test_senseless_keys_are_refused(keys: Keys, sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        Config(kind="autoint", **keys)  # type: ignore[arg-type]
    assert str(refused.value) == sentence
