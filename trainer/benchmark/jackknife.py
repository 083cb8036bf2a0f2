"""Jackknife: how far a figure of units that share data would move, from what it is without each unit in turn.

Source: Quenouille (Biometrika 1956), Tukey (Annals of Mathematical Statistics 1958). A figure over pairs or subsets of
units counts each unit many times, so pairs and subsets are no independent draws, but the units are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student

from trainer.analysis.intervals import Interval


def jackknifed(value: float, without: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """A figure with Student's interval.

    Args:
        value: Of all units.
        without: The same figure without each of the units; of fewer than two, the interval's ends are NaN.
        confidence: Of the interval.
    """
    count = len(without)
    if count < 2:
        return Interval(value=value, low=math.nan, high=math.nan)
    error = math.sqrt((count - 1) * float(np.var(without)))
    half = float(student.ppf((1.0 + confidence) / 2.0, count - 1)) * error
    return Interval(value=value, low=value - half, high=value + half)
