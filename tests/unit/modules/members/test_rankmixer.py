"""The RankMixer member against its equation written out, its grouping of features, and its size."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from modules.members.rankmixer import Config, MixingLayer, feature_widths, group_columns
from tests.unit.modules import plain
from tests.unit.modules.small import member_input

NUM_DENSE, NUM_FEATURES, DIM = 2, 5, 3


def test_groups_are_neighbouring_features_about_as_many_in_each() -> None:
    widths = feature_widths(NUM_DENSE, NUM_FEATURES, DIM)
    assert widths == [2, 3, 3, 3, 3, 3]
    assert group_columns(widths, 1) == [(0, 17)]
    assert group_columns(widths, 3) == [(0, 5), (5, 11), (11, 17)]
    assert group_columns(widths, 4) == [(0, 2), (2, 8), (8, 11), (11, 17)]
    assert group_columns(widths, 6) == [(0, 2), (2, 5), (5, 8), (8, 11), (11, 14), (14, 17)]


@pytest.mark.parametrize("num_features", [1, 2, 7, 12])
def test_every_feature_is_in_a_group_and_none_is_empty(num_features: int) -> None:
    for num_groups in range(1, 16):
        columns = group_columns([DIM] * num_features, num_groups)
        assert len(columns) == num_groups
        assert {at for start, end in columns for at in range(start, end)} == set(range(DIM * num_features))
        sizes = [(end - start) // DIM for start, end in columns]
        assert min(sizes) >= 1
        assert max(sizes) - min(sizes) <= 1
        if num_groups <= num_features:
            assert sum(sizes) == num_features


def test_more_groups_than_features_share_them() -> None:
    assert group_columns([3, 4], 4) == [(0, 3), (0, 3), (3, 7), (3, 7)]


def gelu(value: float) -> float:
    return 0.5 * value * (1 + math.erf(value / math.sqrt(2)))


def token_linear(weights: Mapping[str, plain.Vector], name: str, token: int, values: plain.Vector) -> plain.Vector:
    matrix, bias = weights[f"{name}.weight"][token], weights[f"{name}.bias"][token][0]
    return np.array([sum(values[i] * matrix[i][o] for i in range(len(values))) + bias[o] for o in range(len(bias))])


def mix(tokens: list[plain.Vector]) -> list[plain.Vector]:
    piece = len(tokens[0]) // len(tokens)
    return [np.array([v for x in tokens for v in x[head * piece : (head + 1) * piece]]) for head in range(len(tokens))]


def next_tokens(weights: Mapping[str, plain.Vector], name: str, tokens: list[plain.Vector]) -> list[plain.Vector]:
    out = []
    for token, (values, mixed) in enumerate(zip(tokens, mix(tokens), strict=True)):
        values = plain.layer_norm(weights, f"{name}.mixing_norm", values + mixed)
        hidden = np.array([gelu(value) for value in token_linear(weights, f"{name}.first", token, values)])
        change = token_linear(weights, f"{name}.second", token, hidden)
        out.append(plain.layer_norm(weights, f"{name}.network_norm", values + change))
    return out


@pytest.mark.parametrize("num_dense", [0, NUM_DENSE])
@pytest.mark.parametrize(
    "keys",
    [
        {"num_tokens": 3, "token_dim": 6, "expansion": 2},
        {"num_tokens": 2, "token_dim": 4, "expansion": 3, "pooling": "flatten"},
        {"num_tokens": 8, "token_dim": 8, "num_layers": 1},  # more tokens than features
        {"num_tokens": 1, "token_dim": 5, "num_layers": 1},
    ],
)
def test_the_member_is_its_equation(keys: dict[str, object], num_dense: int) -> None:
    config = Config(kind="rankmixer", top_hidden=(5,), **keys)  # type: ignore[arg-type]
    member = plain.unsettled(config.build(num_dense=num_dense, num_features=NUM_FEATURES, dim=DIM))
    inputs = member_input(5, num_dense=num_dense, num_features=NUM_FEATURES, dim=DIM, dtype=torch.float64)
    weights = plain.weights_of(member)
    features = NUM_FEATURES + (num_dense > 0)
    expected = []
    for dense, embedded, _ in plain.rows_of(inputs):
        vectors = [dense, *embedded] if num_dense else list(embedded)
        tokens = []
        for token in range(config.num_tokens):
            first = token * features // config.num_tokens
            group = vectors[first : max(first + 1, (token + 1) * features // config.num_tokens)]
            values = np.array([value for vector in group for value in vector])
            tokens.append(plain.linear(weights, f"tokens.projections.{token}", values))
        for layer in range(config.num_layers):
            tokens = next_tokens(weights, f"layers.{layer}", tokens)
        read = np.array([value for token in tokens for value in token])
        if config.pooling == "mean":
            read = np.array([sum(token[at] for token in tokens) / len(tokens) for at in range(config.token_dim)])
        expected.append(plain.mlp(weights, "top.layers", read, num_hidden=1, last_linear=True)[0])
    assert np.std(expected) > 1e-3
    np.testing.assert_allclose(member(inputs).detach().numpy(), expected, rtol=1e-12, atol=1e-10)


def test_a_token_is_normalised_by_itself() -> None:
    layer = MixingLayer(num_tokens=2, token_dim=8, expansion=2, dropout=0.0)
    tokens = layer(torch.randn(6, 2, 8) * 9)
    torch.testing.assert_close(tokens.mean(dim=2), torch.zeros(6, 2), rtol=0, atol=1e-5)
    torch.testing.assert_close(tokens.var(dim=2, correction=0), torch.ones(6, 2), rtol=0, atol=1e-3)


def test_its_size_at_the_sizes_of_public_code() -> None:
    # 24 fields of 24 columns as tokens, 3 layers: 1.42 million from the equation, before the projections to tokens
    # (24 matrices of 24 by 24 with a bias) and the norms' scales and shifts (4 vectors of 24 a layer).
    config = Config(
        kind="rankmixer",
        num_tokens=24,
        token_dim=24,
        num_layers=3,
        expansion=2,
        pooling="flatten",
        top_hidden=(1024, 512, 256),
    )
    parameters = config.cost(num_dense=0, num_features=24, dim=24).parameters - 24 * (24 * 24 + 24) - 3 * 4 * 24
    networks = 3 * 24 * (2 * 24 * 48 + 48 + 24)
    top = 576 * 1024 + 1024 + 1024 * 512 + 512 + 512 * 256 + 256 + 256 + 1
    assert parameters == networks + top
    assert round(parameters / 1e6, 2) == 1.42


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"token_dim": 60}, "token_dim: 60 is no multiple of num_tokens = 8; take 64"),
        ({"num_tokens": 0}, "num_tokens: 0 must be above zero"),
        ({"token_dim": 0}, "token_dim: 0 must be above zero"),
        ({"num_layers": 0}, "num_layers: 0 must be above zero"),
        ({"expansion": 0}, "expansion: 0 must be above zero"),
    ],
)
def test_keys_without_meaning_are_refused(keys: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        Config(kind="rankmixer", **keys)  # type: ignore[arg-type]
    assert str(refused.value) == sentence
