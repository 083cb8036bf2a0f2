"""The mean log loss of a linear predictor, its derivatives, and its minimum by Newton's method.

Legend: N rows, P parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from configs.errors import ChorusError
from trainer.analysis.merge_fitting.fit_rows import CHUNK_ROWS

_MOST_STEPS = 200
_MOST_HALVINGS = 40
_SUFFICIENT = 1e-4  # share of the promised decrease that a step must bring (Armijo)
_ROUNDING = 1e-14  # of the loss: near the minimum its changes are lost in it, and the gradient still shows the way


@dataclass(frozen=True)
class LossAt:
    """Value and derivatives at one point."""

    value: float
    gradient: NDArray[np.float64]  # [P]
    hessian: NDArray[np.float64]  # [P, P]


class LogisticLoss:
    """f(w) = mean of ln(1 + e^z) - y z over the rows, plus ridge / 2 times the sum of squares, with z = X w.

    Sums are taken over chunks of rows, so that X is never there as float64; a last column of ones is the intercept,
    which the ridge leaves alone.

    Args:
        features: X, [N, P] or, with an intercept, [N, P - 1]; float32 or float64.
        labels: y, 0 or 1, [N].
        intercept: Whether there is one.
        ridge: Penalty of the weights.
    """

    def __init__(
        self,
        features: NDArray[np.floating],
        labels: NDArray[np.integer],
        *,
        intercept: bool = False,
        ridge: float = 0.0,
    ) -> None:
        self._features = features
        self._labels = labels
        self._intercept = intercept
        self.num_parameters = features.shape[1] + intercept
        self._ridge = np.full(self.num_parameters, ridge)
        if intercept:
            self._ridge[-1] = 0.0

    def at(self, point: NDArray[np.float64]) -> LossAt:
        """Value, gradient and Hessian at a point [P], in one pass over the rows."""
        value, size = 0.0, self.num_parameters
        gradient, hessian = np.zeros(size), np.zeros((size, size))
        for first in range(0, len(self._labels), CHUNK_ROWS):
            here = slice(first, first + CHUNK_ROWS)
            rows = np.ascontiguousarray(self._features[here], dtype=np.float64)
            if self._intercept:
                rows = np.hstack([rows, np.ones((len(rows), 1))])
            labels = self._labels[here].astype(np.float64)
            logits = rows @ point
            value += float(logit_losses(labels, logits).sum())
            gradient += rows.T @ (expit(logits) - labels)
            hessian += rows.T @ (rows * (expit(logits) * expit(-logits))[:, None])
        count = len(self._labels)
        return LossAt(
            value / count + float(self._ridge @ point**2) / 2.0,
            gradient / count + self._ridge * point,
            hessian / count + np.diag(self._ridge),
        )

    def minimum(self, *, tolerance: float = 1e-12) -> NDArray[np.float64]:
        """The minimum [P], from zero, by Newton's method with step halving (Boyd & Vandenberghe 2004, algorithm 9.5).

        It ends once half the squared Newton decrement, the decrease that the quadratic model still promises, is at
        most `tolerance` nats.

        Raises:
            ChorusError: it does not get there.
        """
        point = np.zeros(self.num_parameters)
        here = self.at(point)
        for _ in range(_MOST_STEPS):
            step = -np.asarray(np.linalg.lstsq(here.hessian, here.gradient, rcond=1e-14)[0], dtype=np.float64)
            promised = -float(here.gradient @ step)
            if promised / 2.0 <= tolerance:
                return point
            moved = self.descend(here, point, step, promised=promised)
            if moved is None:
                break
            point, here = moved
        raise ChorusError(
            f"the fit stopped where {promised / 2.0:.2g} nats were still promised; the logits are too extreme, leave"
            " out this rule or calibration"
        )

    def descend(
        self, here: LossAt, point: NDArray[np.float64], step: NDArray[np.float64], *, promised: float
    ) -> tuple[NDArray[np.float64], LossAt] | None:
        """The point after the longest of step, step / 2, step / 4 ... that brings its share; None: none does."""
        length, rounding = 1.0, _ROUNDING * (1.0 + abs(here.value))
        for _ in range(_MOST_HALVINGS):
            there = self.at(point + length * step)
            if there.value <= here.value - _SUFFICIENT * length * promised + rounding:
                return point + length * step, there
            length /= 2.0
        return None


def logit_losses(labels: NDArray[np.float64], logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log loss of each row [N], in nats, from logits of any size."""
    return np.maximum(logits, 0.0) - labels * logits + np.log1p(np.exp(-np.abs(logits)))


def mean_loss(labels: NDArray[np.integer], logits: NDArray[np.floating]) -> float:
    """Mean log loss in nats, chunk by chunk."""
    total = 0.0
    for first in range(0, len(labels), CHUNK_ROWS):
        here = slice(first, first + CHUNK_ROWS)
        wide = logits[here].astype(np.float64, copy=False)
        total += float(logit_losses(labels[here].astype(np.float64), wide).sum())
    return total / len(labels)
