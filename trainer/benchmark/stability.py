"""Stability: how far a row's prediction moves when everything is trained anew, of single models and of merges.

Groups are the same trainings under other seeds. Each two of them are compared: the subset of a place in one with the
subset of that place in the other, of the same members. Pairs share groups, so intervals are a jackknife over groups
(jackknife.py), and need three of them.

Legend: N judged rows, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from configs.benchmark_schema import Strategy
from trainer.analysis.intervals import Interval
from trainer.benchmark.columns import Column, Results
from trainer.benchmark.jackknife import jackknifed
from trainer.benchmark.points import merged_logits, sizes, subsets
from trainer.metrics.exact import LogitFigures

MOVED = 0.05  # in probability, past which a row is said to have moved


@dataclass(frozen=True, kw_only=True)
class Stability:
    """A strategy at a size, trained anew; the mean over pairs of groups, subsets and windows."""

    strategy: str
    size: int
    num_pairs: int
    """Of groups."""

    mean_change: Interval
    """Mean |p - p'| of a row."""

    share_of_single: Interval
    """`mean_change` over that of the benchmark's single strategy at its first size."""

    share_of_members: Interval
    """`mean_change` over that of this strategy's own columns one by one."""

    moved_share: Interval
    """Share of rows whose probability changes by more than `MOVED`."""

    rank_change: Interval
    """1 - Spearman's correlation of a row's place in the two orders."""

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return asdict(self)


def stabilities(results: Results, *, say: Callable[[str], None] = lambda _: None) -> list[Stability]:
    """Every strategy at every size; of fewer than two groups nothing can be told, and the list is empty."""
    benchmark = results.benchmark
    if benchmark.groups < 2:
        return []
    single = benchmark.strategies[benchmark.single]
    of_single = _Changes.of(results, strategy=single, size=sizes(results, single)[0])
    found = []
    for place, (name, strategy) in enumerate(benchmark.strategies.items(), start=1):
        say(f"stability: {name}, {place} of {len(benchmark.strategies)} strategies")
        of_members = _Changes.of(results, strategy=strategy, size=1)
        for size in sizes(results, strategy):
            changes = of_members if size == 1 else _Changes.of(results, strategy=strategy, size=size)
            found.append(
                Stability(
                    strategy=name,
                    size=size,
                    num_pairs=math.comb(benchmark.groups, 2),
                    mean_change=_over_pairs(changes.mean_GG),
                    share_of_single=_over_pairs(changes.mean_GG, relative_to=of_single.mean_GG),
                    share_of_members=_over_pairs(changes.mean_GG, relative_to=of_members.mean_GG),
                    moved_share=_over_pairs(changes.moved_GG),
                    rank_change=_over_pairs(changes.rank_GG),
                )
            )
    return found


@dataclass(frozen=True, kw_only=True)
class _Changes:
    """Between each two groups, the mean over subsets and windows; above the diagonal."""

    mean_GG: NDArray[np.float64]
    moved_GG: NDArray[np.float64]
    rank_GG: NDArray[np.float64]

    @staticmethod
    def of(results: Results, *, strategy: Strategy, size: int) -> _Changes:
        groups = range(1, results.benchmark.groups + 1)
        found = []
        for window, rows in results.rows.items():
            chosen = [_subsets(results, strategy=strategy, group=group, window=window, size=size) for group in groups]
            for same in zip(*chosen, strict=True):
                assert len({_members(subset) for subset in same}) == 1, "groups train the same members"
                merged = [merged_logits([one.logits_N for one in subset], rule=strategy.rule) for subset in same]
                found.append(_changes(merged, labels_N=rows.labels_N))
        mean_GG, moved_GG, rank_GG = np.mean(np.stack(found), axis=0)
        return _Changes(mean_GG=mean_GG, moved_GG=moved_GG, rank_GG=rank_GG)


def _subsets(results: Results, *, strategy: Strategy, group: int, window: str, size: int) -> list[tuple[Column, ...]]:
    columns = results.of(strategy.pools, group=group, window=window, only=strategy.members)
    return subsets(columns, size=size, distinct=strategy.subsets == "distinct", draw=0)


def _members(subset: Sequence[Column]) -> tuple[tuple[str, str, int], ...]:
    return tuple((column.pool, column.member, column.replicate) for column in subset)


def _changes(merged: Sequence[NDArray[np.float64]], *, labels_N: NDArray[np.int8]) -> NDArray[np.float64]:
    """Mean change, moved share and rank change between each two of G predictions of the same rows, [3, G, G]."""
    chances = [LogitFigures.of(labels_N, logits_N).probability for logits_N in merged]
    ranks = [rankdata(logits_N) for logits_N in merged]
    with np.errstate(divide="ignore", invalid="ignore"):  # NaN: one logit for all rows orders none
        correlation_GG = np.corrcoef(ranks)
    found = np.zeros((3, len(merged), len(merged)))
    for first, second in zip(*np.triu_indices(len(merged), k=1), strict=True):
        change_N = np.abs(chances[first] - chances[second])
        found[:, first, second] = (
            change_N.mean(),
            (change_N > MOVED).mean(),
            1.0 - correlation_GG[first, second],
        )
    return found


def _over_pairs(values_GG: NDArray[np.float64], *, relative_to: NDArray[np.float64] | None = None) -> Interval:
    """The mean over pairs of groups, or its ratio to another's, with a jackknife over groups."""

    def figure(groups: Sequence[int]) -> float:
        pairs = np.triu_indices(len(groups), k=1)
        mean = float(values_GG[np.ix_(groups, groups)][pairs].mean())
        if relative_to is None:
            return mean
        other = float(relative_to[np.ix_(groups, groups)][pairs].mean())
        return mean / other if other else math.nan

    everyone = list(range(len(values_GG)))
    without = [[one for one in everyone if one != left] for left in everyone] if len(everyone) > 2 else []
    return jackknifed(figure(everyone), [figure(groups) for groups in without])
