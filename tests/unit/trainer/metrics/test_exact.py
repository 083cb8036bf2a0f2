"""Exact figures against scikit-learn and against every pair counted."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import log_loss, roc_auc_score

from trainer.metrics.exact import entropy_nats, exact_auc, log_losses, metrics_of_logits, metrics_of_probabilities
from trainer.metrics.exact_sum import ERROR_PER_VALUE

labels_of = {n: st.lists(st.integers(0, 1), min_size=n, max_size=n) for n in range(0, 41)}
# A few distinct scores give many ties; the last two stand for saturated ones.
tied = st.sampled_from([-3.0, -0.5, 0.0, 0.25, 1.0, 60.0, -745.0])
any_score = st.floats(-50, 50, width=32)


@st.composite
def columns(draw: st.DrawFn) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    size = draw(st.integers(1, 40))
    scores = draw(st.lists(draw(st.sampled_from([tied, any_score])), min_size=size, max_size=size))
    return np.array(draw(labels_of[size]), np.int8), np.array(scores)


def two_classes(labels: NDArray[np.int8]) -> bool:
    return 0 < labels.sum() < len(labels)


@given(column=columns())
@settings(max_examples=60, deadline=None)
def test_auc_is_scikit_learns_and_counts_pairs(column: tuple[NDArray[np.int8], NDArray[np.float64]]) -> None:
    labels, scores = column
    if not two_classes(labels):
        assert math.isnan(exact_auc(labels, scores))
        return
    pairs = [(p > n) + (p == n) / 2 for p in scores[labels == 1] for n in scores[labels == 0]]
    assert exact_auc(labels, scores) == pytest.approx(np.mean(pairs), rel=1e-14)
    assert exact_auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), rel=1e-12)


@given(column=columns())
@settings(max_examples=60, deadline=None)
def test_figures_of_logits_are_scikit_learns(column: tuple[NDArray[np.int8], NDArray[np.float64]]) -> None:
    labels, logits = column
    found = metrics_of_logits(labels, logits)
    # The two large terms first: they may cancel, and the small one would lose its digits in their sum.
    losses = [(max(z, 0) - y * z) + math.log1p(math.exp(-abs(z))) for y, z in zip(labels, logits, strict=True)]
    expected = np.mean(losses)
    assert found.log_loss_nats == pytest.approx(expected, rel=1e-12, abs=ERROR_PER_VALUE)
    assert found.num_rows == len(labels)
    assert found.label_rate == pytest.approx(labels.mean())
    if np.abs(logits).max() < 12:  # a probability near 1 has lost digits
        probabilities = 1 / (1 + np.exp(-logits))
        assert found.log_loss_nats == pytest.approx(log_loss(labels, probabilities, labels=[0, 1]), rel=1e-9)
        if labels.any():
            assert found.calibration == pytest.approx(probabilities.mean() / labels.mean(), rel=1e-12)
    if two_classes(labels):
        entropy = log_loss(labels, np.full(len(labels), labels.mean()))
        assert found.ne == pytest.approx(found.log_loss_nats / entropy, rel=1e-9)


@given(column=columns())
@settings(max_examples=40, deadline=None)
def test_figures_of_probabilities_are_scikit_learns(column: tuple[NDArray[np.int8], NDArray[np.float64]]) -> None:
    labels, logits = column
    probabilities = 1 / (1 + np.exp(-logits))  # saturates at 1.0 for the largest
    found = metrics_of_probabilities(labels, probabilities)
    assert found.log_loss_nats == pytest.approx(log_loss(labels, probabilities, labels=[0, 1]), rel=1e-9, abs=1e-15)
    if two_classes(labels):
        assert found.auc == pytest.approx(roc_auc_score(labels, probabilities), rel=1e-12)


def test_float32_columns_are_summed_in_float64() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(-3, 2, 200_000).astype(np.float32)
    labels = (random.random(200_000) < 1 / (1 + np.exp(-logits))).astype(np.int8)
    wide = logits.astype(np.float64)
    narrow, exact = metrics_of_logits(labels, logits), metrics_of_logits(labels, wide)
    assert narrow == exact
    assert exact.auc == pytest.approx(roc_auc_score(labels, wide), rel=1e-12)
    as_written = (1 / (1 + np.exp(-wide))).astype(np.float32)
    assert metrics_of_probabilities(labels, as_written) == metrics_of_probabilities(labels, as_written.astype(float))
    assert metrics_of_probabilities(labels, as_written).log_loss_nats == pytest.approx(exact.log_loss_nats, rel=1e-6)


def test_a_logit_that_saturates_costs_what_it_costs() -> None:
    found = metrics_of_logits(np.array([0, 1]), np.array([800.0, 800.0], np.float32))
    assert found.log_loss_nats == 400.0
    clipped = metrics_of_probabilities(np.array([0, 1]), np.array([1.0, 1.0], np.float32))
    assert clipped.log_loss_nats == pytest.approx(26 * math.log(2))


def test_log_losses_of_rows_are_finite_and_average_to_the_figure() -> None:
    labels = np.array([0, 1, 1, 0])
    probabilities = np.array([0.2, 0.9, 0.0, 1.0])
    losses = log_losses(labels, probabilities)
    clipped = -math.log(2.0**-52)
    assert losses.tolist() == pytest.approx([-math.log(0.8), -math.log(0.9), clipped, clipped], rel=1e-12)
    assert losses.mean() == pytest.approx(metrics_of_probabilities(labels, probabilities).log_loss_nats, abs=1e-12)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_leaves_figures_undefined(label: int) -> None:
    found = metrics_of_logits(np.full(4, label), np.zeros(4))
    assert math.isnan(found.auc) and math.isnan(found.ne)
    assert found.log_loss_nats == pytest.approx(math.log(2))
    assert math.isnan(found.calibration) == (label == 0)
    plain = found.as_json()
    assert plain["auc"] is None and plain["ne"] is None
    json.dumps(plain, allow_nan=False)


def test_no_rows_leave_every_figure_undefined() -> None:
    found = metrics_of_logits(np.empty(0, np.int8), np.empty(0, np.float32))
    assert found.num_rows == 0
    assert all(value is None for key, value in found.as_json().items() if key != "num_rows")


def test_all_ties_are_worth_a_half() -> None:
    assert exact_auc(np.array([0, 1, 1, 0, 0]), np.zeros(5)) == 0.5
    assert exact_auc(np.array([0, 1]), np.array([0.0, 1.0])) == 1.0
    assert exact_auc(np.array([1, 0]), np.array([0.0, 1.0])) == 0.0


def test_entropy() -> None:
    assert entropy_nats(0.5) == pytest.approx(math.log(2))
    assert entropy_nats(0.0) == entropy_nats(1.0) == 0.0
    assert entropy_nats(0.1) == pytest.approx(-0.1 * math.log(0.1) - 0.9 * math.log(0.9))
