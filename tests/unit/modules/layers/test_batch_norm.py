"""Batch norm: torch's own on the real rows, bit for bit, whatever the padding holds."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from modules.layers.batch_norm import BatchNorm

WIDTH = 6


def rows(num_rows: int, *, seed: int = 0) -> Tensor:
    values = torch.randn(num_rows, WIDTH, generator=torch.Generator().manual_seed(seed))
    return values * torch.arange(1.0, WIDTH + 1) + 3.0


def layers() -> tuple[BatchNorm, nn.BatchNorm1d]:
    """Ours and torch's, with the same weights and the same past."""
    ours, theirs = BatchNorm(WIDTH), nn.BatchNorm1d(WIDTH)
    with torch.no_grad():
        for seed, value in enumerate([ours.weight, ours.bias, ours.running_mean, ours.running_var]):
            value.copy_(rows(1, seed=seed)[0].abs())
    theirs.load_state_dict(ours.state_dict(), strict=False)
    return ours, theirs


def trained(layer: nn.Module, values: Tensor, num_rows: int) -> list[Tensor]:
    """Output, gradients and running statistics of a training step whose loss reads the first rows."""
    values = values.clone().requires_grad_()
    out = layer.train()(values)
    out[:num_rows].sin().sum().backward()
    assert values.grad is not None and out.shape == values.shape
    gradients = [weight.grad for weight in (layer.weight, layer.bias)]
    return [out[:num_rows], values.grad[:num_rows], *gradients, layer.running_mean, layer.running_var]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("num_rows", [2, 33])
def test_it_is_torchs_in_training(num_rows: int) -> None:
    ours, theirs = layers()
    assert same(trained(ours, rows(num_rows), num_rows), trained(theirs, rows(num_rows), num_rows))


@pytest.mark.parametrize("num_rows", [0, 1, 33])
def test_it_is_torchs_in_evaluation(num_rows: int) -> None:
    ours, theirs = layers()
    before = copy.deepcopy(ours.state_dict())
    for real in (None, 1):  # which rows are real says nothing here
        ours.set_rows(real)
        assert torch.equal(ours.eval()(rows(num_rows)), theirs.eval()(rows(num_rows)))
    assert same(list(before.values()), list(ours.state_dict().values()))


@pytest.mark.parametrize("padding", [0.0, 1e6, -1e30])
@pytest.mark.parametrize("num_rows", [2, 20])
def test_padding_changes_neither_statistics_nor_other_rows(num_rows: int, padding: float) -> None:
    ours, theirs = layers()
    ours.set_rows(num_rows)
    padded = torch.cat([rows(num_rows), torch.full((7, WIDTH), padding)])
    assert same(trained(ours, padded, num_rows), trained(theirs, rows(num_rows), num_rows))


@pytest.mark.parametrize("num_padding", [0, 7])
@pytest.mark.parametrize("num_rows", [0, 1])
def test_fewer_than_two_real_rows_go_by_the_running_statistics(num_rows: int, num_padding: int) -> None:
    ours, theirs = layers()
    before = copy.deepcopy(ours.state_dict())
    ours.set_rows(num_rows)
    values = torch.cat([rows(num_rows), torch.full((num_padding, WIDTH), 1e6)])
    assert torch.equal(ours.train()(values), theirs.eval()(values))
    assert same(list(before.values()), list(ours.state_dict().values()))


def test_set_rows_lasts_until_it_is_set_anew() -> None:
    ours, theirs = layers()
    ours.set_rows(5)
    trained(ours, rows(9), 5)
    ours.set_rows(None)
    trained(theirs, rows(9)[:5], 5)
    ours.zero_grad()
    theirs.zero_grad()
    assert same(trained(ours, rows(9, seed=1), 9), trained(theirs, rows(9, seed=1), 9))


def test_its_numbers_are_torchs_defaults() -> None:
    ours, theirs = BatchNorm(WIDTH), nn.BatchNorm1d(WIDTH)
    assert (ours.eps, ours.momentum) == (theirs.eps, theirs.momentum)
    assert set(theirs.state_dict()) - set(ours.state_dict()) == {"num_batches_tracked"}
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())
    assert repr(ours) == "BatchNorm(6, eps=1e-05, momentum=0.1)"
