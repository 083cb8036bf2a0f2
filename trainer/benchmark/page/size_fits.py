"""Size fits: L(k) = a + b / k^c through the figures of a strategy at its sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.analysis.worth.size_curve import CurveFit, fit_curve
from trainer.benchmark.page.markdown import plain, table
from trainer.benchmark.report import Report

LEAST_SIZES = 4  # three numbers are fitted
_FARTHEST = 0.5  # past the last size, as a share of the change from the first size to it
_LARGEST_ERROR = 0.05  # likewise
METRICS = ("auc", "log_loss_nats")


@dataclass(frozen=True, kw_only=True)
class SizeFit:
    """One strategy's fit of one figure."""

    strategy: str
    metric: str
    sizes: tuple[int, ...]
    curve: CurveFit

    @property
    def tells_limit(self) -> bool:
        """Whether its limit may be said: it lies near past the last size, and the fit near the means."""
        first, last = (self.curve.at(self.sizes[place]) for place in (0, -1))
        change = abs(last - first)
        is_near = abs(self.curve.limit - last) <= _FARTHEST * change and self.curve.residual <= _LARGEST_ERROR * change
        return is_near and not self.curve.is_at_edge


def size_fits(report: Report) -> list[SizeFit]:
    """The fits of all strategies with enough sizes."""
    found = []
    for strategy in report.benchmark.strategies:
        points = report.of(strategy)
        if len(points) < LEAST_SIZES:
            continue
        sizes = tuple(point.size for point in points)
        for metric in METRICS:
            means = np.array([point.interval(metric).value for point in points])
            found.append(SizeFit(strategy=strategy, metric=metric, sizes=sizes, curve=fit_curve(means, sizes=sizes)))
    return found


def fits_table(report: Report, fits: list[SizeFit]) -> str:
    """The fits, and what each says of sizes without end; empty without fits."""
    if not fits:
        return ""
    rows = [
        [
            report.benchmark.strategies[fit.strategy].title,
            "AUC" if fit.metric == "auc" else "log loss",
            f"{fit.sizes[0]} to {fit.sizes[-1]}",
            plain(fit.curve.limit, 5) if fit.tells_limit else "not told",
            plain(fit.curve.scale, 5, signed=True),
            plain(fit.curve.exponent, 2),
            f"{fit.curve.residual:.1e}",
        ]
        for fit in fits
    ]
    head = ["strategy", "figure", "sizes", "limit a", "b", "c", "residual"]
    note = (
        "Fits of L(k) = a + b / k^c to the means, by least squares; a is where the fit goes as k grows without end,"
        " the residual its root mean square error. The subsets of different sizes share their columns, so that a small"
        " residual proves little; read a as what merging more of the same could still give. Not told: its distance"
        f" from the last size is over {_FARTHEST:.0%} of the change up to there, or the residual over"
        f" {_LARGEST_ERROR:.0%} of it, or the exponent sits at an end of what is searched."
    )
    return f"{table(head, rows, words=2)}\n{note}\n"
