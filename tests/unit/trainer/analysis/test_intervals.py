"""Intervals against plain definitions, a bootstrap and a simulation of coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trainer.analysis.intervals import (
    Estimate,
    auc_difference,
    auc_estimate,
    log_loss_difference,
    mean_estimate,
)
from trainer.metrics.exact import exact_auc, log_losses


def drawn(num_rows: int, *, seed: int, num_levels: int = 0):
    """Labels and two correlated score columns; with levels, rounded so that many scores tie."""
    draw = np.random.default_rng(seed)
    truth = draw.normal(size=num_rows)
    labels = (draw.random(num_rows) < 1 / (1 + np.exp(1 - truth))).astype(np.int8)
    columns = [truth + noise * draw.normal(size=num_rows) for noise in (0.5, 1.5)]
    if num_levels:
        columns = [np.round(column * num_levels) for column in columns]
    return labels, columns[0], columns[1]


def delong_by_definition(labels, columns):
    """DeLong's estimator with loops over all pairs: AUCs [2] and their covariance [2, 2]."""
    aucs, of_positives, of_negatives = [], [], []
    for column in columns:
        wins = [[1.0 if p > n else 0.5 if p == n else 0.0 for n in column[labels == 0]] for p in column[labels == 1]]
        aucs.append(np.mean(wins))
        of_positives.append(np.mean(wins, axis=1))
        of_negatives.append(np.mean(wins, axis=0))
    covariance = np.cov(of_positives) / (labels == 1).sum() + np.cov(of_negatives) / (labels == 0).sum()
    return aucs, covariance


@pytest.mark.parametrize("num_levels", [0, 1, 4])
def test_auc_is_delongs_by_definition_with_and_without_ties(num_levels):
    labels, scores, other = drawn(200, seed=3, num_levels=num_levels)
    aucs, covariance = delong_by_definition(labels, [scores, other])

    single = auc_estimate(labels, scores)
    paired = auc_difference(labels, scores, other)

    assert single.value == pytest.approx(aucs[0], abs=1e-12)
    assert single.standard_error == pytest.approx(math.sqrt(covariance[0, 0]), rel=1e-10)
    assert paired.value == pytest.approx(aucs[0] - aucs[1], abs=1e-12)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert paired.standard_error == pytest.approx(math.sqrt(variance), rel=1e-10)


def test_auc_equals_the_exact_meter_on_float32_ties():
    labels, scores, _ = drawn(20_000, seed=5, num_levels=8)
    scores = scores.astype(np.float32)
    assert auc_estimate(labels, scores).value == pytest.approx(exact_auc(labels, scores), abs=1e-12)


def test_paired_errors_agree_with_a_bootstrap_over_rows():
    labels, scores, other = drawn(1_500, seed=7)
    first, second = (1 / (1 + np.exp(1 - column)) for column in (scores, other))
    draw = np.random.default_rng(11)
    aucs, losses = [], []
    for _ in range(1_000):
        rows = draw.integers(0, len(labels), len(labels))
        aucs.append(exact_auc(labels[rows], scores[rows]) - exact_auc(labels[rows], other[rows]))
        losses.append(np.mean(log_losses(labels[rows], first[rows]) - log_losses(labels[rows], second[rows])))
    assert auc_difference(labels, scores, other).standard_error == pytest.approx(np.std(aucs), rel=0.1)
    assert log_loss_difference(labels, first, second).standard_error == pytest.approx(np.std(losses), rel=0.1)


def test_intervals_cover_the_truth_as_often_as_they_say():
    _, scores, other = drawn(400_000, seed=1)
    labels = drawn(400_000, seed=1)[0]
    truth_auc = auc_difference(labels, scores, other).value
    first, second = (1 / (1 + np.exp(1 - column)) for column in (scores, other))
    truth_loss = log_loss_difference(labels, first, second).value
    covered = np.zeros(2)
    for part in range(400):
        rows = slice(part * 1_000, (part + 1) * 1_000)
        auc = auc_difference(labels[rows], scores[rows], other[rows])
        covered[0] += abs(auc.value - truth_auc) <= auc.half_width()
        loss = log_loss_difference(labels[rows], first[rows], second[rows])
        covered[1] += abs(loss.value - truth_loss) <= loss.half_width()
    assert (covered / 400 > 0.92).all()
    assert (covered / 400 < 0.98).all()


def test_a_difference_turns_its_sign_with_the_order_and_is_none_to_itself():
    labels, scores, other = drawn(500, seed=9)
    forth, back = auc_difference(labels, scores, other), auc_difference(labels, other, scores)
    assert forth.value == -back.value
    assert forth.standard_error == back.standard_error
    assert auc_difference(labels, scores, scores) == Estimate(value=0.0, standard_error=0.0)
    assert not auc_difference(labels, scores, scores).is_clear()
    assert auc_difference(labels, scores, 3 * scores - 1) == Estimate(value=0.0, standard_error=0.0)


def test_the_interval_is_the_normal_one():
    estimate = Estimate(value=1.0, standard_error=0.1)
    assert estimate.half_width() == pytest.approx(0.195996, abs=1e-6)
    assert estimate.half_width(confidence=0.9) == pytest.approx(0.164485, abs=1e-6)
    assert estimate.is_clear() and Estimate(value=-1.0, standard_error=0.1).is_clear()
    assert not Estimate(value=-0.19, standard_error=0.1).is_clear()
    assert not Estimate(value=0.19, standard_error=0.1).is_clear()
    assert Estimate(value=0.19, standard_error=0.1).is_clear(confidence=0.9)


@pytest.mark.parametrize(
    ("labels", "scores", "sentence"),
    [
        ([0, 1, 1], [1.0, 2.0, 3.0], "2 positives and 1 negatives"),
        ([0, 0, 0, 0], [1.0, 2.0, 3.0, 4.0], "0 positives"),
        ([0, 0, 1, 1], [1.0, 2.0, 3.0], "one length"),
        ([0, 0, 1, 1], [1.0, math.nan, 3.0, 4.0], "not finite"),
    ],
)
def test_what_has_no_interval_is_refused(labels, scores, sentence):
    with pytest.raises(ValueError, match=sentence):
        auc_estimate(np.array(labels), np.array(scores))


def test_a_mean_needs_two_rows():
    with pytest.raises(ValueError, match="1 rows"):
        mean_estimate(np.array([1.0]))
