"""How members differ: correlation, disagreement, and the part of the merged loss that differing takes away.

Ambiguity, for the squared error of the mean probability (Krogh & Vedelsby, NeurIPS 1995), row by row:
    (mean_i p_i - y)^2 = mean_i (p_i - y)^2 - mean_i (p_i - mean_j p_j)^2
and for the log loss of the mean logit z = mean_i z_i, q = sigmoid(z) (logarithmic opinion pools: Heskes, NeurIPS 1997):
    loss(z, y) = mean_i loss(z_i, y) - mean_i KL(q || p_i)
where mean_i KL(q || p_i) = mean_i softplus(z_i) - softplus(z), the Jensen gap of softplus: the label drops out, since
log loss is softplus(z) minus y z. Both ambiguities are zero or more, so either merge is never worse than its members'
mean; a member's own term says how far it stands from the merge.

Legend: N rows, M members.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.analysis.worth.study_rows import StudyRows
from trainer.metrics.exact import LogitFigures


@dataclass(frozen=True, kw_only=True)
class Diversity:
    """How members differ, over all rows of a study."""

    logit_correlation: NDArray[np.float64]  # [M, M], Pearson; NaN where a member's logits never change
    residual_correlation: NDArray[np.float64]  # [M, M], Pearson, of label minus probability
    disagreement: NDArray[np.float64]  # [M, M], mean |p_i - p_j|
    mean_probability: float  # of all members
    log_loss: Ambiguity  # of the mean logit, nats
    squared_error: Ambiguity  # of the mean probability


@dataclass(frozen=True, kw_only=True)
class Ambiguity:
    """merged = mean of the members - ambiguity."""

    merged: float
    members: NDArray[np.float64]  # [M], each member's own loss
    distances: NDArray[np.float64]  # [M], each member's from the merge; their mean is the ambiguity

    @property
    def members_mean(self) -> float:
        """The mean of the members' losses."""
        return float(self.members.mean())

    @property
    def ambiguity(self) -> float:
        """What differing takes away."""
        return float(self.distances.mean())


class _Sums:
    """Sums over rows, stretch by stretch."""

    def __init__(self, num_members: int) -> None:
        self.logits = _Moments(num_members)
        self.residuals = _Moments(num_members)
        self.apart = np.zeros((num_members, num_members))
        self.probability = 0.0
        self.merged = np.zeros(2)
        self.members = np.zeros((2, num_members))
        self.distances = np.zeros((2, num_members))

    def add(self, logits_nM: NDArray[np.float64], labels_n: NDArray[np.int8]) -> None:
        """Adds rows."""
        of_members = LogitFigures.of(labels_n[:, None], logits_nM)
        chances = of_members.probability
        self.logits.add(logits_nM)
        self.residuals.add(labels_n[:, None] - chances)
        self.probability += float(chances.sum())
        for member in range(logits_nM.shape[1] - 1):
            gaps = np.abs(chances[:, member + 1 :] - chances[:, [member]]).sum(axis=0)
            self.apart[member, member + 1 :] += gaps
            self.apart[member + 1 :, member] += gaps
        merged, mean = logits_nM.mean(axis=1), chances.mean(axis=1)
        self.merged[0] += LogitFigures.of(labels_n, merged).log_loss_nats.sum()
        self.members[0] += of_members.log_loss_nats.sum(axis=0)
        self.distances[0] += _kullback_leibler(merged, logits_nM).sum(axis=0)
        self.merged[1] += ((mean - labels_n) ** 2).sum()
        self.members[1] += ((chances - labels_n[:, None]) ** 2).sum(axis=0)
        self.distances[1] += ((chances - mean[:, None]) ** 2).sum(axis=0)


class _Moments:
    """First and second moments, about the first stretch's means, so that nothing large cancels."""

    def __init__(self, num_columns: int) -> None:
        self._about: NDArray[np.float64] | None = None
        self._num_rows, self._first, self._second = 0, np.zeros(num_columns), np.zeros((num_columns, num_columns))

    def add(self, values: NDArray[np.float64]) -> None:
        """Adds rows [n, M]."""
        if self._about is None:
            self._about = values.mean(axis=0)
        centred = values - self._about
        self._num_rows += len(values)
        self._first += centred.sum(axis=0)
        self._second += centred.T @ centred

    def correlation(self) -> NDArray[np.float64]:
        """Pearson's, [M, M]."""
        means = self._first / self._num_rows
        covariance = self._second / self._num_rows - np.outer(means, means)
        spread = np.sqrt(np.diag(covariance))
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.clip(covariance / np.outer(spread, spread), -1.0, 1.0)
        np.fill_diagonal(found, np.where(spread > 0, 1.0, np.nan))
        return found


def diversity(rows: StudyRows) -> Diversity:
    """Takes all figures in one pass."""
    num_members = len(rows.members)
    sums = _Sums(num_members)
    for stretch, _ in rows.stretches():
        sums.add(rows.logits[stretch].astype(np.float64), rows.labels[stretch])
    log_loss, squared = (
        Ambiguity(
            merged=float(sums.merged[kind]) / rows.num_rows,
            members=sums.members[kind] / rows.num_rows,
            distances=sums.distances[kind] / rows.num_rows,
        )
        for kind in (0, 1)
    )
    return Diversity(
        logit_correlation=sums.logits.correlation(),
        residual_correlation=sums.residuals.correlation(),
        disagreement=sums.apart / rows.num_rows,
        mean_probability=sums.probability / (rows.num_rows * num_members),
        log_loss=log_loss,
        squared_error=squared,
    )


def _kullback_leibler(merged_n: NDArray[np.float64], logits_nM: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL(q || p_i) of each row and member, in nats, from log probabilities."""
    chance = np.exp(-np.logaddexp(0.0, -merged_n))[:, None]
    of_one = np.logaddexp(0.0, -logits_nM) - np.logaddexp(0.0, -merged_n)[:, None]  # ln q - ln p_i
    of_zero = np.logaddexp(0.0, logits_nM) - np.logaddexp(0.0, merged_n)[:, None]
    return chance * of_one + (1.0 - chance) * of_zero
