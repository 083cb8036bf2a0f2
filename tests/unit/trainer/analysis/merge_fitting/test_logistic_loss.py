"""The mean log loss against NumPy, its derivatives against differences, its minimum against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from sklearn.linear_model import LogisticRegression

from configs.errors import ChorusError
from tests.support.fit_rows import drawn_rows
from trainer.analysis.merge_fitting import logistic_loss
from trainer.analysis.merge_fitting.logistic_loss import LogisticLoss, logit_losses, mean_loss

ROWS = drawn_rows(700, noise=(0.5, 1.0))


def test_a_row_costs_minus_the_logarithm_of_its_labels_probability() -> None:
    logits = np.array([-3.0, 0.5, 0.5])
    labels = np.array([1.0, 1.0, 0.0])
    p = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(logit_losses(labels, logits), -np.log(np.where(labels == 1, p, 1 - p)), rtol=1e-14)


def test_nothing_saturates() -> None:
    assert logit_losses(np.array([0.0, 1.0, 1.0]), np.array([800.0, -800.0, 800.0])).tolist() == [800.0, 800.0, 0.0]


@pytest.mark.parametrize("intercept", [False, True])
def test_derivatives_are_those_of_the_value(intercept: bool) -> None:
    loss = LogisticLoss(ROWS.logits, ROWS.labels, intercept=intercept, ridge=0.3)
    point = np.array([0.3, -0.2, 0.1])[: 2 + intercept]
    here = loss.at(point)
    gradient = approx_fprime(point, lambda at: loss.at(at).value, 1e-6)
    np.testing.assert_allclose(here.gradient, gradient, atol=1e-5)
    hessian = np.stack([approx_fprime(point, lambda at, i=i: loss.at(at).gradient[i], 1e-6) for i in range(len(point))])
    np.testing.assert_allclose(here.hessian, hessian, atol=1e-5)


def test_chunks_of_rows_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = LogisticLoss(ROWS.logits, ROWS.labels, intercept=True).at(np.array([0.3, 0.2, 0.1]))
    mean = mean_loss(ROWS.labels, ROWS.logits[:, 0])
    monkeypatch.setattr(logistic_loss, "CHUNK_ROWS", 99)
    cut = LogisticLoss(ROWS.logits, ROWS.labels, intercept=True).at(np.array([0.3, 0.2, 0.1]))
    assert cut.value == pytest.approx(whole.value, rel=1e-14)
    np.testing.assert_allclose(cut.hessian, whole.hessian, rtol=1e-12)
    assert mean_loss(ROWS.labels, ROWS.logits[:, 0]) == pytest.approx(mean, rel=1e-14)


@pytest.mark.parametrize("ridge", [1e-4, 0.05])
def test_the_minimum_is_scikit_learns(ridge: float) -> None:
    found = LogisticLoss(ROWS.logits, ROWS.labels, intercept=True, ridge=ridge).minimum()
    model = LogisticRegression(C=1 / (ridge * ROWS.num_rows), tol=1e-10, max_iter=10_000)
    model.fit(ROWS.logits.astype(np.float64), ROWS.labels)
    np.testing.assert_allclose(found, [*model.coef_[0], model.intercept_[0]], rtol=1e-5)


def test_labels_that_a_threshold_separates_end_too() -> None:
    logits = np.array([[-1.0], [-0.5], [0.5], [1.0]])
    found = LogisticLoss(logits, np.array([0, 0, 1, 1]), intercept=True).minimum()
    assert LogisticLoss(logits, np.array([0, 0, 1, 1]), intercept=True).at(found).value < 1e-9


def test_a_fit_that_does_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic_loss, "_MOST_STEPS", 2)
    with pytest.raises(ChorusError, match="were still promised"):
        LogisticLoss(ROWS.logits * 5, ROWS.labels, intercept=True).minimum()
