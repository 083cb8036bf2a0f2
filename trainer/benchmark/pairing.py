"""Paired differences between two predictions of the same rows, with the errors over rows and over groups.

Rows and groups cross: all groups are judged on the same rows. So the error over rows is that of the rows' differences
averaged over groups (DeLong's for AUC, a mean's for log loss), which more groups do not take away. To it comes the
variance between groups over their number. The sum counts twice what other rows would do to the differences between
groups, and errs to the safe side. Few groups tell their variance badly, so the interval is Student's, with
Satterthwaite's degrees of freedom (Biometrics Bulletin 1946). Windows are taken as they are, not as draws: the mean is
that of these.

Legend: N judged rows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from configs.benchmark_schema import Window
from trainer.analysis.intervals import AucComponents, Estimate, auc_components, mean_estimate
from trainer.analysis.merge_fitting.logistic_loss import logit_losses
from trainer.benchmark.columns import Results, WindowRows

METRICS = ("auc", "log_loss_nats")
_SAME_CUT = 1e-6  # of all rows: shares that should meet may miss each other by rounding


@dataclass(frozen=True, kw_only=True)
class PairedEstimate(Estimate):
    """A paired difference whose error is that over rows and that over groups together."""

    degrees: float | None = None
    """Of freedom of the error; None: enough for the normal interval, as where there is but one group."""

    def half_width(self, *, confidence: float = 0.95) -> float:
        """Half the width of the two-sided interval, Student's."""
        if self.degrees is None:
            return super().half_width(confidence=confidence)
        return float(student.ppf((1.0 + confidence) / 2.0, self.degrees)) * self.standard_error


@dataclass(frozen=True, kw_only=True)
class RowShares:
    """What each row has in a prediction's AUC and log loss, for several differences without sorting it again."""

    auc: AucComponents
    losses_N: NDArray[np.float64]

    @staticmethod
    def of(labels_N: NDArray[np.integer], predictions: Sequence[NDArray[np.floating]]) -> RowShares:
        """Of logits [N]; of several predictions, the mean: as of one of them taken at random."""
        labels = labels_N.astype(np.int64)
        return RowShares.mean(
            [
                RowShares(auc=auc_components(labels, wide), losses_N=logit_losses(labels.astype(np.float64), wide))
                for wide in (logits_N.astype(np.float64) for logits_N in predictions)
            ]
        )

    @staticmethod
    def mean(several: Sequence[RowShares]) -> RowShares:
        """Row by row."""
        if len(several) == 1:
            return several[0]
        return RowShares(
            auc=AucComponents(
                of_positives=np.mean([one.auc.of_positives for one in several], axis=0),
                of_negatives=np.mean([one.auc.of_negatives for one in several], axis=0),
            ),
            losses_N=np.mean([one.losses_N for one in several], axis=0),
        )

    def __sub__(self, other: RowShares) -> RowShares:
        return RowShares(auc=self.auc - other.auc, losses_N=self.losses_N - other.losses_N)

    def estimates(self) -> dict[str, Estimate]:
        """The means over rows, with their errors."""
        return {"auc": self.auc.estimate(), "log_loss_nats": mean_estimate(self.losses_N)}


def paired(
    results: Results,
    first: Callable[[int, str], RowShares | NDArray[np.floating]],
    second: Callable[[int, str], RowShares | NDArray[np.floating]],
    *,
    groups: Sequence[int] | None = None,
) -> dict[str, PairedEstimate]:
    """First minus second on the same rows: `auc` and `log_loss_nats`, with the error over rows and over groups.

    Args:
        results: For the labels and windows.
        first: Group and window -> logits [N], or their shares.
        second: Likewise; it may be the same for all groups, as a baseline's.
        groups: Which; None: all of the benchmark.
    """
    numbers = groups or tuple(range(1, results.benchmark.groups + 1))
    of_windows: list[dict[str, Estimate]] = []
    of_groups: dict[str, list[list[float]]] = {metric: [] for metric in METRICS}  # window by window
    for window, rows in results.rows.items():
        differences = [_shares(rows, first(group, window)) - _shares(rows, second(group, window)) for group in numbers]
        of_windows.append(RowShares.mean(differences).estimates())
        for metric in METRICS:
            of_groups[metric].append([one.estimates()[metric].value for one in differences])
    apart = _apart(list(results.benchmark.data.windows.values()))
    return {
        metric: _with_groups(
            [one[metric] for one in of_windows], np.mean(of_groups[metric], axis=0), windows_apart=apart
        )
        for metric in METRICS
    }


def _shares(rows: WindowRows, given: RowShares | NDArray[np.floating]) -> RowShares:
    return given if isinstance(given, RowShares) else RowShares.of(rows.labels_N, [given])


def _with_groups(windows: Sequence[Estimate], groups: NDArray[np.float64], *, windows_apart: bool) -> PairedEstimate:
    errors = [one.standard_error for one in windows]
    # Errors of the same rows may all go one way.
    total = math.sqrt(sum(error**2 for error in errors)) if windows_apart else sum(errors)
    over_rows = (total / len(errors)) ** 2
    between = float(np.var(groups, ddof=1)) / len(groups) if len(groups) > 1 else 0.0
    variance = over_rows + between
    degrees = (len(groups) - 1) * (variance / between) ** 2 if between > 0 else None
    return PairedEstimate(value=float(np.mean(groups)), standard_error=math.sqrt(variance), degrees=degrees)


def _apart(windows: Sequence[Window]) -> bool:
    """Whether no row is judged in two windows, as far as the cuts tell."""
    return not any(_overlap(one, other) for one, other in itertools.combinations(windows, 2))


def _overlap(window: Window, other: Window) -> bool:
    if not window.split and not other.split:
        return bool(set(window.test) & set(other.test))
    if not window.split or not other.split:
        return True
    return any(
        min(stop, other_stop) - max(start, other_start) > _SAME_CUT
        for start, stop in _judged(window)
        for other_start, other_stop in _judged(other)
    )


def _judged(window: Window) -> list[tuple[float, float]]:
    """The judged rows, as shares of all rows."""
    stops = dict(zip(window.split, itertools.accumulate(window.split.values()), strict=True))
    return [(stops[part] - window.split[part], stops[part]) for part in window.test]
