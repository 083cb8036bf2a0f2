"""Exact figures of one prediction column: AUC with ties, log loss, normalised entropy, calibration and more.

Definitions: log loss is the mean of -ln(probability of the label), in nats. Normalised entropy is
log loss over the entropy of the label rate (He et al., ADKDD 2014). Calibration is the sum of
probabilities over the sum of labels. AUC is P(score of a random positive > that of a random
negative) + P(equal) / 2. Brier's score is the mean of (probability - label)^2. Average precision is
the mean over positives of the precision among the rows that score as high or higher. Figures that
the labels do not define (one class only) are NaN.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.metrics.exact_sum import ExactSum
from trainer.metrics.ranking import DEFAULT_MEMORY_BYTES, Ranking, rank

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
    brier: float = math.nan
    auprc: float = math.nan  # average precision

    def as_json(self) -> dict[str, float | int | None]:
        """Plain values; None where a figure is not defined."""
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(self).items()
        }


def entropy_nats(rate: float) -> float:
    """Entropy of a coin with that rate; 0 at rates 0 and 1."""
    return -sum(p * math.log(p) for p in (rate, 1.0 - rate) if p > 0.0)


def from_sums(
    *,
    num_rows: int,
    label_sum: float,
    loss_sum: float,
    probability_sum: float,
    auc: float,
    brier_sum: float = math.nan,
    auprc: float = math.nan,
) -> BinaryMetrics:
    """Figures from additive sums; those that are not given are NaN."""
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
        brier=brier_sum / num_rows if num_rows and not math.isnan(brier_sum) else math.nan,
        auprc=auprc,
    )


def exact_auc(labels: NDArray[np.integer], scores: NDArray[np.floating]) -> float:
    """Area under the ROC curve; ties count half. Integer arithmetic until the last division.

    Args:
        labels: 0 or 1, [n].
        scores: [n], higher for more likely positives.

    Raises:
        DataError: a score is NaN.
    """
    return ranking_of(labels, scores).auc


def metrics_of_logits(labels: NDArray[np.integer], logits: NDArray[np.floating]) -> BinaryMetrics:
    """Exact figures of a logit column, in float64, the same in any row order; the log loss does not saturate.

    Raises:
        DataError: a logit is NaN or infinite.
    """
    rows = LogitFigures.of(labels, logits)
    return _metrics(labels, logits, losses=rows.log_loss_nats, probabilities=rows.probability)


@dataclass(frozen=True, kw_only=True)
class LogitFigures:
    """What logits say of each row, float64 [n]."""

    log_loss_nats: NDArray[np.float64]
    probability: NDArray[np.float64]

    @staticmethod
    def of(labels: NDArray[np.integer], logits: NDArray[np.floating]) -> LogitFigures:
        """Of labels [n] and logits [n] of any size: nothing overflows, and small probabilities keep their digits."""
        wide = logits.astype(np.float64)
        small = np.exp(-np.abs(wide))
        above = np.maximum(wide, 0.0)
        return LogitFigures(
            log_loss_nats=above - labels * wide + np.log1p(small),
            probability=np.where(wide >= 0, 1.0, small) / (1.0 + small),
        )


def log_losses(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log loss of each row, [N], in nats; probabilities are kept 2^-52 away from 0 and 1."""
    wide = np.clip(probabilities.astype(np.float64), _SMALLEST_PROBABILITY, 1.0 - _SMALLEST_PROBABILITY)
    return -np.where(labels == 1, np.log(wide), np.log1p(-wide))


def metrics_of_probabilities(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> BinaryMetrics:
    """Exact figures of a probability column, in float64, the same in any row order; log losses as in `log_losses`.

    Raises:
        DataError: a probability is NaN or infinite.
    """
    wide = probabilities.astype(np.float64)
    return _metrics(labels, probabilities, losses=log_losses(labels, wide), probabilities=wide)


def _metrics(
    labels: NDArray[np.integer],
    scores: NDArray[np.floating],
    *,
    losses: NDArray[np.float64],
    probabilities: NDArray[np.float64],
) -> BinaryMetrics:
    ranking = ranking_of(labels, scores)
    return from_sums(
        num_rows=len(labels),
        label_sum=ranking.num_positives,
        loss_sum=ExactSum.of(losses).value,
        probability_sum=ExactSum.of(probabilities).value,
        brier_sum=ExactSum.of(np.square(probabilities - labels)).value,
        auc=ranking.auc,
        auprc=ranking.auprc,
    )


def ranking_of(labels: NDArray[np.integer], scores: NDArray[np.floating]) -> Ranking:
    """How scores [n] order labels [n] that are in memory.

    Raises:
        DataError: a score is NaN.
    """
    # In memory the columns are already: one sort, whatever it takes.
    memory_bytes = DEFAULT_MEMORY_BYTES + 16 * len(labels)
    return rank(lambda: iter([(labels, scores)]), num_rows=len(labels), memory_bytes=memory_bytes)
