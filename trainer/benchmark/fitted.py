"""Fitted merges: all columns of a strategy merged by rules whose weights are fitted, beside their mean logit.

A rule is fitted on the rows that the window sets aside for that, and judged on the judged rows. Where there are none,
it is cross-fitted on the judged rows: they are cut into blocks, and each fold is merged by what was fitted on the
others. docs/merging.md has the rules.

Legend: N judged rows, T rows that merges are fitted on, M columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trainer.analysis.intervals import Estimate
from trainer.analysis.merge_fitting.cross_fitting import cross_fitted
from trainer.analysis.merge_fitting.fit_rows import FitRows, merged_logits
from trainer.analysis.merge_fitting.greedy_selection import GreedySettings
from trainer.analysis.merge_fitting.rule_fitting import FitSettings, fit_rule
from trainer.benchmark.columns import Column, Results, WindowRows
from trainer.benchmark.pairing import PairedEstimate, paired
from trainer.benchmark.points import Figures, figures
from trainer.row_progress import RowProgress

MEAN = "mean_logit"
FOLDS = 5  # of cross-fitting, as of tools/merge_predictions.py compare
Scope = Literal["group", "all groups"]
_RULES = (MEAN, "greedy", "weights", "stacking")


@dataclass(frozen=True, kw_only=True)
class FittedMerge:
    """All columns of a strategy merged by one rule."""

    strategy: str
    rule: str
    columns: int
    """How many are merged."""

    scope: Scope
    """group: each group's columns; all groups: those of all at once."""

    figures: tuple[Figures, ...]
    """Of each group, means over windows; of all groups at once, one."""

    difference: dict[str, Estimate]
    """`auc` and `log_loss_nats` minus those of the same columns' mean logit. Of all groups at once, over rows alone."""

    weights: dict[str, float]
    """Member -> the sum of its columns' weights, mean over groups and windows; `mean_logit` has equal ones. Of what is
    cross-fitted, those of a fit on all judged rows."""


@dataclass(frozen=True, kw_only=True)
class _Merged:
    """What a rule made of some columns of a window."""

    logits_N: NDArray[np.float64]
    weights: dict[str, float]


_OfPlaces = Mapping[tuple[int, str], _Merged]  # place of the set of groups, and window


def fitted_merges(results: Results) -> list[FittedMerge]:
    """The merges of every strategy of the benchmark's `fitted`: in each group and, where there are several, of all.

    A scope with a single column has nothing to merge and is left out.

    Raises:
        DataError: too few rows to fit on, or one class of labels alone.
        ChorusError: a fit does not end.
    """
    groups = tuple(range(1, results.benchmark.groups + 1))
    found = []
    for strategy in results.benchmark.fitted:
        found += _merges(results, strategy, scope="group", sets=[(group,) for group in groups])
        if len(groups) > 1:
            found += _merges(results, strategy, scope="all groups", sets=[groups])
    return found


def _merges(results: Results, strategy: str, *, scope: Scope, sets: Sequence[Sequence[int]]) -> list[FittedMerge]:
    """Of sets of groups, the columns of each merged."""
    columns = {
        (place, window): _columns(results, strategy, groups=groups, window=window)
        for place, groups in enumerate(sets)
        for window in results.rows
    }
    num_columns = len(columns[0, next(iter(results.rows))])
    if num_columns < 2:
        return []
    num_rows = sum(len(rows.labels_N) for rows in results.rows.values())
    progress = RowProgress(f"fitting merges of {strategy}, {scope}", len(_RULES) * len(sets) * num_rows)
    found: list[FittedMerge] = []
    mean: dict[tuple[int, str], _Merged] = {}
    for rule in _RULES:
        merged = {}
        for (place, window), several in columns.items():
            merged[place, window] = _merged(results.rows[window], several, rule=rule)
            progress.add(len(results.rows[window].labels_N))
        mean = mean or merged  # the first rule
        found.append(
            FittedMerge(
                strategy=strategy,
                rule=rule,
                columns=num_columns,
                scope=scope,
                figures=tuple(_figures(results, merged, place=place) for place in range(len(sets))),
                difference=dict(_difference(results, merged, mean, num_sets=len(sets))),
                weights=_mean_weights([one.weights for one in merged.values()]),
            )
        )
    return found


def _columns(results: Results, strategy: str, *, groups: Sequence[int], window: str) -> list[Column]:
    given = results.benchmark.strategies[strategy]
    return [
        column for group in groups for column in results.of(given.pools, group=group, window=window, only=given.members)
    ]


def _merged(rows: WindowRows, columns: Sequence[Column], *, rule: str) -> _Merged:
    # With fewer joins than columns greedy selection could not even come to their mean.
    settings = FitSettings(greedy=GreedySettings(rounds=max(GreedySettings().rounds, 2 * len(columns))))
    judged = _fit_rows(columns, rows.labels_N, [column.logits_N for column in columns])
    if len(rows.tune_labels_T):
        tune = _fit_rows(columns, rows.tune_labels_T, [column.tune_logits_T for column in columns])
        fitted = fit_rule(rule, tune, settings).rule
        logits_N = merged_logits(fitted, judged.logits)
    else:
        logits_N = cross_fitted(rule, ["none"], judged, folds=FOLDS, settings=settings)["none"]
        fitted = fit_rule(rule, judged, settings).rule
    weights: dict[str, float] = {}
    for column, weight in zip(columns, fitted.weights or [1 / len(columns)] * len(columns), strict=True):
        weights[column.member] = weights.get(column.member, 0.0) + weight
    return _Merged(logits_N=logits_N, weights=weights)


def _fit_rows(columns: Sequence[Column], labels: NDArray[np.int8], logits: Sequence[NDArray[np.float32]]) -> FitRows:
    return FitRows(
        members=tuple(f"{one.pool}/{one.member} {one.replicate} of group {one.group}" for one in columns),
        labels=labels,
        logits=np.asfortranarray(np.stack(logits, axis=1)),
        num_rows_total=len(labels),
    )


def _figures(results: Results, merged: _OfPlaces, *, place: int) -> Figures:
    return Figures.mean(
        [figures(rows.labels_N, merged[place, window].logits_N) for window, rows in results.rows.items()]
    )


def _difference(results: Results, merged: _OfPlaces, mean: _OfPlaces, *, num_sets: int) -> dict[str, PairedEstimate]:
    return paired(
        results,
        lambda place, window: merged[place, window].logits_N,
        lambda place, window: mean[place, window].logits_N,
        groups=range(num_sets),
    )


def _mean_weights(several: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {member: float(np.mean([one[member] for one in several])) for member in several[0]}
