"""Stacking: logistic regression on the members' logits (Wolpert 1992; Breiman 1996), with an L2 penalty.

The penalty, strength / 2 times the sum of the squared weights beside the mean log loss, leaves the intercept alone;
scikit-learn's C is 1 / (strength N). Which strength: that with the least log loss on rows held out, among those of
`STRENGTHS`.

Legend: N rows, M members.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.analysis.merge_fitting.fit_rows import FitRows
from trainer.analysis.merge_fitting.logistic_loss import LogisticLoss, mean_loss
from trainer.analysis.merge_fitting.row_folds import deal_folds

STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
CHOICE_ROWS = 500_000  # evenly spaced ones, which are enough to choose one number
_CHOICE_FOLDS = 3


@dataclass(frozen=True, kw_only=True)
class Stacking:
    """Weights, intercept, and the strength that they were fitted with."""

    weights: NDArray[np.float64]  # [M]
    intercept: float
    strength: float


def fit_stacking(rows: FitRows, *, strength: float | None = None) -> Stacking:
    """Fits weights and intercept; without a strength, chooses one.

    Raises:
        DataError: one class of labels alone, in a fold, too.
    """
    rows.refuse_one_class()
    chosen = choose_strength(rows) if strength is None else strength
    found = LogisticLoss(rows.logits, rows.labels, intercept=True, ridge=chosen).minimum()
    return Stacking(weights=found[:-1], intercept=float(found[-1]), strength=chosen)


def choose_strength(rows: FitRows) -> float:
    """The strength with the least log loss over folds of blocks of rows, each judged by a fit on the others."""
    few = rows.at_most(CHOICE_ROWS)
    fold_N = deal_folds(few.num_rows, folds=_CHOICE_FOLDS)
    losses = np.zeros(len(STRENGTHS))
    for fold in range(_CHOICE_FOLDS):
        seen, asked = few.where(fold_N != fold), few.where(fold_N == fold)
        seen.refuse_one_class()
        for index, strength in enumerate(STRENGTHS):
            fitted = fit_stacking(seen, strength=strength)
            logits = asked.logits.astype(np.float64) @ fitted.weights + fitted.intercept
            losses[index] += mean_loss(asked.labels, logits) * asked.num_rows
    return STRENGTHS[int(np.argmin(losses))]
