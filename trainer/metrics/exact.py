"""Exact figures of one prediction column: AUC with ties, log loss, normalised entropy, calibration.

Definitions: log loss is the mean of -ln(probability of the label), in nats. Normalised entropy is
log loss over the entropy of the label rate (He et al., ADKDD 2014). Calibration is the sum of
probabilities over the sum of labels. AUC is P(score of a random positive > that of a random
negative) + P(equal) / 2. Figures that the labels do not define (one class only) are NaN.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

_SMALLEST_PROBABILITY = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, kw_only=True)
class BinaryMetrics:
    """Figures of one prediction column."""

    num_rows: int
    label_rate: float
    auc: float
    log_loss_nats: float
    ne: float
    calibration: float

    def as_json(self) -> dict[str, float | int | None]:
        """Plain values; None where a figure is not defined."""
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(self).items()
        }


def entropy_nats(rate: float) -> float:
    """Entropy of a coin with that rate; 0 at rates 0 and 1."""
    return -sum(p * math.log(p) for p in (rate, 1.0 - rate) if p > 0.0)


def from_sums(*, num_rows: int, label_sum: float, loss_sum: float, probability_sum: float, auc: float) -> BinaryMetrics:
    """Figures from additive sums."""
    rate = label_sum / num_rows if num_rows else math.nan
    loss = loss_sum / num_rows if num_rows else math.nan
    entropy = entropy_nats(rate) if num_rows else 0.0
    return BinaryMetrics(
        num_rows=num_rows,
        label_rate=rate,
        auc=auc,
        log_loss_nats=loss,
        ne=loss / entropy if entropy else math.nan,
        calibration=probability_sum / label_sum if label_sum else math.nan,
    )


def exact_auc(labels: NDArray[np.integer], scores: NDArray[np.floating]) -> float:
    """Area under the ROC curve; ties count half. Integer arithmetic until the last division.

    Args:
        labels: 0 or 1, [n].
        scores: [n], higher for more likely positives.
    """
    order = np.argsort(scores, kind="stable")
    sorted_scores, positive = scores[order], labels[order].astype(np.int64)
    last_of_tie = np.flatnonzero(np.append(sorted_scores[1:] != sorted_scores[:-1], True)) if len(order) else order
    positives = np.diff(np.cumsum(positive)[last_of_tie], prepend=0)
    negatives = np.diff(last_of_tie + 1, prepend=0) - positives
    num_positives, num_negatives = int(positives.sum()), int(negatives.sum())
    if not num_positives or not num_negatives:
        return math.nan
    negatives_below = np.cumsum(negatives) - negatives
    twice_wins = int((positives * (2 * negatives_below + negatives)).sum())
    return twice_wins / (2 * num_positives * num_negatives)


def metrics_of_logits(labels: NDArray[np.integer], logits: NDArray[np.floating]) -> BinaryMetrics:
    """Exact figures of a logit column, in float64; the log loss does not saturate."""
    logits = logits.astype(np.float64)
    losses = np.logaddexp(0.0, logits) - labels * logits
    probabilities = np.exp(-np.logaddexp(0.0, -logits))
    return from_sums(
        num_rows=len(labels),
        label_sum=float(labels.sum()),
        loss_sum=float(losses.sum()),
        probability_sum=float(probabilities.sum()),
        auc=exact_auc(labels, logits),
    )


def log_losses(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log loss of each row, [N], in nats; probabilities are kept 2^-52 away from 0 and 1."""
    wide = np.clip(probabilities.astype(np.float64), _SMALLEST_PROBABILITY, 1.0 - _SMALLEST_PROBABILITY)
    return -np.where(labels == 1, np.log(wide), np.log1p(-wide))


def metrics_of_probabilities(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> BinaryMetrics:
    """Exact figures of a probability column, in float64; log losses as in `log_losses`."""
    wide = probabilities.astype(np.float64)
    losses = log_losses(labels, wide)
    return from_sums(
        num_rows=len(labels),
        label_sum=float(labels.sum()),
        loss_sum=float(losses.sum()),
        probability_sum=float(wide.sum()),
        auc=exact_auc(labels, wide),
    )
