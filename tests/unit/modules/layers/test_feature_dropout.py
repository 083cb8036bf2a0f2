"""FeatureDropout: whole features of a row go or stay, the mean stays, and MemberBank's reseeding reaches it."""

from __future__ import annotations

import pytest
import torch

from modules.contracts import MemberInput
from modules.layers.dropout import Dropout
from modules.layers.feature_dropout import FeatureDropout
from tests.unit.modules.small import DIM, NUM_DENSE, NUM_FEATURES, member_input


def ones(num_rows: int) -> MemberInput:
    return MemberInput(
        torch.ones(num_rows, NUM_DENSE),
        torch.ones(num_rows, NUM_FEATURES, DIM),
        torch.ones(num_rows, NUM_FEATURES),
    )


def dropped(inputs: MemberInput, *, probability: float = 0.3, seed: int = 1) -> MemberInput:
    layer = FeatureDropout(probability)
    layer.reseed(seed)
    return layer(inputs)


def test_it_is_a_dropout_layer_to_those_who_reseed() -> None:
    assert isinstance(FeatureDropout(0.5), Dropout)


def kept_share(probability: float) -> float:
    """Probabilities are whole multiples of 2^-16."""
    return 1 - round(probability * 65_536) / 65_536


def test_a_feature_goes_as_a_whole() -> None:
    inputs = member_input(200)
    found = dropped(inputs)
    for row in range(200):
        for feature in range(NUM_FEATURES):
            hidden = bool((found.embedded_BFD[row, feature] == 0).all())
            expected = torch.zeros(DIM) if hidden else inputs.embedded_BFD[row, feature] / kept_share(0.3)
            torch.testing.assert_close(found.embedded_BFD[row, feature], expected)
            assert found.first_order_BF is not None and inputs.first_order_BF is not None
            first_order = torch.tensor(0.0) if hidden else inputs.first_order_BF[row, feature] / kept_share(0.3)
            torch.testing.assert_close(found.first_order_BF[row, feature], first_order)


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_each_feature_of_each_row_is_hidden_by_itself(probability: float) -> None:
    num_rows = 20_000
    found = dropped(ones(num_rows), probability=probability)
    kept = torch.cat([found.dense_BN, found.embedded_BFD[:, :, 0]], dim=1)
    torch.testing.assert_close(kept[kept != 0], torch.full_like(kept[kept != 0], 1 / kept_share(probability)))
    shares = (kept != 0).float().mean(dim=0)
    torch.testing.assert_close(shares, torch.full_like(shares, 1 - probability), rtol=0, atol=4 * num_rows**-0.5)
    between_features = torch.corrcoef(kept.T) - torch.eye(NUM_DENSE + NUM_FEATURES)
    assert between_features.abs().max().item() < 5 * num_rows**-0.5
    next_row = torch.corrcoef(torch.stack([kept[1:, 0], kept[:-1, 0]]))[0, 1]
    assert abs(next_row.item()) < 5 * num_rows**-0.5


def test_the_mask_is_a_function_of_the_seed() -> None:
    inputs = ones(50)
    first = dropped(inputs, seed=1)
    torch.rand(100)  # the global stream plays no part
    before = torch.random.get_rng_state()
    again, other = dropped(inputs, seed=1), dropped(inputs, seed=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(again.dense_BN, first.dense_BN) and torch.equal(again.embedded_BFD, first.embedded_BFD)
    assert not torch.equal(other.dense_BN, first.dense_BN) and not torch.equal(other.embedded_BFD, first.embedded_BFD)


def test_evaluation_and_probability_zero_need_no_seed() -> None:
    inputs = member_input(4)
    assert FeatureDropout(0.5).eval()(inputs) is inputs
    assert FeatureDropout(0.0)(inputs) is inputs


def test_hidden_features_get_no_gradient() -> None:
    inputs = ones(64)
    inputs.embedded_BFD.requires_grad_()
    found = dropped(inputs)
    found.embedded_BFD.sum().backward()
    assert inputs.embedded_BFD.grad is not None
    assert torch.equal(inputs.embedded_BFD.grad, found.embedded_BFD.detach())


@pytest.mark.parametrize(("num_dense", "num_features", "dim"), [(0, 3, 4), (2, 3, 0), (2, 1, 4)])
def test_inputs_of_any_shape(num_dense: int, num_features: int, dim: int) -> None:
    inputs = member_input(6, num_dense=num_dense, num_features=num_features, dim=dim, dtype=torch.float64)
    for rows in (inputs, MemberInput(*(value[:0] for value in inputs if value is not None))):
        found = dropped(rows)
        assert [(value.shape, value.dtype) for value in found] == [(value.shape, value.dtype) for value in rows]
    assert dropped(inputs._replace(first_order_BF=None)).first_order_BF is None
