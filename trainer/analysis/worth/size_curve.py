"""The curve of a figure over the number of merged members, a fit to it, and what the fit says beyond.

The fit is L(k) = a + b / k^c by least squares on the mean over the subsets of each size k = 1 ... M. For the squared
error of a mean the form is exact with c = 1 (the variance of a mean); for the log loss of ensembles power laws in k
were found by Lobacheva et al. (NeurIPS 2020, arXiv 2007.08483). For each c, a and b are a linear fit; c is searched on
a grid. Two or three sizes fix no exponent: there c is 1.

How good the fit is proves little. The mean over the subsets of one fixed set of members has near a + b / k form by
arithmetic (the variance of a mean of draws without replacement is so exactly), whatever those members are. How far a
fit hinges on which members there are is told by the jackknife: the fits that each leave one member out (Quenouille
1956; Tukey 1958), with Student's t for as many members.

Legend: M members, k of them, S subsets, b blocks, B replicates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from trainer.analysis.worth.subsets import SubsetPlan

LEAST_SIZES = 3  # of a curve that is shown; fits without one member have one less
EXPONENTS = np.geomspace(0.25, 4.0, 401)


@dataclass(frozen=True, kw_only=True)
class SizePoint:
    """A figure over the subsets of one size."""

    size: int
    num_subsets: int
    is_whole: bool  # all subsets of that size, not a sample
    mean: float
    spread: float  # standard deviation over subsets
    lowest: float
    highest: float
    best: tuple[int, ...]  # the subset with the best figure on these very rows
    best_value: float


@dataclass(frozen=True, kw_only=True)
class CurveFit:
    """L(k) = limit + scale / k^exponent."""

    limit: float
    scale: float
    exponent: float
    residual: float  # root mean square over the sizes

    def at(self, size: float) -> float:
        """The fitted figure of that many members."""
        return self.limit + self.scale / size**self.exponent

    @property
    def is_at_edge(self) -> bool:
        """Whether the exponent sits at an end of what was searched, so that the limit means little."""
        return self.exponent <= EXPONENTS[0] * 1.001 or self.exponent >= EXPONENTS[-1] / 1.001


def size_points(plan: SubsetPlan, values: NDArray[np.float64], *, best: Callable[[NDArray], int]) -> list[SizePoint]:
    """Mean, spread and best subset of each size.

    Args:
        plan: The subsets.
        values: Their figures, [S].
        best: np.argmin or np.argmax.
    """
    points = []
    for size, draws in enumerate(plan.draws, start=1):
        of_size = values[list(draws)]
        chosen = draws[int(best(of_size))]
        points.append(
            SizePoint(
                size=size,
                num_subsets=len(set(draws)),
                is_whole=plan.whole_sizes[size - 1],
                mean=float(of_size.mean()),
                spread=float(of_size.std()),
                lowest=float(of_size.min()),
                highest=float(of_size.max()),
                best=plan.subsets[chosen],
                best_value=float(values[chosen]),
            )
        )
    return points


def mean_shares(plan: SubsetPlan, *, without: int | None = None) -> NDArray[np.float64]:
    """The map [S, k] from subsets to the mean of each size; without a member: over subsets that lack it, k < M.

    A size of which every drawn subset has that member ends the map before it.
    """
    columns = []
    for draws in plan.draws[: plan.num_members - (without is not None)]:
        kept = [place for place in draws if without is None or without not in plan.subsets[place]]
        if not kept:
            break
        column = np.zeros(len(plan.subsets))
        np.add.at(column, kept, 1.0 / len(kept))
        columns.append(column)
    return np.stack(columns, axis=1) if columns else np.zeros((len(plan.subsets), 0))


def jackknife_half_width(without_one: Sequence[float], *, confidence: float = 0.95) -> float:
    """Half-width of the interval of a figure over members, from its values without one of the M members at a time."""
    count = len(without_one)
    spread = np.asarray(without_one) - np.mean(without_one)
    error = math.sqrt((count - 1) / count * float(spread @ spread))
    return float(student.ppf((1.0 + confidence) / 2.0, count - 1)) * error


def fit_curve(means: NDArray[np.float64], *, sizes: Sequence[int] | None = None) -> CurveFit:
    """The fit to the means of sizes 1 ... K, or of the sizes given, [K].

    Raises:
        ValueError: fewer than two sizes.
    """
    limit, scale, exponent, residual = (float(value[0]) for value in fit_curves(means[None], sizes=sizes))
    return CurveFit(limit=limit, scale=scale, exponent=exponent, residual=residual)


def fit_curves(
    means: NDArray[np.float64], *, sizes: Sequence[int] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Fits each row of means [B, K], of sizes 1 ... K or those given: limits, scales, exponents, residuals, [B] each.

    Raises:
        ValueError: fewer than two sizes.
    """
    num_sizes = means.shape[1]
    if num_sizes < LEAST_SIZES - 1:
        raise ValueError(f"{num_sizes} sizes; a fit needs {LEAST_SIZES - 1}")
    exponents = EXPONENTS if num_sizes > LEAST_SIZES else np.ones(1)
    sizes_K = np.asarray(range(1, num_sizes + 1) if sizes is None else sizes, dtype=np.float64)
    centre = means.mean(axis=1, keepdims=True)
    found = np.full((4, len(means)), np.nan)  # a row that holds NaN keeps that
    found[3] = np.inf
    for exponent in exponents:
        falls = sizes_K**-exponent
        deviations = falls - falls.mean()
        scales = (means - centre) @ deviations / (deviations @ deviations)
        errors = np.sqrt(np.mean((means - centre - np.outer(scales, deviations)) ** 2, axis=1))
        better = errors < found[3]
        limits = centre[:, 0] - scales * falls.mean()
        fitted = np.stack([limits, scales, np.full(len(means), exponent), errors])
        found[:, better] = fitted[:, better]
    limits, scales, chosen, errors = found
    return limits, scales, chosen, errors
