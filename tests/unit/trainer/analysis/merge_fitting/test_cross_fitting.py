"""Cross-fitting: no row is merged by a rule that has seen it, and on noise it tells what fitting hides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from configs.errors import DataError
from tests.support.fit_rows import drawn_rows, fit_rows
from trainer.analysis.merge_fitting.calibrating import CALIBRATION_KINDS
from trainer.analysis.merge_fitting.cross_fitting import cross_fitted
from trainer.analysis.merge_fitting.fit_rows import FitRows, merged_logits
from trainer.analysis.merge_fitting.logistic_loss import mean_loss
from trainer.analysis.merge_fitting.row_folds import deal_folds
from trainer.analysis.merge_fitting.rule_fitting import ALL_RULES, FitSettings, fit_calibrated, fit_rule
from trainer.metrics.exact import exact_auc

SETTINGS = FitSettings(stacking_strength=1e-4)
ROWS = drawn_rows(400, noise=(0.5, 0.9))


def of_noise(seed: int) -> FitRows:
    """Members that know nothing of the labels."""
    draw = np.random.default_rng(seed)
    return fit_rows(draw.integers(0, 2, 300), draw.normal(size=(300, 30)))


def one_column(name: str, rows: FitRows, *, folds: int = 5) -> NDArray[np.float64]:
    return cross_fitted(name, ["none"], rows, folds=folds, settings=SETTINGS)["none"]


@pytest.mark.parametrize("seed", range(3))
def test_noise_looks_good_where_it_was_fitted_and_is_nothing_elsewhere(seed: int) -> None:
    rows = of_noise(seed)
    seen = merged_logits(fit_rule("stacking", rows, SETTINGS).rule, rows.logits)
    unseen = one_column("stacking", rows)
    assert exact_auc(rows.labels, seen) > 0.62
    assert exact_auc(rows.labels, unseen) < 0.58
    rate = rows.labels.mean()
    base = mean_loss(rows.labels, np.full(300, np.log(rate / (1 - rate))))
    assert mean_loss(rows.labels, seen) < base < mean_loss(rows.labels, unseen)


@pytest.mark.parametrize("name", ["weights", "greedy", "stacking", "confidence"])
@pytest.mark.parametrize("kind", CALIBRATION_KINDS)
def test_a_folds_own_labels_do_not_matter_to_it(name: str, kind: str) -> None:
    """Other labels of one fold change the others' predictions, and not its own."""
    fold_N = deal_folds(ROWS.num_rows, folds=4)
    mine = fold_N == 2
    changed = fit_rows(np.where(mine, 1 - ROWS.labels, ROWS.labels), ROWS.logits)
    before, after = (cross_fitted(name, [kind], rows, folds=4, settings=SETTINGS)[kind] for rows in (ROWS, changed))
    assert np.array_equal(before[mine], after[mine])
    if (name, kind) not in (("greedy", "none"), ("confidence", "none")):  # whose fit may come to the same
        assert not np.array_equal(before[~mine], after[~mine])


def test_each_fold_is_merged_by_the_fit_on_the_others() -> None:
    fold_N = deal_folds(ROWS.num_rows, folds=3)
    merged = cross_fitted("weights", ["none", "isotonic"], ROWS, folds=3, settings=SETTINGS)
    for fold in range(3):
        seen, asked = ROWS.where(fold_N != fold), ROWS.where(fold_N == fold)
        fitted = fit_calibrated(fit_rule("weights", seen, SETTINGS), "isotonic", seen)
        expected = fitted.rule.logits(torch.from_numpy(asked.logits)).numpy()
        np.testing.assert_allclose(merged["isotonic"][fold_N == fold], expected, rtol=1e-13)


@pytest.mark.parametrize("name", ["mean_logit", "mean_probability", "median"])
def test_what_needs_no_fit_is_applied_as_it_is(name: str) -> None:
    expected = merged_logits(fit_rule(name, ROWS, SETTINGS).rule, ROWS.logits)
    assert np.array_equal(one_column(name, ROWS), expected)


def test_progress_comes_to_all_rows() -> None:
    for name in ALL_RULES:
        told: list[int] = []
        cross_fitted(name, ["none"], ROWS, folds=5, settings=SETTINGS, done=told.append)
        assert sum(told) == ROWS.num_rows


def test_a_fold_whose_others_have_one_class_is_refused() -> None:
    fold_N = deal_folds(40, folds=2)
    rows = fit_rows(fold_N == 0, np.random.default_rng(1).normal(size=(40, 2)))
    with pytest.raises(DataError, match="take more rows, or fewer folds"):
        one_column("weights", rows, folds=2)
