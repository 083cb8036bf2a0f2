"""The DLRM member against its equation written out and against TorchRec's parts with the same weights."""

from __future__ import annotations

import numpy as np
import torch
from torchrec.models.dlrm import DenseArch, InteractionArch, OverArch

from modules.members.dlrm import DotMember
from tests.unit.modules import plain
from tests.unit.modules.small import DIM, NUM_DENSE, NUM_FEATURES, member_input


def build() -> DotMember:
    return DotMember(num_dense=NUM_DENSE, num_features=NUM_FEATURES, dim=DIM, dense_hidden=(6,), top_hidden=(7, 3))


def test_the_member_is_its_equation() -> None:
    member = build()
    inputs, weights = member_input(9), plain.weights_of(member)
    expected = []
    for dense, embedded, _ in plain.rows_of(inputs):
        projected = plain.mlp(weights, "dense.layers", dense, num_hidden=2, last_linear=False)
        vectors = [projected, *embedded]
        pairs = [plain.inner(vectors[i], vectors[j]) for i in range(len(vectors)) for j in range(i + 1, len(vectors))]
        top_input = np.array([*projected, *pairs])
        expected.append(plain.mlp(weights, "top.layers", top_input, num_hidden=2, last_linear=True)[0])
    np.testing.assert_allclose(member(inputs).detach().numpy(), expected, atol=1e-5)


def test_the_member_equals_torchrecs_dlrm_with_the_same_weights() -> None:
    member = build()
    dense = DenseArch(NUM_DENSE, [6, DIM])
    interaction = InteractionArch(NUM_FEATURES)
    over = OverArch(DIM + NUM_FEATURES + NUM_FEATURES * (NUM_FEATURES - 1) // 2, [7, 3, 1])
    for ours, theirs in ((member.dense, dense), (member.top, over)):
        for source, target in zip(ours.parameters(), theirs.parameters(), strict=True):
            target.data.copy_(source.data)
    inputs = member_input(33)
    expected = over(interaction(dense(inputs.dense_BN), inputs.embedded_BFD)).squeeze(1)
    torch.testing.assert_close(member(inputs), expected, rtol=0, atol=1e-6)
