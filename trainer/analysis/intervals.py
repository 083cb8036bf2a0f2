"""Intervals of AUC, log loss and their differences between two predictions of the same rows.

AUC: DeLong, DeLong & Clarke-Pearson (Biometrics 1988), computed from midranks as by Sun & Xu (IEEE
Signal Processing Letters 2014): O(n log n). Log loss: the normal interval of the mean over rows of
the paired difference. Both hold the predictions fixed and take the rows as independent draws: they
tell how far other rows would move the figure, not how far another training would.

Legend: N rows, P of them positive, Q negative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from trainer.metrics.exact import log_losses


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure and how far other rows would move it."""

    value: float
    standard_error: float

    def half_width(self, *, confidence: float = 0.95) -> float:
        """Half the width of the two-sided normal interval."""
        return NormalDist().inv_cdf((1.0 + confidence) / 2.0) * self.standard_error

    def is_clear(self, *, confidence: float = 0.95) -> bool:
        """Whether 0 is outside the two-sided normal interval."""
        return abs(self.value) > self.half_width(confidence=confidence)

    def interval(self, *, confidence: float = 0.95) -> Interval:
        """The two-sided normal interval."""
        half = self.half_width(confidence=confidence)
        return Interval(value=self.value, low=self.value - half, high=self.value + half)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure between two bounds, which need not be equally far from it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class AucComponents:
    """DeLong's structural components: each row's share of the AUC."""

    of_positives: NDArray[np.float64]  # [P] share of negatives below this positive; ties count half
    of_negatives: NDArray[np.float64]  # [Q] share of positives above this negative; ties count half

    def __sub__(self, other: AucComponents) -> AucComponents:
        return AucComponents(
            of_positives=self.of_positives - other.of_positives, of_negatives=self.of_negatives - other.of_negatives
        )

    def estimate(self) -> Estimate:
        """The mean over pairs, and the variance as the sum of the two samples' variances of a mean."""
        parts = (self.of_positives, self.of_negatives)
        variance = sum(float(part.var(ddof=1)) / len(part) for part in parts)
        return Estimate(value=float(self.of_positives.mean()), standard_error=math.sqrt(variance))


def auc_estimate(labels: NDArray[np.integer], scores: NDArray[np.floating]) -> Estimate:
    """AUC of one score column.

    Args:
        labels: 0 or 1, [N].
        scores: [N], higher for more likely positives.

    Raises:
        ValueError: lengths differ, a score is not finite, or there are fewer than two rows of a class.
    """
    return auc_components(labels, scores).estimate()


def auc_difference(
    labels: NDArray[np.integer], scores: NDArray[np.floating], other_scores: NDArray[np.floating]
) -> Estimate:
    """AUC of `scores` minus AUC of `other_scores` on the same rows, paired.

    Raises:
        ValueError: as `auc_estimate`.
    """
    return (auc_components(labels, scores) - auc_components(labels, other_scores)).estimate()


def mean_estimate(values: NDArray[np.floating]) -> Estimate:
    """The mean of independent rows; for a paired difference, give the rows' differences.

    Raises:
        ValueError: fewer than two rows.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} rows; an interval needs two")
    wide = values.astype(np.float64)
    return Estimate(value=float(wide.mean()), standard_error=float(wide.std(ddof=1)) / math.sqrt(len(wide)))


def log_loss_difference(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating], other_probabilities: NDArray[np.floating]
) -> Estimate:
    """Mean log loss of `probabilities` minus that of `other_probabilities` on the same rows, paired, in nats."""
    return mean_estimate(log_losses(labels, probabilities) - log_losses(labels, other_probabilities))


def auc_components(labels: NDArray[np.integer], scores: NDArray[np.floating]) -> AucComponents:
    """The components of one score column, for several paired differences without sorting it again.

    Raises:
        ValueError: as `auc_estimate`.
    """
    if labels.shape != scores.shape or labels.ndim != 1:
        raise ValueError(f"labels {labels.shape} and scores {scores.shape}; two columns of one length are needed")
    if not np.isfinite(scores).all():
        raise ValueError("a score is not finite, so it has no rank")
    positive = labels == 1
    num_positives, num_negatives = int(positive.sum()), int((~positive).sum())
    if min(num_positives, num_negatives) < 2:
        raise ValueError(f"{num_positives} positives and {num_negatives} negatives; an interval needs two of each")
    ranks = _midranks(scores)
    return AucComponents(
        of_positives=(ranks[positive] - _midranks(scores[positive])) / num_negatives,
        of_negatives=1.0 - (ranks[~positive] - _midranks(scores[~positive])) / num_positives,
    )


def _midranks(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Ranks from 1; equal scores share the mean of their ranks."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2.0)[place]
