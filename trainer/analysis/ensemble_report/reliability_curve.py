"""The reliability curve: predicted beside observed rates, in bins of about equally many rows."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

NUM_BINS = 20


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Rows whose probabilities are next to each other."""

    num_rows: int
    predicted: float  # mean probability
    observed: float  # share of positives
    low: float  # Wilson interval of the observed share
    high: float


def reliability_curve(
    labels: NDArray[np.integer], probabilities: NDArray[np.float64], *, num_bins: int = NUM_BINS
) -> list[ReliabilityBin]:
    """Bins by ascending probability; equal probabilities share a bin, so there may be fewer bins than asked for."""
    edges = np.unique(np.quantile(probabilities, np.linspace(0, 1, num_bins + 1)[1:-1]))
    bins = np.searchsorted(edges, probabilities, side="right")
    rows = np.bincount(bins, minlength=len(edges) + 1)
    predicted = np.bincount(bins, weights=probabilities, minlength=len(rows))
    positives = np.bincount(bins, weights=labels, minlength=len(rows))
    found = []
    for num_rows, chances, num_positives in zip(rows.tolist(), predicted.tolist(), positives.tolist(), strict=True):
        if num_rows:
            low, high = wilson(num_positives, num_rows)
            found.append(
                ReliabilityBin(
                    num_rows=num_rows,
                    predicted=chances / num_rows,
                    observed=num_positives / num_rows,
                    low=low,
                    high=high,
                )
            )
    return found


def wilson(num_positives: float, num_rows: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Bounds of a share (Wilson, Journal of the American Statistical Association 1927)."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, extra = num_positives / num_rows, z * z / num_rows
    centre = (share + extra / 2) / (1 + extra)
    half = z * (share * (1 - share) / num_rows + extra / (4 * num_rows)) ** 0.5 / (1 + extra)
    return max(0.0, centre - half), min(1.0, centre + half)
