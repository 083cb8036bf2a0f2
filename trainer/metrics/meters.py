"""LogitMeter: additive figures of several prediction columns, for jobs that run.

States are sums, so ranks, steps and jobs add up in any order. AUC comes from a histogram over
logits: pairs of a positive and a negative in one bin are the only ones whose order is unknown, so
the exact AUC lies in [auc - auc_error, auc + auc_error]. Average precision is not kept: NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from trainer.metrics.exact import BinaryMetrics, from_sums

NUM_BINS = 1 << 17
LOGIT_LIMIT = 16.0
_LABEL, _LOSS, _PROBABILITY, _BRIER = range(4)


@dataclass(frozen=True, kw_only=True)
class MeteredColumn:
    """Figures of one column, and half the width of the bracket around its AUC."""

    metrics: BinaryMetrics
    auc_error: float


class LogitMeter:
    """Sums over rows of several logit columns.

    Args:
        columns: Their names.
        device: Where the sums are kept.
    """

    def __init__(self, columns: Sequence[str], *, device: torch.device) -> None:
        self.columns = tuple(columns)
        self._num_rows = torch.zeros(1, dtype=torch.int64, device=device)
        self._sums = torch.zeros(len(columns), 4, dtype=torch.float64, device=device)
        self._bins = torch.zeros(len(columns), 2, NUM_BINS, dtype=torch.int64, device=device)

    @torch.no_grad()
    def add(self, logits_BK: Tensor, labels_B: Tensor, mask_B: Tensor) -> None:
        """Adds the rows whose mask is not 0."""
        keep = mask_B > 0
        logits = logits_BK[keep].double()
        labels = labels_B[keep].double()
        self._num_rows += len(labels)
        self._sums[:, _LABEL] += labels.sum()
        self._sums[:, _LOSS] += (softplus(logits) - labels[:, None] * logits).sum(dim=0)
        probabilities = torch.sigmoid(logits)
        self._sums[:, _PROBABILITY] += probabilities.sum(dim=0)
        self._sums[:, _BRIER] += (probabilities - labels[:, None]).square().sum(dim=0)
        scaled = (logits / LOGIT_LIMIT + 1.0) * (NUM_BINS / 2)
        bins = scaled.nan_to_num(0.0).clamp(0, NUM_BINS - 1).long() + NUM_BINS * labels.long()[:, None]
        for column in range(len(self.columns)):
            counts = torch.bincount(bins[:, column], minlength=2 * NUM_BINS)
            self._bins[column] += counts.view(2, NUM_BINS)

    def reduce(self, sum_over_ranks: Callable[[Tensor], Tensor]) -> None:
        """Adds up all ranks' sums; a collective."""
        for state in (self._num_rows, self._sums, self._bins):
            state.copy_(sum_over_ranks(state.cpu()))

    def compute(self) -> dict[str, MeteredColumn]:
        """Figures by column name."""
        num_rows = int(self._num_rows)
        results = {}
        for column, name in enumerate(self.columns):
            sums = self._sums[column].tolist()
            auc, error = _bracketed_auc(self._bins[column])
            metrics = from_sums(
                num_rows=num_rows,
                label_sum=sums[_LABEL],
                loss_sum=sums[_LOSS],
                probability_sum=sums[_PROBABILITY],
                brier_sum=sums[_BRIER],
                auc=auc,
            )
            results[name] = MeteredColumn(metrics=metrics, auc_error=error)
        return results


def _bracketed_auc(counts_2K: Tensor) -> tuple[float, float]:
    negatives, positives = counts_2K.double()
    pairs = float(negatives.sum() * positives.sum())
    if pairs == 0:
        return math.nan, math.nan
    below = negatives.cumsum(0) - negatives
    sure = float((positives * below).sum())
    unknown = float((positives * negatives).sum())
    return (sure + unknown / 2) / pairs, unknown / 2 / pairs
