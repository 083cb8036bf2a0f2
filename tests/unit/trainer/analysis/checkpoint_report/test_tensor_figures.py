"""Figures of a tensor: added up in float64, the same whatever the blocks."""

from __future__ import annotations

import pytest
import torch

from trainer.analysis.checkpoint_report.tensor_figures import TensorFigures


def test_blocks_add_up() -> None:
    whole = torch.randn(7, 3) * 100
    total = TensorFigures()
    for block in whole.split(2):
        total += TensorFigures.of_block(block)
    expected = whole.double()
    assert total.as_json() == pytest.approx(
        {
            "norm": float(expected.norm()),
            "mean_abs": float(expected.abs().mean()),
            "max_abs": float(expected.abs().max()),
            "num_not_finite": 0,
        },
        rel=1e-14,
    )


def test_what_float32_would_lose() -> None:
    block = torch.cat([torch.full((1,), 3e38), torch.ones(10)])
    assert TensorFigures.of_block(block).norm == pytest.approx(3e38)
    ones = TensorFigures.of_block(torch.full((1,), 1e8)) + TensorFigures.of_block(torch.ones(10_000))
    assert ones.sum_abs == pytest.approx(1e8 + 10_000, abs=1e-3, rel=0)


def test_values_that_are_not_finite_are_counted_and_left_out() -> None:
    figures = TensorFigures.of_block(torch.tensor([3.0, torch.nan, -4.0, torch.inf, -torch.inf]))
    assert figures.as_json() == {"norm": 5.0, "mean_abs": 3.5, "max_abs": 4.0, "num_not_finite": 3}


def test_nothing_integers_and_one_value() -> None:
    assert TensorFigures.of_block(torch.empty(0, 3)).as_json()["mean_abs"] == 0.0
    assert TensorFigures.of_block(torch.tensor([3, -4])).norm == 5.0
    assert TensorFigures.of_block(torch.tensor(-2.5)).max_abs == 2.5
