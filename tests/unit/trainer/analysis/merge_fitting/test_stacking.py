"""Stacking against scikit-learn, and the choice of its strength."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from configs.errors import DataError
from tests.support.fit_rows import drawn_rows, fit_rows
from trainer.analysis.merge_fitting.stacking import STRENGTHS, choose_strength, fit_stacking


def test_it_is_scikit_learns_logistic_regression() -> None:
    rows = drawn_rows(3_000, noise=(0.5, 0.8, np.inf))
    fitted = fit_stacking(rows, strength=1e-3)
    model = LogisticRegression(C=1 / (1e-3 * rows.num_rows), tol=1e-10, max_iter=10_000)
    model.fit(rows.logits.astype(np.float64), rows.labels)
    np.testing.assert_allclose(fitted.weights, model.coef_[0], rtol=1e-5)
    assert fitted.intercept == pytest.approx(model.intercept_[0], rel=1e-5)
    assert abs(fitted.weights[2]) < 0.1 < fitted.weights[1] < fitted.weights[0]


def test_few_rows_of_noise_ask_for_the_most_strength() -> None:
    draw = np.random.default_rng(4)
    noise = fit_rows(draw.integers(0, 2, 120), draw.normal(size=(120, 20)))
    assert choose_strength(noise) == STRENGTHS[-1]
    assert choose_strength(drawn_rows(4_000, noise=(0.3, 0.5))) < STRENGTHS[-1]


def test_identical_members_share_their_weight() -> None:
    rows = drawn_rows(1_000, noise=(0.5,))
    fitted = fit_stacking(fit_rows(rows.labels, rows.logits[:, [0, 0]]))
    assert fitted.weights[0] == pytest.approx(fitted.weights[1], rel=1e-6)


def test_saturated_logits_are_fitted_too() -> None:
    draw = np.random.default_rng(1)
    labels = draw.integers(0, 2, 2_000)
    right = draw.random((2_000, 3)) < 0.7
    rows = fit_rows(labels, np.where(right == (labels[:, None] == 1), 100.0, -100.0))
    fitted = fit_stacking(rows)
    # A vote that is right with 0.7 is worth ln(0.7 / 0.3) on either side.
    np.testing.assert_allclose(fitted.weights * 100, np.log(0.7 / 0.3), atol=0.15)


def test_one_class_is_refused() -> None:
    with pytest.raises(DataError, match="with and without a click"):
        fit_stacking(fit_rows(np.ones(3), np.ones((3, 2))))
