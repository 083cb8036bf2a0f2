"""Comparisons: the merge that a benchmark is about against single members, merges of one kind and baselines, in pairs.

Where several of a kind compare, as the trainings of a member in a group, AUC and log loss are of one of them taken at
random: the mean of the differences.

Legend: N judged rows.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trainer.analysis.intervals import Estimate
from trainer.benchmark.columns import Column, Results
from trainer.benchmark.pairing import RowShares, paired
from trainer.benchmark.points import merged_logits, sizes, subsets
from trainer.metrics.exact import exact_auc

Predictions = Callable[[int, str], RowShares]
"""Group and window -> what each judged row has in the figures."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One prediction minus another on the same rows."""

    what: str
    against: str
    auc: Estimate
    log_loss_nats: Estimate


@dataclass(frozen=True, kw_only=True)
class _Contender:
    """A way to a prediction: each of these merges, taken at random."""

    name: str
    merges: Callable[[int, str], Sequence[Sequence[Column]]]  # group and window -> the columns of each
    rule: str = "mean_logit"

    def shares(self, results: Results) -> Predictions:
        """What each row has in the figures."""

        def of(group: int, window: str) -> RowShares:
            logits = [
                merged_logits([column.logits_N for column in merge], rule=self.rule)
                for merge in self.merges(group, window)
            ]
            return RowShares.of(results.rows[window].labels_N, logits)

        return of

    def auc(self, results: Results, *, tuning: bool) -> float:
        """The mean over groups, windows and merges, on the rows that merges are fitted on, or on the judged rows."""
        found = []
        for window, rows in results.rows.items():
            for group in range(1, results.benchmark.groups + 1):
                for merge in self.merges(group, window):
                    logits = [column.tune_logits_T if tuning else column.logits_N for column in merge]
                    labels = rows.tune_labels_T if tuning else rows.labels_N
                    found.append(exact_auc(labels.astype(np.int64), merged_logits(logits, rule=self.rule)))
        return float(np.mean(found))


def comparisons(results: Results, *, baselines: Mapping[str, Mapping[str, NDArray[np.float64]]]) -> list[Comparison]:
    """The headline strategy at its largest size minus everything else; the best single member minus the baselines.

    Single members are those of the headline's and the single strategy's pools. The best of them, and the best merge of
    one kind's trainings, where strategies are such, is the one of the largest mean AUC over groups and windows on the
    rows that merges are fitted on; where a window has none, on the judged rows, which favours it. Its name says which.

    Args:
        results: All columns.
        baselines: Name -> window -> logits [N].
    """
    singles, headline = _singles(results), _of_strategy(results, results.benchmark.headline)
    single = _best(results, singles, what="best single member")
    of_one_kind = [_of_strategy(results, name) for name in _of_one_kind(results)]
    best = [single, *([_best(results, of_one_kind, what="best merge of one kind")] if of_one_kind else [])]
    fitted: dict[str, Predictions] = {name: _of_baseline(results, logits) for name, logits in baselines.items()}
    first = functools.cache(headline.shares(results))
    others = {one.name: functools.cache(one.shares(results)) for one in best} | fitted
    others |= {one.name: one.shares(results) for one in singles}
    found = _against(results, headline.name, first, others)
    return found + _against(results, single.name, others[single.name], fitted)


def _against(results: Results, what: str, first: Predictions, others: Mapping[str, Predictions]) -> list[Comparison]:
    return [Comparison(what=what, against=name, **paired(results, first, second)) for name, second in others.items()]


def _of_baseline(results: Results, logits: Mapping[str, NDArray[np.float64]]) -> Predictions:
    """The same in all groups."""
    of_windows = {window: RowShares.of(rows.labels_N, [logits[window]]) for window, rows in results.rows.items()}
    return lambda _group, window: of_windows[window]


def _singles(results: Results) -> list[_Contender]:
    given = results.benchmark
    places: dict[tuple[str, str], None] = {}
    for strategy in (given.strategies[given.headline], given.strategies[given.single]):
        for window in results.rows:
            columns = results.of(strategy.pools, group=1, window=window, only=strategy.members)
            places |= dict.fromkeys((column.pool, column.member) for column in columns)
    pools = Counter(member for _, member in places)

    def of(pool: str, member: str) -> _Contender:
        return _Contender(
            name=member if pools[member] == 1 else f"{pool}/{member}",
            merges=lambda group, window: [
                [column] for column in results.of([pool], group=group, window=window, only=[member])
            ],
        )

    return [of(pool, member) for pool, member in places]


def _of_strategy(results: Results, name: str) -> _Contender:
    """A strategy at its largest size."""
    strategy = results.benchmark.strategies[name]
    size = max(sizes(results, strategy))

    def merges(group: int, window: str) -> Sequence[Sequence[Column]]:
        columns = results.of(strategy.pools, group=group, window=window, only=strategy.members)
        return subsets(columns, size=size, distinct=strategy.subsets == "distinct")

    title = f"{strategy.title}, K = {size}" if strategy.sizes else strategy.title
    return _Contender(name=title, merges=merges, rule=strategy.rule)


def _of_one_kind(results: Results) -> list[str]:
    """Strategies that merge separate trainings of one member."""
    found = []
    for name, strategy in results.benchmark.strategies.items():
        pools = [results.benchmark.pools[pool] for pool in strategy.pools]
        apart = all(pool.jobs == "each" and pool.checkpoints == 1 and pool.average is None for pool in pools)
        window = next(iter(results.rows))
        columns = results.of(strategy.pools, group=1, window=window, only=strategy.members)
        of_one = len({column.member for column in columns}) == 1
        if apart and of_one and max(sizes(results, strategy)) > 1 and name != results.benchmark.headline:
            found.append(name)
    return found


def _best(results: Results, contenders: Sequence[_Contender], *, what: str) -> _Contender:
    tuning = all(len(rows.tune_labels_T) for rows in results.rows.values())
    best = max(contenders, key=lambda one: one.auc(results, tuning=tuning))
    where = "the rows that merges are fitted on" if tuning else "the judged rows"
    return replace(best, name=f"{what} ({best.name}, by its AUC on {where})")
