"""Comparison: bits, values, and what is in one only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.stored_checkpoints import DENSE, TABLE, quiet, state, store
from trainer.analysis.checkpoint_report.comparison import TensorDifference, compare, keys_to_compare
from trainer.checkpoints import state_files
from trainer.checkpoints.stored_checkpoint import StoredCheckpoint

KEY = TABLE.format("shared/C1")


def differences(
    tmp_path: Path, left: dict[str, Tensor], right: dict[str, Tensor], *, with_state: bool = True
) -> dict[str, TensorDifference]:
    number = len(list(tmp_path.iterdir()))
    a = StoredCheckpoint.open(str(store(tmp_path / f"a{number}", left, pieces=(1, 2))))
    b = StoredCheckpoint.open(str(store(tmp_path / f"b{number}", right, pieces=(3, 1))))
    keys = keys_to_compare(a, b, with_state=with_state)
    return {found.key: found for found in compare(a, b, keys=keys, advance=quiet)}


def test_equal_however_they_are_cut(tmp_path: Path) -> None:
    found = differences(tmp_path, state(), state())
    assert found.keys() == state().keys()
    assert {one.finding for one in found.values()} == {"equal"}
    weights = differences(tmp_path, state(), state(), with_state=False)
    assert set(weights) == {key for key in state() if key.startswith("model/")}
    assert "embedding_bags" in next(iter(weights))  # tables first


def test_how_far_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_files, "BLOCK_BYTES", 3 * 8 * 4)
    right = state()
    right[KEY] = right[KEY].clone()
    right[KEY][8, 1] += 0.5
    right[KEY][1, 7] -= 0.25
    found = differences(tmp_path, state(), right)
    assert [key for key, one in found.items() if one.finding != "equal"] == [KEY]
    apart = state()[KEY].double() - right[KEY].double()
    assert found[KEY].max_abs == pytest.approx(float(apart.abs().max()), rel=1e-12)
    assert found[KEY].relative_norm == pytest.approx(float(apart.norm() / state()[KEY].double().norm()), rel=1e-12)
    assert found[KEY].within(0.5001) and not found[KEY].within(0.4999)


def one(tmp_path: Path, left: Tensor, right: Tensor) -> TensorDifference:
    key = DENSE.format("deep.mlp.layers.0.bias")
    return differences(tmp_path, {key: left}, {key: right})[key]


def test_bits_and_values_that_are_not_finite(tmp_path: Path) -> None:
    nan, inf = torch.nan, torch.inf
    found = one(tmp_path, torch.tensor([nan, inf, 0.0]), torch.tensor([nan, inf, 0.0]))
    assert found.finding == "equal"
    found = one(tmp_path, torch.tensor([nan, inf, 0.0]), torch.tensor([nan, inf, -0.0]))
    assert (found.finding, found.max_abs, found.relative_norm) == ("different", 0.0, 0.0)
    for left, right in ((nan, 1.0), (inf, 1.0), (inf, -inf), (nan, inf)):
        found = one(tmp_path, torch.tensor([left, 1.0]), torch.tensor([right, 1.0]))
        assert (found.finding, found.max_abs) == ("different", inf)
        assert not found.within(1e30)
    found = one(tmp_path, torch.zeros(2), torch.ones(2))
    assert (found.max_abs, found.relative_norm) == (1.0, inf)
    for left, right in ((torch.tensor(3), torch.tensor(5)), (torch.tensor([True]), torch.tensor([False]))):
        assert one(tmp_path, left, right).finding == "different"
    assert one(tmp_path, torch.tensor(3), torch.tensor(5)).max_abs == 2.0


def test_only_in_one_and_of_another_shape(tmp_path: Path) -> None:
    left, right = state(), state()
    del right[KEY]
    other = TABLE.format("shared/C2")
    right[other] = torch.zeros(6, 4)
    right["optimizer/tables/solo/C1/sum"] = torch.zeros(10)
    half = DENSE.format("deep.mlp.layers.0.bias")
    right[half] = right[half].half()
    found = differences(tmp_path, left, right)
    told = {key: one.finding for key, one in found.items() if one.finding != "equal"}
    assert told == {
        KEY: "only in A",
        other: "another shape",
        half: "another shape",
        "optimizer/tables/solo/C1/sum": "only in B",
    }
    assert found[other].shapes == ((6, 8), (6, 4))
    assert found[KEY].shapes == ((10, 8), None)
    assert not any(found[key].within(1e30) for key in told)
