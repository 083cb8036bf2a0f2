"""Point: one thing measured, on all ranks at once, and Fit: how well a few rates say again what points took."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

_GOOD_MEDIAN, _GOOD_WORST = 0.25, 1.5
_ROUNDS = 10  # each weighs by the one before it
_LEAST_SHARE = 0.01
_ALIKE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Point:
    """What was done, and how long each rank took for it."""

    what: str
    size: Mapping[str, float]  # name -> how much of it
    seconds: tuple[float, ...]  # by rank, each the median of its repeats

    @property
    def mean_seconds(self) -> float:
        """Of a rank."""
        return statistics.fmean(self.seconds)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def of_all_ranks(of_rank: Sequence[Sequence[Point]]) -> list[Point]:
    """The points of ranks that measured the same, each with the seconds of all of them; sizes are those of the mean."""
    merged = []
    for alike in zip(*of_rank, strict=True):
        size = {key: statistics.fmean(point.size[key] for point in alike) for key in alike[0].size}
        seconds = tuple(second for point in alike for second in point.seconds)
        merged.append(Point(what=alike[0].what, size=size, seconds=seconds))
    return merged


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How far fitted rates are from what was measured."""

    name: str
    num_points: int
    median_error: float  # |fitted / measured - 1|
    worst_error: float
    worst_point: str

    @property
    def is_good(self) -> bool:
        """Whether the rates say enough of this machine."""
        return self.median_error <= _GOOD_MEDIAN and self.worst_error <= _GOOD_WORST

    def sentence(self) -> str:
        """One line."""
        return (
            f"{self.name}: off by {self.median_error:.0%} in the median of {self.num_points} points,"
            f" {self.worst_error:.0%} at worst ({self.worst_point})"
        )


def fit_of(name: str, points: Sequence[Point], fitted: NDArray[np.float64], measured: NDArray[np.float64]) -> Fit:
    """How far `fitted` seconds are from `measured` ones, point for point."""
    errors = np.abs(fitted / measured - 1)
    worst = int(np.argmax(errors))
    size = ", ".join(f"{key} {value:,.6g}" for key, value in points[worst].size.items())
    return Fit(
        name=name,
        num_points=len(points),
        median_error=float(np.median(errors)),
        worst_error=float(errors[worst]),
        worst_point=f"{points[worst].what} {size}",
    )


def fit_seconds(name: str, points: Sequence[Point], columns: NDArray[np.float64]) -> tuple[NDArray[np.float64], Fit]:
    """Non-negative c with columns c ~ seconds, by least squares of ln(fitted / measured).

    So small points count like large ones, and half is as wrong as twice: least squares of the relative error would give
    the faster rates the more the points scatter.

    Args:
        name: What to call the fit.
        points: What was measured, [P].
        columns: How often each c counts in each point, [P, C].
    """
    measured = np.array([point.mean_seconds for point in points])
    scale = np.abs(columns).max(axis=0)
    scale[scale == 0] = 1.0
    weights = 1 / measured
    for _ in range(_ROUNDS):
        scaled, _ = nnls(columns / scale * weights[:, None], measured * weights)
        fitted = np.maximum(columns @ (scaled / scale), _LEAST_SHARE * measured)
        # With these, the weighted squares' slope is that of the squared logarithms.
        ratio = fitted / measured
        slopes = np.where(np.abs(ratio - 1) < _ALIKE, 1.0, np.log(ratio) / np.where(ratio == 1, 1.0, ratio - 1))
        weights = np.sqrt(slopes / (fitted * measured))
    found: NDArray[np.float64] = scaled / scale
    return found, fit_of(name, points, columns @ found, measured)


def rounded(value: float) -> float:
    """Four digits: no measurement of a busy machine has more."""
    return float(f"{value:.4g}")
