"""The Wukong member against its equation written out, and its size against one computed by hand."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from modules.members.wukong import Config
from tests.unit.modules import plain
from tests.unit.modules.small import DIM, NUM_DENSE, NUM_FEATURES, member_input


def mixed(matrix: plain.Vector, vectors: list[plain.Vector]) -> list[plain.Vector]:
    return [np.array(sum(row[i] * vectors[i] for i in range(len(vectors)))) for row in matrix]


def next_vectors(
    weights: Mapping[str, plain.Vector], name: str, vectors: list[plain.Vector], config: Config
) -> list[plain.Vector]:
    mixtures = mixed(weights[f"{name}.mixtures.linear.weight"], vectors)
    products = np.array([plain.inner(vector, mixture) for vector in vectors for mixture in mixtures])
    products = plain.layer_norm(weights, f"{name}.products_norm", products)
    flat = plain.mlp(weights, f"{name}.fm.layers", products, num_hidden=len(config.fm_hidden), last_linear=True)
    both = [flat[at * DIM : (at + 1) * DIM] for at in range(config.num_fm_vectors)]
    both += mixed(weights[f"{name}.linear_block.linear.weight"], vectors)
    residual = vectors
    if len(vectors) != len(both):
        residual = mixed(weights[f"{name}.residual.linear.weight"], vectors)
    return [plain.layer_norm(weights, f"{name}.norm", a + b) for a, b in zip(both, residual, strict=True)]


@pytest.mark.parametrize("num_dense", [0, NUM_DENSE])
@pytest.mark.parametrize(
    "keys",
    [
        {"num_layers": 3, "num_fm_vectors": 2, "num_linear_vectors": 3, "rank": 3},
        {
            "num_layers": 2,
            "num_fm_vectors": 1,
            "num_linear_vectors": 3,
            "rank": 6,
            "fm_hidden": (),
        },  # as many as fields
    ],
)
def test_the_member_is_its_equation(keys: dict[str, object], num_dense: int) -> None:
    config = Config(kind="wukong", **{"fm_hidden": (7,), "dense_hidden": (6,), "top_hidden": (5,), **keys})  # type: ignore[arg-type]
    member = plain.unsettled(config.build(num_dense=num_dense, num_features=NUM_FEATURES, dim=DIM))
    inputs, weights = member_input(5, num_dense=num_dense, dtype=torch.float64), plain.weights_of(member)
    expected = []
    for dense, embedded, _ in plain.rows_of(inputs):
        vectors = list(embedded)
        if num_dense:
            vectors = [plain.mlp(weights, "dense.layers", dense, num_hidden=1, last_linear=True), *vectors]
        for layer in range(config.num_layers):
            vectors = next_vectors(weights, f"layers.{layer}", vectors, config)
        flat = np.array([value for vector in vectors for value in vector])
        expected.append(plain.mlp(weights, "top.layers", flat, num_hidden=1, last_linear=True)[0])
    assert np.std(expected) > 1e-3
    np.testing.assert_allclose(member(inputs).detach().numpy(), expected, rtol=1e-12, atol=1e-10)


def test_vectors_of_the_factorization_block_take_both_signs() -> None:
    member = Config(kind="wukong").build(num_dense=0, num_features=NUM_FEATURES, dim=DIM)
    signs = member.get_submodule("layers.0.fm")(torch.randn(50, NUM_FEATURES * 24)).sign()
    assert 0.3 < (signs > 0).float().mean() < 0.7


def test_the_residual_is_learned_only_where_numbers_of_vectors_differ() -> None:
    config = Config(kind="wukong", num_fm_vectors=1, num_linear_vectors=NUM_FEATURES - 1)
    member = config.build(num_dense=0, num_features=NUM_FEATURES, dim=DIM)
    assert not [name for name, _ in member.named_parameters() if "residual" in name]
    member = config.build(num_dense=1, num_features=NUM_FEATURES, dim=DIM)
    assert [name for name, _ in member.named_parameters() if "residual" in name] == ["layers.0.residual.linear.weight"]


@pytest.mark.parametrize(
    ("num_features", "dim", "millions"), [(24, 24, 3.91), (24, 16, 3.46), (39, 16, 3.64), (11, 16, 3.29)]
)
def test_its_size_at_the_sizes_of_public_code(num_features: int, dim: int, millions: float) -> None:
    # 16 vectors from either block, rank 24: from the equation by hand, for Avazu, Criteo and KDD12.
    config = Config(kind="wukong", fm_hidden=(512, 512), top_hidden=(1024, 512, 256))
    parameters = config.cost(num_dense=0, num_features=num_features, dim=dim).parameters
    assert round(parameters / 1e6, 2) == millions


@pytest.mark.parametrize("key", ["num_layers", "num_fm_vectors", "num_linear_vectors", "rank"])
def test_keys_without_meaning_are_refused(key: str) -> None:
    with pytest.raises(ValueError) as refused:
        Config(kind="wukong", **{key: 0})  # type: ignore[arg-type]
    assert str(refused.value) == f"{key}: 0 must be above zero"
