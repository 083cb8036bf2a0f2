"""The FinalMLP member against its equation written out, and against published sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from modules.members.finalmlp import BilinearFusion, Config, FeatureGate
from tests.unit.modules import plain
from tests.unit.modules.small import member_input

NUM_DENSE, NUM_FEATURES, DIM = 2, 3, 5
FRAPPE: dict[str, object] = {
    "first_hidden": (400,),
    "second_hidden": (100,),
    "first_dropout": 0.4,
    "second_dropout": 0.4,
    "first_batch_norm": True,
    "second_batch_norm": True,
    "gate_hidden": (400,),
    "first_context": 0,
    "second_context": 1,
    "gate_dim": 10,
    "num_heads": 5,
}


def logit(weights: dict[str, plain.Vector], dense: plain.Vector, fields: plain.Vector, config: Config) -> float:
    streams_dim = fields.shape[1] - config.gate_dim
    contexts = fields[:, streams_dim:] if config.gate_dim else fields
    x = np.array([*dense, *fields[:, :streams_dim].reshape(-1)])
    outputs = []
    for at, name in enumerate(("first", "second")):
        view = x
        if config.gates:
            field = getattr(config, f"{name}_context")
            context = weights[f"gates.{at}.context"][0] if field is None else contexts[field]
            raw = plain.mlp(
                weights,
                f"gates.{at}.network.layers",
                context,
                num_hidden=len(config.gate_hidden),
                last_linear=True,
            )
            view = np.array([value * 2 / (1 + math.exp(-r)) for value, r in zip(x, raw, strict=True)])
        outputs.append(
            plain.mlp(
                weights,
                f"{name}.layers",
                view,
                num_hidden=len(getattr(config, f"{name}_hidden")),
                last_linear=False,
                batch_norms=getattr(config, f"{name}_batch_norm"),
            )
        )
    a, b = outputs
    total = plain.linear(weights, "fusion.first", a)[0] + plain.linear(weights, "fusion.second", b)[0]
    size_a, size_b = len(a) // config.num_heads, len(b) // config.num_heads
    for head in range(config.num_heads):
        for i in range(size_a):
            for j in range(size_b):
                total += a[head * size_a + i] * weights["fusion.weight"][head][i][j] * b[head * size_b + j]
    return total


@pytest.mark.parametrize("num_dense", [0, NUM_DENSE])
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"gates": False, "num_heads": 2, "second_batch_norm": True},
        {"first_context": 2, "second_context": 0, "gate_hidden": (4, 3), "num_heads": 2, "first_batch_norm": True},
        {"second_context": 1, "gate_hidden": ()},
        {"first_context": 1, "gate_dim": 2},
    ],
    ids=str,
)
def test_the_member_is_its_equation(num_dense: int, keys: Mapping[str, object]) -> None:
    config = Config(kind="finalmlp", first_hidden=(7, 6), second_hidden=(4,), **keys)  # type: ignore[arg-type]
    member = plain.unsettled(config.build(num_dense=num_dense, num_features=NUM_FEATURES, dim=DIM))
    inputs = member_input(6, num_dense=num_dense, num_features=NUM_FEATURES, dim=DIM, dtype=torch.float64)
    weights = plain.weights_of(member)
    expected = [logit(weights, dense, embedded, config) for dense, embedded, _ in plain.rows_of(inputs)]
    np.testing.assert_allclose(member(inputs).detach().numpy(), expected, rtol=0, atol=1e-10)


def test_it_has_the_published_number_of_parameters_on_frappe_but_for_the_gates_tables() -> None:
    member = Config(kind="finalmlp", **FRAPPE).build(num_dense=0, num_features=10, dim=20)  # type: ignore[arg-type]
    # As published there is a padding row in each of ten tables, and a second table of users and one of items.
    tables, padding, gate_tables = 5389 * 10, 10 * 10, (956 + 4084) * 10
    assert sum(weight.numel() for weight in member.parameters()) + tables + padding + gate_tables == 253_392


def test_gates_and_fusion_start_as_published() -> None:
    torch.manual_seed(1)
    gate = FeatureGate(dim=8, width=20, hidden=(16,))
    for name, weight in gate.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(weight)
    torch.testing.assert_close(gate(torch.empty(0)), torch.ones(1, 20), rtol=0, atol=1e-3)
    spread = float(BilinearFusion(first=400, second=100, num_heads=5).weight.detach().std())
    assert spread == pytest.approx(math.sqrt(2 / 8001), rel=0.03)


def test_each_stream_has_its_own_dropout() -> None:
    config = Config(kind="finalmlp", first_dropout=0.25, second_dropout=0.5)
    names = {name: str(module) for name, module in config.build(num_dense=0, num_features=2, dim=4).named_modules()}
    assert names["first.layers.2"] == "Dropout(probability=0.25)"
    assert names["second.layers.2"] == "Dropout(probability=0.5)"


@pytest.mark.parametrize(
    ("keys", "shape", "sentence"),
    [
        (
            {"first_context": 3, "second_context": 2},
            {"num_features": 3, "dim": 4},
            "first_context: 3 is no field; this member sees 3, counted from 0",
        ),
        (
            {"first_context": 0, "gate_dim": 4},
            {"num_features": 4, "dim": 4},
            "gate_dim: 4 columns of 4 leave the streams none; give tables of more",
        ),
    ],
)
def test_what_the_inputs_cannot_give_is_refused_when_they_are_known(
    keys: Mapping[str, int], shape: Mapping[str, int], sentence: str
) -> None:
    config = Config(kind="finalmlp", **keys)  # type: ignore[arg-type]
    config.build(num_dense=0, num_features=4, dim=5)
    with pytest.raises(ValueError) as refused:
        config.build(num_dense=0, **shape)
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"first_hidden": ()}, "first_hidden: give at least one width; the fusion reads it"),
        ({"second_hidden": ()}, "second_hidden: give at least one width; the fusion reads it"),
        (
            {"second_hidden": (12, 9), "num_heads": 2},
            "second_hidden: the last width, 9, is not a multiple of num_heads, which is 2",
        ),
        ({"num_heads": 0}, "num_heads: 0 must be above zero"),
        ({"first_dropout": 1.0}, "first_dropout: 1.0 is not in [0, 1)"),
        ({"second_dropout": -0.5}, "second_dropout: -0.5 is not in [0, 1)"),
        ({"first_context": -1}, "first_context: -1 must not be negative"),
        (
            {"gates": False, "second_context": 0},
            "second_context: without gates nothing reads it; remove it, or set gates = true",
        ),
        ({"gate_dim": 2}, "gate_dim: no gate reads a field; give first_context or second_context, or remove it"),
        ({"first_context": 0, "gate_dim": -2}, "gate_dim: -2 must not be negative"),
    ],
)
def test_senseless_keys_are_refused(keys: Mapping[str, object], sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        Config(kind="finalmlp", **keys)  # type: ignore[arg-type]
    assert str(refused.value) == sentence
