"""Calibrations' fits against scikit-learn and against what they are to mend."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from configs.errors import ChorusError
from modules.calibration import Isotonic, Platt, Temperature
from trainer.analysis.merge_fitting.calibrating import fit_calibration, fit_isotonic
from trainer.analysis.merge_fitting.logistic_loss import mean_loss

DRAW = np.random.default_rng(8)
TRUTH = DRAW.normal(size=4_000) - 1.0
LABELS = (DRAW.random(4_000) < expit(TRUTH)).astype(np.int8)


def test_none_is_none() -> None:
    assert fit_calibration("none", TRUTH, LABELS) is None


def test_temperature_undoes_a_factor() -> None:
    as_it_is = fit_calibration("temperature", TRUTH, LABELS)
    doubled = fit_calibration("temperature", 2 * TRUTH, LABELS)
    assert isinstance(as_it_is, Temperature) and isinstance(doubled, Temperature)
    assert as_it_is.temperature == pytest.approx(1.0, abs=0.1)
    assert doubled.temperature == pytest.approx(2 * as_it_is.temperature, rel=1e-6)


def test_temperature_is_the_best_of_many() -> None:
    fitted = fit_calibration("temperature", TRUTH * 1.7, LABELS)
    assert isinstance(fitted, Temperature)
    losses = {t: mean_loss(LABELS, TRUTH * 1.7 / t) for t in (fitted.temperature, *np.linspace(1, 3, 201))}
    assert min(losses, key=losses.__getitem__) == fitted.temperature


def test_platt_is_scikit_learns() -> None:
    fitted = fit_calibration("platt", 3 * TRUTH + 2, LABELS)
    assert isinstance(fitted, Platt)
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit((3 * TRUTH + 2)[:, None], LABELS)
    assert (fitted.scale, fitted.shift) == pytest.approx((model.coef_[0, 0], model.intercept_[0]), rel=1e-4)


def test_logits_that_order_no_better_than_chance_have_no_temperature() -> None:
    with pytest.raises(ChorusError, match="they order the rows no better than chance"):
        fit_calibration("temperature", -TRUTH, LABELS)


def with_two_rows(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """With a click at the lowest logit and none at the highest, as the fit adds them."""
    return np.append(logits, [logits.min(), logits.max()]), np.append(labels, [1, 0])


@pytest.mark.parametrize("digits", [None, 1, 0])
def test_isotonic_is_scikit_learns(digits: int | None) -> None:
    """On ties too: rounded logits have few values."""
    logits = TRUTH if digits is None else np.round(TRUTH, digits)
    fitted = fit_isotonic(logits, LABELS)
    model = IsotonicRegression(out_of_bounds="clip").fit(*with_two_rows(logits, LABELS))
    asked = np.concatenate([logits, DRAW.normal(size=500) * 3])
    ours = torch.sigmoid(fitted(torch.from_numpy(asked))).numpy()
    np.testing.assert_allclose(ours, model.predict(asked), atol=1e-9)


def test_isotonic_has_its_knots_where_pools_begin_and_end() -> None:
    fitted = fit_isotonic(np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0]), np.array([1, 0, 0, 1, 1, 1]))
    # The added click pools 0 to 2 at 2 of 4 rows; the added row without one leaves 3 of 4 from 3 on.
    assert fitted == Isotonic(logits=(0.0, 2.0, 3.0, 5.0), probabilities=(0.5, 0.5, 0.75, 0.75))


def test_isotonic_keeps_away_from_certainty() -> None:
    fitted = fit_isotonic(np.linspace(-5, 5, 100), np.arange(100) >= 50)
    assert 0 < fitted.probabilities[0] < 0.03 and 0.97 < fitted.probabilities[-1] < 1


def test_isotonic_of_equal_logits_is_their_rate() -> None:
    fitted = fit_isotonic(np.zeros(10), np.arange(10) < 3)
    assert fitted == Isotonic(logits=(0.0,), probabilities=(4 / 12,))


@pytest.mark.parametrize("kind", ["temperature", "platt", "isotonic"])
def test_saturated_logits_are_fitted_too(kind: str) -> None:
    logits = np.where(np.arange(400) % 2, 100.0, -100.0)
    labels = (np.arange(400) % 2) ^ (np.arange(400) % 10 == 0)
    fitted = fit_calibration(kind, logits, labels)
    assert fitted is not None
    calibrated = fitted(torch.from_numpy(logits)).numpy()
    assert mean_loss(labels, calibrated) < 0.4 < mean_loss(labels, logits)
