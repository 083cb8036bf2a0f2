"""Folds: every row in one, neighbours together, evenly dealt."""

from __future__ import annotations

import numpy as np
import pytest

from configs.errors import DataError
from trainer.analysis.merge_fitting import row_folds
from trainer.analysis.merge_fitting.row_folds import deal_folds


@pytest.mark.parametrize(("num_rows", "folds"), [(5, 5), (7, 2), (1_000, 5), (10_001, 3)])
def test_folds_are_of_about_one_size(num_rows: int, folds: int) -> None:
    counts = np.bincount(deal_folds(num_rows, folds=folds), minlength=folds)
    assert counts.sum() == num_rows and counts.min() > 0
    assert counts.max() - counts.min() <= max(1, num_rows // (folds * 20))


def test_neighbours_stay_together_and_blocks_are_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_folds, "MOST_BLOCK_ROWS", 50)
    fold_N = deal_folds(10_000, folds=4)
    blocks = fold_N.reshape(200, 50)
    assert (blocks == blocks[:, :1]).all()
    changes = (np.diff(blocks[:, 0]) != 0).mean()
    assert 0.6 < changes < 0.9  # of four folds in no order, three quarters
    assert not np.array_equal(blocks[:, 0], np.arange(200) % 4)


def test_they_are_the_same_every_time() -> None:
    assert np.array_equal(deal_folds(999, folds=5), deal_folds(999, folds=5))


@pytest.mark.parametrize(("num_rows", "folds"), [(3, 4), (10, 1), (10, 0), (10_000, 128)])
def test_what_cannot_be_dealt_is_refused(num_rows: int, folds: int) -> None:
    with pytest.raises(DataError, match="folds"):
        deal_folds(num_rows, folds=folds)
