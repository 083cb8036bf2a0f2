"""The DLRM member against its equation written out and against TorchRec's parts with the same weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torchrec.models.dlrm import DenseArch, InteractionArch, OverArch

from modules.members.dlrm import DotMember, Interaction
from tests.unit.modules import plain
from tests.unit.modules.plain import Vector
from tests.unit.modules.small import DIM, NUM_DENSE, NUM_FEATURES, member_input


def build(
    *,
    num_dense: int = NUM_DENSE,
    interaction: Interaction = "dot",
    batch_norm: bool = False,
    num_features: int = NUM_FEATURES,
) -> DotMember:
    return DotMember(
        num_dense=num_dense,
        num_features=num_features,
        dim=DIM,
        dense_hidden=(6,),
        top_hidden=(7, 8),
        interaction=interaction,
        batch_norm=batch_norm,
    )


def vectors_of(weights: Mapping[str, Vector], dense: Vector, embedded: Vector, *, batch_norm: bool) -> list[Vector]:
    """The projected dense features, where there are any, and the embeddings."""
    if len(dense):
        projected = plain.mlp(weights, "dense.layers", dense, num_hidden=1, last_linear=True, batch_norms=batch_norm)
        return [np.array([max(0.0, value) for value in projected]), *embedded]
    return [*embedded]


@pytest.mark.parametrize("num_features", [1, NUM_FEATURES])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("interaction", ["dot", "cat"])
@pytest.mark.parametrize("num_dense", [0, NUM_DENSE])
def test_the_member_is_its_equation(
    num_dense: int, interaction: Interaction, batch_norm: bool, num_features: int
) -> None:
    member = plain.unsettled(
        build(num_dense=num_dense, interaction=interaction, batch_norm=batch_norm, num_features=num_features)
    )
    inputs = member_input(9, num_dense=num_dense, num_features=num_features, dtype=torch.float64)
    weights = plain.weights_of(member)
    expected = []
    for dense, embedded, _ in plain.rows_of(inputs):
        vectors = vectors_of(weights, dense, embedded, batch_norm=batch_norm)
        read = np.concatenate(vectors)
        if interaction == "dot" and len(vectors) > 1:
            pairs = [
                plain.inner(vectors[i], vectors[j]) for i in range(len(vectors)) for j in range(i + 1, len(vectors))
            ]
            read = np.array([*(vectors[0] if num_dense else []), *pairs])
        logit = plain.mlp(weights, "top.layers", read, num_hidden=2, last_linear=True, batch_norms=batch_norm)
        expected.append(logit[0])
    plain.assert_rows_are(member(inputs), expected)


@pytest.mark.parametrize("interaction", ["dot", "cat"])
def test_without_dense_features_it_can_be_traced(interaction: Interaction) -> None:
    member = build(num_dense=0, interaction=interaction).eval()
    traced = torch.fx.symbolic_trace(member)
    for num_rows in (0, 1, 5):
        inputs = member_input(num_rows, num_dense=0)
        assert torch.equal(traced(inputs), member(inputs))


def test_the_member_equals_torchrecs_dlrm_with_the_same_weights() -> None:
    member = build()
    dense = DenseArch(NUM_DENSE, [6, DIM])
    interaction = InteractionArch(NUM_FEATURES)
    over = OverArch(DIM + NUM_FEATURES + NUM_FEATURES * (NUM_FEATURES - 1) // 2, [7, 8, 1])
    for ours, theirs in ((member.dense, dense), (member.top, over)):
        for source, target in zip(ours.parameters(), theirs.parameters(), strict=True):
            target.data.copy_(source.data)
    inputs = member_input(33)
    expected = over(interaction(dense(inputs.dense_BN), inputs.embedded_BFD)).squeeze(1)
    torch.testing.assert_close(member(inputs), expected, rtol=0, atol=1e-6)
