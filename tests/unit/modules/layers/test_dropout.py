"""Dropout: its mask is a function of the seed alone, its mean is the input, and evaluation leaves values alone."""

from __future__ import annotations

import pytest
import torch

from modules.layers.dropout import Dropout


def dropped(layer: Dropout, seed: int, values: torch.Tensor) -> torch.Tensor:
    layer.reseed(seed)
    return layer(values)


def test_the_mask_is_a_function_of_the_seed() -> None:
    layer, values = Dropout(0.4), torch.ones(50, 40)
    first = dropped(layer, 1, values)
    torch.rand(100)  # the global stream plays no part
    assert torch.equal(dropped(layer, 1, values), first)
    assert torch.equal(dropped(Dropout(0.4), 1, values), first)
    assert not torch.equal(dropped(layer, 2, values), first)


def test_the_global_stream_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    dropped(Dropout(0.5), 3, torch.ones(10))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_it_keeps_the_mean(probability: float) -> None:
    values = dropped(Dropout(probability), 5, torch.ones(400, 500))
    kept = values != 0
    assert kept.float().mean().item() == pytest.approx(1 - probability, abs=0.004)
    scale = 1 / (1 - round(probability * 65_536) / 65_536)
    torch.testing.assert_close(values[kept], torch.full_like(values[kept], scale))


def test_neighbours_are_kept_independently_of_each_other() -> None:
    """Four values come from one random word."""
    kept = (dropped(Dropout(0.3), 5, torch.ones(400_000)) != 0).double()
    for lag in range(1, 9):
        together = (kept[lag:] * kept[:-lag]).mean().item()
        assert together == pytest.approx(0.49, abs=0.004), lag


def test_any_number_of_values_has_a_mask() -> None:
    for shape in ((0,), (1,), (3, 5), (2, 3, 7)):
        assert dropped(Dropout(0.5), 1, torch.ones(shape)).shape == shape


def test_evaluation_and_probability_zero_need_no_seed() -> None:
    values = torch.randn(4, 3)
    assert Dropout(0.5).eval()(values) is values
    assert Dropout(0.0)(values) is values


def test_training_without_a_seed_is_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError, match="begin_step"):
        Dropout(0.5)(torch.ones(3))


def test_the_gradient_goes_through_the_kept_values_alone() -> None:
    layer, values = Dropout(0.5), torch.ones(64, requires_grad=True)
    found = dropped(layer, 7, values)
    found.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, found.detach())


@pytest.mark.parametrize("probability", [-0.01, 1.0, float("nan")])
def test_what_is_no_probability_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match="is not in"):
        Dropout(probability)
