"""The MaskNet member against its equation written out, and its size against the published one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from modules.members.masknet import Config
from tests.unit.modules import plain
from tests.unit.modules.small import DIM, NUM_FEATURES, member_input


def block(weights: Mapping[str, plain.Vector], name: str, embedded: plain.Vector, values: plain.Vector) -> plain.Vector:
    mask = plain.mlp(weights, f"{name}.mask.layers", embedded, num_hidden=1, last_linear=True)
    out = plain.linear(weights, f"{name}.linear", np.array([m * v for m, v in zip(mask, values, strict=True)]))
    if f"{name}.norm.weight" in weights:
        out = plain.layer_norm(weights, f"{name}.norm", out)
    return np.array([max(0.0, value) for value in out])


def logit(weights: Mapping[str, plain.Vector], config: Config, embedded: plain.Vector) -> float:
    flat = np.array([value for vector in embedded for value in vector])
    values = flat
    if config.field_norm:
        scale, shift = weights["field_norm.weight"], weights["field_norm.bias"]
        values = np.array(
            [
                value * scale[field][at] + shift[field][at]
                for field, vector in enumerate(embedded)
                for at, value in enumerate(plain.normalised(vector))
            ]
        )
    if config.structure == "parallel":
        blocks = [block(weights, f"blocks.{at}", flat, values) for at in range(config.num_blocks)]
        below = np.array([value for out in blocks for value in out])
        return plain.mlp(weights, "top.layers", below, num_hidden=len(config.hidden), last_linear=True)[0]
    for at in range(len(config.hidden)):
        values = block(weights, f"blocks.{at}", flat, values)
    return plain.linear(weights, "top.layers.0", values)[0]


@pytest.mark.parametrize(
    "keys",
    [
        {"num_blocks": 2, "block_dim": 6, "hidden": (7, 3)},
        {"num_blocks": 1, "block_dim": 6, "hidden": (), "reduction_ratio": 0.4, "block_norm": False},
        {"structure": "serial", "hidden": (9, 8)},
        {"structure": "serial", "hidden": (5,), "field_norm": False, "block_norm": False},
    ],
)
def test_the_member_is_its_equation(keys: dict[str, object]) -> None:
    config = Config(kind="masknet", **keys)  # type: ignore[arg-type]
    member = plain.unsettled(config.build(num_dense=0, num_features=NUM_FEATURES, dim=DIM))
    inputs, weights = member_input(9, num_dense=0, dtype=torch.float64), plain.weights_of(member)
    assert any("norm" in name for name in weights) == (config.field_norm or config.block_norm)
    expected = [logit(weights, config, embedded) for _, embedded, _ in plain.rows_of(inputs)]
    assert np.std(expected) > 1e-3
    np.testing.assert_allclose(member(inputs).detach().numpy(), expected, rtol=1e-12, atol=1e-10)


def test_its_size_is_the_published_one() -> None:
    # FuxiCTR's log of MaskNet_frappe_x1: 571,691 parameters, of which 5,389 embeddings of 10 columns.
    config = Config(
        kind="masknet", num_blocks=3, block_dim=50, reduction_ratio=2, hidden=(400, 400, 400), field_norm=False
    )
    assert config.cost(num_dense=0, num_features=10, dim=10).parameters == 571_691 - 5_389 * 10


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"num_blocks": 0}, "num_blocks: 0 must be above zero"),
        ({"block_dim": -1}, "block_dim: -1 must be above zero"),
        ({"reduction_ratio": 0.0}, "reduction_ratio: 0.0 must be above zero"),
        (
            {"structure": "serial", "hidden": ()},
            "hidden: give at least one width; a serial network has a block for each",
        ),
    ],
)
def test_keys_without_meaning_are_refused(keys: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        Config(kind="masknet", **keys)  # type: ignore[arg-type]
    assert str(refused.value) == sentence
