"""The FinalNet member against its equation written out, and against published sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch

from modules.contracts import over_heads
from modules.members.finalnet import Config, FieldGate
from tests.unit.modules import plain
from tests.unit.modules.small import member_input

NUM_DENSE, NUM_FEATURES, DIM = 2, 3, 5


def gated(weights: dict[str, plain.Vector], fields: plain.Vector) -> list[float]:
    matrix, bias = weights["gate.weight"], weights["gate.bias"]
    scaled = [
        fields[f][d] * (bias[f] + sum(matrix[f][g] * fields[g][d] for g in range(NUM_FEATURES)))
        for f in range(NUM_FEATURES)
        for d in range(DIM)
    ]
    return [*fields.reshape(-1), *scaled]


def block(
    weights: dict[str, plain.Vector], name: str, x: Sequence[float], hidden: Sequence[int], config: Config
) -> float:
    values, place = np.array(x), 0
    for width in hidden:
        raw = plain.linear(weights, f"{name}.layers.{place}.linear", values)
        half = len(raw) // 2
        if config.residual == "concat":
            out = [*raw[:half], *(raw[i] * raw[half + i] for i in range(half))]
        else:
            out = [raw[i] + raw[i] * raw[half + i] for i in range(half)]
        assert len(out) == width
        if config.batch_norm:
            out = list(plain.batch_norm(weights, f"{name}.layers.{place + 1}", np.array(out)))
        values = np.array([max(0.0, value) for value in out])
        place += 3 if config.batch_norm else 2
    return plain.linear(weights, f"{name}.layers.{place}", values)[0]


@pytest.mark.parametrize("num_dense", [0, NUM_DENSE])
@pytest.mark.parametrize("second", [(), (4,)])
@pytest.mark.parametrize(
    "keys",
    [{}, {"gate": False, "batch_norm": False}, {"residual": "sum"}, {"residual": "sum", "gate": False}],
    ids=str,
)
def test_the_member_is_its_equation(num_dense: int, second: tuple[int, ...], keys: Mapping[str, object]) -> None:
    config = Config(kind="finalnet", first_hidden=(8, 6), second_hidden=second, **keys)  # type: ignore[arg-type]
    member = plain.unsettled(config.build(num_dense=num_dense, num_features=NUM_FEATURES, dim=DIM))
    inputs = member_input(6, num_dense=num_dense, num_features=NUM_FEATURES, dim=DIM, dtype=torch.float64)
    weights, expected = plain.weights_of(member), []
    for dense, embedded, _ in plain.rows_of(inputs):
        flat = [*embedded.reshape(-1)]
        fields = gated(weights, embedded) if config.gate else flat
        logit = block(weights, "first", [*dense, *fields], config.first_hidden, config)
        if second:
            logit = (logit + block(weights, "second", [*dense, *flat], second, config)) / 2
        expected.append(logit)
    np.testing.assert_allclose(member(inputs).detach().numpy(), expected, rtol=0, atol=1e-10)


def test_taught_blocks_are_heads_in_training_alone() -> None:
    plain_member, taught = (
        Config(kind="finalnet", first_hidden=(8, 6), second_hidden=(4,), loss=loss).build(
            num_dense=NUM_DENSE, num_features=NUM_FEATURES, dim=DIM
        )
        for loss in ("mean", "taught")
    )
    taught.load_state_dict(plain_member.state_dict())
    inputs = member_input(6, num_dense=NUM_DENSE, num_features=NUM_FEATURES, dim=DIM)
    heads = taught(inputs)
    assert heads.shape == (6, 2) and not torch.equal(heads[:, 0], heads[:, 1])
    assert torch.equal(over_heads(heads), plain_member(inputs))
    assert torch.equal(taught.eval()(inputs), plain_member.eval()(inputs))


@pytest.mark.parametrize(
    ("published", "keys"),
    [
        (256_791, {"first_hidden": (400, 400), "second_hidden": (), "first_dropout": 0.2, "gate": False}),
        (338_502, {"first_hidden": (400, 400), "second_hidden": (400,), "first_dropout": 0.1, "second_dropout": 0.1}),
    ],
)
def test_it_has_the_published_number_of_parameters_on_frappe(published: int, keys: Mapping[str, object]) -> None:
    member = Config(kind="finalnet", **keys).build(num_dense=0, num_features=10, dim=10)  # type: ignore[arg-type]
    tables, padding = 5389 * 10, 10 * 10  # as published there is a padding row in each of ten tables
    assert sum(weight.numel() for weight in member.parameters()) + tables + padding == published


def test_the_gate_starts_as_a_scaling_by_one() -> None:
    fields = member_input(4).embedded_BFD
    assert torch.equal(FieldGate(num_fields=fields.shape[1])(fields), torch.cat([fields, fields], dim=1))


def test_each_block_has_its_own_dropout() -> None:
    config = Config(kind="finalnet", first_dropout=0.25, second_dropout=0.5)
    names = {name: str(module) for name, module in config.build(num_dense=0, num_features=2, dim=4).named_modules()}
    assert names["first.layers.3"] == names["first.layers.7"] == "Dropout(probability=0.25)"
    assert names["second.layers.3"] == "Dropout(probability=0.5)"


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"first_hidden": ()}, "first_hidden: give at least one width; the output reads the last layer"),
        (
            {"second_hidden": (8, 7)},
            'second_hidden: 7 is odd and cannot be halved; take an even one, or residual = "sum"',
        ),
        ({"first_dropout": 1.0}, "first_dropout: 1.0 is not in [0, 1)"),
        (
            {"second_hidden": (), "second_dropout": 0.5},
            "second_dropout: without second_hidden there is no second block to act on; remove it",
        ),
        (
            {"second_hidden": (), "loss": "taught"},
            'loss: "taught" needs the two blocks whose mean teaches them; give second_hidden, or take "mean"',
        ),
    ],
)
def test_senseless_keys_are_refused(keys: Mapping[str, object], sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        Config(kind="finalnet", **keys)  # type: ignore[arg-type]
    assert str(refused.value) == sentence


def test_an_odd_width_is_fine_where_nothing_is_halved() -> None:
    Config(kind="finalnet", first_hidden=(7,), second_hidden=(5,), residual="sum")
