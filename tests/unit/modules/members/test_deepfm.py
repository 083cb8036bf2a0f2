"""The DeepFM member against its equation written out and against TorchRec's factorization machine."""

from __future__ import annotations

import pytest
import torch
from torchrec.modules.deepfm import DeepFM, FactorizationMachine

from modules.members.deepfm import FactorizationMember
from tests.unit.modules import plain
from tests.unit.modules.small import DIM, NUM_DENSE, NUM_FEATURES, member_input


def build(*, num_dense: int = NUM_DENSE, dim: int = DIM, batch_norm: bool = False) -> FactorizationMember:
    return FactorizationMember(
        num_dense=num_dense, num_features=NUM_FEATURES, dim=dim, hidden=(7, 8), batch_norm=batch_norm
    )


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("num_dense", [0, NUM_DENSE])
def test_the_member_is_its_equation(num_dense: int, batch_norm: bool) -> None:
    member = plain.unsettled(build(num_dense=num_dense, batch_norm=batch_norm))
    inputs, weights = member_input(9, num_dense=num_dense, dtype=torch.float64), plain.weights_of(member)
    expected = []
    for dense, embedded, first_order in plain.rows_of(inputs):
        x0 = plain.side_by_side(dense, embedded)
        pairs = sum(plain.inner(embedded[i], embedded[j]) for j in range(NUM_FEATURES) for i in range(j))
        deep = plain.mlp(weights, "deep.layers", x0, num_hidden=2, last_linear=True, batch_norms=batch_norm)[0]
        linear = plain.linear(weights, "dense_linear", dense)[0] if num_dense else 0.0
        expected.append(linear + sum(first_order) + pairs + deep)
    plain.assert_rows_are(member(inputs), expected)


@pytest.mark.parametrize("dim", [1, DIM])
def test_its_pairs_and_its_deep_part_are_torchrecs_with_the_same_weights(dim: int) -> None:
    """TorchRec's machine lays all columns side by side as scalars, so it is ours one column at a time."""
    member = build(num_dense=0, dim=dim)
    inputs = member_input(33, num_dense=0, dim=dim)
    vectors = inputs.embedded_BFD
    machine, deep = FactorizationMachine(), DeepFM(dense_module=member.deep)
    pairs = sum(machine([vectors[:, :, column : column + 1]]) for column in range(dim))
    expected = inputs.first_order_BF.sum(dim=1) + (pairs + deep([vectors])).squeeze(1)  # type: ignore[union-attr]
    torch.testing.assert_close(member(inputs), expected, rtol=1e-5, atol=1e-5)


def test_it_declares_and_insists_on_first_order_weights() -> None:
    assert FactorizationMember.first_order
    with pytest.raises(AssertionError, match="first-order weights"):
        build()(member_input(2)._replace(first_order_BF=None))
