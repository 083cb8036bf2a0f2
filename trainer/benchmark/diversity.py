"""Diversity: which measure of how the columns of a subset differ goes along with what merging them gains.

In log loss, the mean logit gains over the mean of its members exactly the ambiguity, as
trainer/analysis/worth/diversity.py has it: that correlation is 1 by definition, and marked `by_identity`. The gain over
the best member, and both gains in AUC, follow from no measure. The best member is the best on the judged rows
themselves, so gains over it are on the low side.

Correlations are of ranks, over the subsets of one size, as size itself drives measures and gains alike; within a group
and a window, as each has a level of its own; then averaged. Intervals leave out one member at a time
(rank_agreement.py): they tell how far other members, and other trainings, would move a correlation; not how far other
rows would, since all subsets are judged on the same.

Legend: N judged rows, M columns of a group and window, K columns of a subset, S subsets, U members left out in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from configs.benchmark_schema import Strategy
from trainer.analysis.intervals import Interval
from trainer.analysis.worth.diversity import Diversity, diversity
from trainer.analysis.worth.study_rows import StudyRows
from trainer.benchmark.columns import Column, Results
from trainer.benchmark.points import merged_logits, sizes, subsets
from trainer.benchmark.rank_agreement import FEWEST_SUBSETS, Cell, RankAgreement
from trainer.metrics.exact import LogitFigures, exact_auc

MEASURES: Mapping[str, str] = {
    "logit_correlation": "mean correlation of two members' logits",
    "residual_correlation": "mean correlation of two members' label minus probability",
    "disagreement": "mean |p_i - p_j| of two members",
    "log_loss_ambiguity": "mean divergence of a member from the mean logit, in nats",
    "squared_error_ambiguity": "mean squared distance of a member from the mean probability",
    "log_loss_spread": "standard deviation of the members' own log losses",
    "auc_spread": "standard deviation of the members' own AUCs",
    "mean_log_loss": "mean of the members' own log losses",
    "mean_auc": "mean of the members' own AUCs",
}
GAINS: Mapping[str, str] = {
    "auc_over_mean": "AUC above the mean of the members",
    "auc_over_best": "AUC above the best member",
    "log_loss_over_mean": "log loss below the mean of the members, in nats",
    "log_loss_over_best": "log loss below the best member, in nats",
}
POOLED = "pooled"
_IDENTITY = ("log_loss_ambiguity", "log_loss_over_mean")
MOST_SUBSETS = 96  # more than a point of a curve takes: intervals that leave members out need them
_BLOCK_ROWS = 4_096

Key: TypeAlias = tuple[str, str, int]  # a column's pool, member and replicate


@dataclass(frozen=True, kw_only=True)
class MeasuredSubset:
    """Columns that were merged: how they differ, and what that gained."""

    strategy: str
    group: int
    window: str
    columns: tuple[Key, ...]
    measures: Mapping[str, float]
    gains: Mapping[str, float]
    """Above zero: the merge is better."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How a measure goes along with a gain."""

    measure: str
    gain: str
    correlation: Interval
    """Spearman's; its ends are NaN where too few subsets are left without one of the members."""

    by_identity: bool
    """Whether the two are one number by definition."""


@dataclass(frozen=True, kw_only=True)
class DiversityStudy:
    """A strategy at one size: the rows of a table, and the points of a scatter."""

    strategy: str
    """Or `POOLED`: the subsets of all strategies of that size."""

    size: int | None
    """None: the mean of the correlations at all sizes that have intervals."""

    num_subsets: int
    """Of a group and window, those of all sizes in the mean counted."""

    rows: tuple[Agreement, ...]
    """Every measure with every gain."""

    points: tuple[MeasuredSubset, ...]

    def of(self, gain: str) -> list[Agreement]:
        """The measures that are not the gain itself, the strongest correlation first; those without a value last."""
        found = [row for row in self.rows if row.gain == gain and not row.by_identity]
        return sorted(found, key=lambda row: -float(np.nan_to_num(abs(row.correlation.value), nan=-1.0)))

    def as_json(self) -> dict[str, Any]:
        """Everything but the points, for programs."""
        return {
            "strategy": self.strategy,
            "size": self.size,
            "num_subsets": self.num_subsets,
            "rows": [
                {
                    "measure": row.measure,
                    "gain": row.gain,
                    "correlation": [row.correlation.value, row.correlation.low, row.correlation.high],
                    "by_identity": row.by_identity,
                }
                for row in self.rows
            ],
        }


def diversity_study(results: Results, *, say: Callable[[str], None] = lambda _: None) -> list[DiversityStudy]:
    """Every strategy of `benchmark.diversity` at every size of two or more, then the mean of its sizes.

    A size with fewer than `FEWEST_SUBSETS` is left out: so few have no rank correlation to speak of. Where there are
    several strategies, `POOLED` at the end has, of each size that several of them have, all their subsets together.
    """
    wanted = {name: results.benchmark.strategies[name] for name in results.benchmark.diversity}
    if not wanted:
        return []
    measured: dict[tuple[str, int], list[list[MeasuredSubset]]] = {}
    for group in range(1, results.benchmark.groups + 1):
        for window in results.rows:
            say(f"diversity: group {group} of {results.benchmark.groups}, window {window}")
            columns = _Columns.of(results, strategies=list(wanted.values()), group=group, window=window)
            for name, strategy in wanted.items():
                for size in sizes(results, strategy):
                    found = columns.measured(results, name, size=size) if size > 1 else []
                    if len(found) >= FEWEST_SUBSETS:
                        measured.setdefault((name, size), []).append(found)
    studies = []
    for name, strategy in wanted.items():
        of_sizes = {size: cells for (of, size), cells in measured.items() if of == name}
        studies += _studies(name, of_sizes, identity=strategy.rule == "mean_logit")
    if len(wanted) > 1:
        identity = all(strategy.rule == "mean_logit" for strategy in wanted.values())
        studies += _studies(POOLED, _pooled(measured), identity=identity)
    return studies


def _pooled(measured: Mapping[tuple[str, int], list[list[MeasuredSubset]]]) -> dict[int, list[list[MeasuredSubset]]]:
    found = {}
    for size in dict.fromkeys(size for _, size in measured):
        several = [cells for (_, of), cells in measured.items() if of == size]
        if len(several) > 1:
            found[size] = [[subset for cell in cells for subset in cell] for cells in zip(*several, strict=True)]
    return found


def _studies(
    strategy: str, of_sizes: Mapping[int, list[list[MeasuredSubset]]], *, identity: bool
) -> list[DiversityStudy]:
    units = _Units([subset for cells in of_sizes.values() for cell in cells for subset in cell])
    agreements = {size: RankAgreement.of([units.cell(cell) for cell in cells]) for size, cells in of_sizes.items()}
    whole = [size for size, one in agreements.items() if one.without_UPQ is not None]
    made: list[tuple[int | None, list[int], RankAgreement]] = [(size, [size], agreements[size]) for size in agreements]
    if len(whole) > 1:
        made.append((None, whole, RankAgreement.mean([agreements[size] for size in whole])))
    return [
        DiversityStudy(
            strategy=strategy,
            size=size,
            num_subsets=sum(len(of_sizes[of][0]) for of in there),
            rows=_rows(agreement, identity=identity),
            points=tuple(subset for of in there for cell in of_sizes[of] for subset in cell),
        )
        for size, there, agreement in made
    ]


def _rows(agreement: RankAgreement, *, identity: bool) -> tuple[Agreement, ...]:
    return tuple(
        Agreement(
            measure=measure,
            gain=gain,
            correlation=agreement.interval(row, column),
            by_identity=identity and (measure, gain) == _IDENTITY,
        )
        for row, measure in enumerate(MEASURES)
        for column, gain in enumerate(GAINS)
    )


class _Units:
    """What is left out in turn: members, with all their trainings; or trainings, where all are of one member."""

    def __init__(self, found: Sequence[MeasuredSubset]) -> None:
        self._of_members = len({member for subset in found for _, member, _ in subset.columns}) > 1
        self._names = sorted({name for subset in found for name in self._held(subset)})

    def _held(self, subset: MeasuredSubset) -> set[str]:
        return {member if self._of_members else f"{pool} {replicate}" for pool, member, replicate in subset.columns}

    def cell(self, found: Sequence[MeasuredSubset]) -> Cell:
        held = [self._held(subset) for subset in found]
        return Cell(
            measures_SP=np.array([list(subset.measures.values()) for subset in found]),
            gains_SQ=np.array([list(subset.gains.values()) for subset in found]),
            holds_SU=np.array([[name in names for name in self._names] for names in held]),
        )


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """The columns of a group and window, and what each two of them have in common."""

    group: int
    window: str
    labels_N: NDArray[np.int8]
    places: Mapping[Key, int]
    differences: Diversity
    squared_gap_MM: NDArray[np.float64]  # mean (p_i - p_j)^2
    auc_M: NDArray[np.float64]

    @staticmethod
    def of(results: Results, *, strategies: Sequence[Strategy], group: int, window: str) -> _Columns:
        pools = list(dict.fromkeys(pool for strategy in strategies for pool in strategy.pools))
        columns = results.of(pools, group=group, window=window)
        labels_N = results.rows[window].labels_N
        rows = _study_rows(labels_N, columns)
        chances_NM = LogitFigures.of(labels_N[:, None], rows.logits).probability
        products_MM = chances_NM.T @ chances_NM / len(labels_N)
        squares_M = np.diag(products_MM)
        return _Columns(
            group=group,
            window=window,
            labels_N=labels_N,
            places={_key(column): place for place, column in enumerate(columns)},
            differences=diversity(rows),
            squared_gap_MM=squares_M[:, None] + squares_M[None, :] - 2.0 * products_MM,
            auc_M=np.array([exact_auc(labels_N, column.logits_N) for column in columns]),
        )

    def measured(self, results: Results, name: str, *, size: int) -> list[MeasuredSubset]:
        """All subsets of a strategy at a size."""
        strategy = results.benchmark.strategies[name]
        columns = results.of(strategy.pools, group=self.group, window=self.window, only=strategy.members)
        chosen = subsets(columns, size=size, distinct=strategy.subsets == "distinct", most=MOST_SUBSETS)
        return [self._subset(name, subset, rule=strategy.rule) for subset in chosen]

    def _subset(self, name: str, columns: Sequence[Column], *, rule: str) -> MeasuredSubset:
        keys = tuple(_key(column) for column in columns)
        places = np.array([self.places[key] for key in keys])
        logits = [column.logits_N for column in columns]
        merged_N = merged_logits(logits, rule=rule)
        loss = self._log_loss(merged_N)
        of_mean_logit = loss if rule == "mean_logit" else self._log_loss(merged_logits(logits))
        own_losses, own_aucs = self.differences.log_loss.members[places], self.auc_M[places]
        auc = exact_auc(self.labels_N, merged_N)
        pairs = np.ix_(places, places)
        return MeasuredSubset(
            strategy=name,
            group=self.group,
            window=self.window,
            columns=keys,
            measures={
                "logit_correlation": _over_pairs(self.differences.logit_correlation[pairs]),
                "residual_correlation": _over_pairs(self.differences.residual_correlation[pairs]),
                "disagreement": _over_pairs(self.differences.disagreement[pairs]),
                "log_loss_ambiguity": float(own_losses.mean()) - of_mean_logit,
                # mean_i (p_i - mean p)^2 is half the mean over all ordered pairs, i = j among them.
                "squared_error_ambiguity": float(self.squared_gap_MM[pairs].mean()) / 2.0,
                "log_loss_spread": float(own_losses.std()),
                "auc_spread": float(own_aucs.std()),
                "mean_log_loss": float(own_losses.mean()),
                "mean_auc": float(own_aucs.mean()),
            },
            gains={
                "auc_over_mean": auc - float(own_aucs.mean()),
                "auc_over_best": auc - float(own_aucs.max()),
                "log_loss_over_mean": float(own_losses.mean()) - loss,
                "log_loss_over_best": float(own_losses.min()) - loss,
            },
        )

    def _log_loss(self, logits_N: NDArray[np.float64]) -> float:
        return float(LogitFigures.of(self.labels_N, logits_N).log_loss_nats.mean())


def _key(column: Column) -> Key:
    return column.pool, column.member, column.replicate


def _over_pairs(values_KK: NDArray[np.float64]) -> float:
    return float(values_KK[np.triu_indices(len(values_KK), k=1)].mean())


def _study_rows(labels_N: NDArray[np.int8], columns: Sequence[Column]) -> StudyRows:
    logits_NM = np.stack([column.logits_N for column in columns], axis=1)
    return StudyRows(
        members=tuple(f"{column.pool} {column.member} {column.replicate}" for column in columns),
        parts=(),
        labels=labels_N,
        logits=logits_NM,
        merged_logits=logits_NM.mean(axis=1),
        part=np.zeros(len(labels_N), dtype=np.int32),
        columns={},
        block_starts=np.arange(0, len(labels_N), _BLOCK_ROWS),
        num_rows_total=len(labels_N),
    )
