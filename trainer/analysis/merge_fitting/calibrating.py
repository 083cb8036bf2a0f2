"""Fitting calibrations of a merged logit: temperature, Platt, isotonic.

Legend: N rows, K knots.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from configs.errors import ChorusError
from modules.calibration import Calibration, Isotonic, Platt, Temperature
from trainer.analysis.merge_fitting.logistic_loss import LogisticLoss

CalibrationKind = Literal["none", "temperature", "platt", "isotonic"]
CALIBRATION_KINDS: tuple[CalibrationKind, ...] = get_args(CalibrationKind)
_LEAST_SCALE = 1e-6


def fit_calibration(
    kind: CalibrationKind, logits: NDArray[np.float64], labels: NDArray[np.integer]
) -> Calibration | None:
    """Fits a calibration by least log loss; isotonic: by least squares, which comes to the same for rates.

    Args:
        kind: Which; none: None.
        logits: The merged logits, [N].
        labels: 0 or 1, [N].

    Raises:
        ChorusError: no temperature above zero is best, or the fit does not end.
    """
    if kind == "none":
        return None
    if kind == "isotonic":
        return fit_isotonic(logits, labels)
    found = LogisticLoss(logits[:, None], labels, intercept=kind == "platt").minimum()
    if kind == "platt":
        return Platt(scale=float(found[0]), shift=float(found[1]))
    if found[0] < _LEAST_SCALE:
        raise ChorusError(
            f"calibration temperature: the best factor of the logits is {found[0]:.3g}, so they order the rows no"
            " better than chance; look at the members first"
        )
    return Temperature(temperature=1.0 / float(found[0]))


def fit_isotonic(logits: NDArray[np.float64], labels: NDArray[np.integer]) -> Isotonic:
    """The rising curve nearest to the labels, by pool adjacent violators (Ayer et al. 1955).

    Equal logits are pooled first. So that no rate is 0 or 1, which one row of the other kind would punish without
    bound, one row with a click is added to those of the lowest logit and one without to those of the highest. Each pool
    gives a knot at both of its ends.
    """
    at, place = np.unique(logits, return_inverse=True)
    counts = np.bincount(place).astype(np.float64)
    clicks = np.bincount(place, weights=labels.astype(np.float64))
    counts[0], clicks[0] = counts[0] + 1.0, clicks[0] + 1.0
    counts[-1] += 1.0
    fitted = isotonic_regression(clicks / counts, weights=counts)
    first, last = fitted.blocks[:-1], fitted.blocks[1:] - 1
    knots = np.unique(np.concatenate([first, last]))
    # A pool's rate is clicks over rows; summed up again it does not carry the pooling's rounding.
    rates = np.add.reduceat(clicks, first) / np.add.reduceat(counts, first)
    rates = np.maximum.accumulate(rates)
    pool_of_knot = np.searchsorted(fitted.blocks, knots, side="right") - 1
    return Isotonic(logits=tuple(at[knots].tolist()), probabilities=tuple(rates[pool_of_knot].tolist()))
