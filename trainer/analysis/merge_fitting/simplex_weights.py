"""Weights on the simplex: those of the logits' weighted mean with the least log loss, and a proof of how near they are.

Log loss is convex in the weights, so there is one least value. Each step minimises the quadratic model over the
simplex, exactly, and goes as far that way as pays (Newton's method under constraints). It stops by the Frank-Wolfe gap

    g(w) = f'(w) . w - min over m of f'(w)_m  >=  f(w) - min f

(Jaggi, ICML 2013, equation 2): a bound, whatever the way to w.

Legend: M members.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from configs.errors import ChorusError
from trainer.analysis.merge_fitting.fit_rows import FitRows
from trainer.analysis.merge_fitting.logistic_loss import LogisticLoss

GAP_NATS = 1e-9
_MOST_STEPS = 100
_DAMPING = 1e-9  # of the Hessian's mean diagonal: members that are equal leave it singular


@dataclass(frozen=True, kw_only=True)
class SimplexWeights:
    """The weights, and by how much at most their log loss is above the least one."""

    weights: NDArray[np.float64]  # [M], not negative, adding up to 1
    log_loss_nats: float
    gap_nats: float


def fit_simplex_weights(rows: FitRows, *, gap_nats: float = GAP_NATS) -> SimplexWeights:
    """The best weights, from equal ones; members with equal logits keep about equal weights.

    Raises:
        DataError: one class of labels alone.
        ChorusError: the gap does not come down to `gap_nats`.
    """
    rows.refuse_one_class()
    loss = LogisticLoss(rows.logits, rows.labels)
    num_members = len(rows.members)
    weights = np.full(num_members, 1.0 / num_members)
    here = loss.at(weights)
    gap = np.inf
    for _ in range(_MOST_STEPS):
        gap = max(float(here.gradient @ weights - here.gradient.min()), 0.0)
        if gap <= gap_nats:
            return SimplexWeights(weights=weights, log_loss_nats=here.value, gap_nats=gap)
        added = _DAMPING * max(float(np.trace(here.hessian)) / num_members, np.finfo(float).tiny)
        target = least_on_simplex(here.hessian + added * np.eye(num_members), here.gradient, weights)
        step = target - weights
        moved = loss.descend(here, weights, step, promised=-float(here.gradient @ step))
        if moved is None:
            break
        # Rounding leaves the sum a few units of the last place from 1.
        weights = np.maximum(moved[0], 0.0)
        weights /= weights.sum()
        here = moved[1]
    raise ChorusError(
        f"rule weights: the fit stopped up to {gap:.2g} nats above the best, not {gap_nats:.2g}; the logits are too"
        " extreme, take another rule"
    )


def least_on_simplex(
    hessian: NDArray[np.float64], gradient: NDArray[np.float64], at: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Where on the simplex gradient . (w - at) + (w - at)' hessian (w - at) / 2 is least, [M].

    With hessian = R'R this is the point of least norm in the hull of R's columns moved by q, and that is a
    non-negative least squares problem with one more row of ones (Lawson & Hanson 1974, chapter 23).
    """
    scale = float(np.trace(hessian)) / len(hessian)
    # On the simplex the sum of the weights does not change, so neither the curvature nor the slope along it matters:
    # they are chosen such that the matrix is as little singular as the other directions make it.
    root = np.linalg.cholesky(hessian / scale + 1.0 / len(at)).T
    slope = gradient - gradient @ at
    centre = root @ at - np.linalg.solve(root.T, slope / scale)
    hull = root - centre[:, None]
    size = float(np.abs(hull).max()) or 1.0
    found = nnls(np.vstack([hull / size, np.ones(len(at))]), np.append(np.zeros(len(at)), 1.0))[0]
    return found / found.sum()
