"""Points: the figures of every strategy at every size, with intervals over groups.

A strategy of size K merges K columns of a group. Where a group has more, its figure is the mean over subsets of that
size: all of them, or `MOST_SUBSETS` drawn at random. A window's figures are averaged over windows. Groups are trained
apart, with seeds of their own, so the interval over groups (Student's t) tells how far other trainings would move a
figure.

Legend: N judged rows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student

from configs.benchmark_schema import Strategy
from modules.merge import MergeRule
from trainer.analysis.intervals import Interval
from trainer.benchmark.columns import Column, MergedCost, Results
from trainer.metrics.exact import metrics_of_logits

MOST_SUBSETS = 24
METRICS = ("auc", "log_loss_nats", "ne", "calibration")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """How good a prediction is."""

    auc: float
    log_loss_nats: float
    ne: float
    calibration: float

    @staticmethod
    def mean(several: Sequence[Figures]) -> Figures:
        """Each figure's mean."""
        return Figures(**{name: float(np.mean([getattr(one, name) for one in several])) for name in METRICS})


@dataclass(frozen=True, kw_only=True)
class Point:
    """A strategy at a size."""

    strategy: str
    size: int
    groups: tuple[Figures, ...]
    """The figures of each group, means over subsets and windows."""

    cost: MergedCost
    """The mean over subsets."""

    num_subsets: int

    def interval(self, metric: str, *, confidence: float = 0.95) -> Interval:
        """A figure's mean over groups with Student's interval; of one group, no interval: its ends are NaN."""
        return over_groups([getattr(group, metric) for group in self.groups], confidence=confidence)

    def gain(self, other: Point, metric: str, *, confidence: float = 0.95) -> Interval:
        """The mean over groups of this figure minus the other's, group by group."""
        pairs = zip(self.groups, other.groups, strict=True)
        return over_groups([getattr(a, metric) - getattr(b, metric) for a, b in pairs], confidence=confidence)

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return {
            "strategy": self.strategy,
            "size": self.size,
            "num_subsets": self.num_subsets,
            "parameters": self.cost.parameters,
            "table_bytes": self.cost.table_bytes,
            "multiply_adds": self.cost.multiply_adds,
            "train_seconds": self.cost.train_seconds,
            "groups": [{name: getattr(group, name) for name in METRICS} for group in self.groups],
        }


def over_groups(values: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """The mean of independent values with Student's interval."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(value=mean, low=math.nan, high=math.nan)
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(student.ppf((1.0 + confidence) / 2.0, len(values) - 1)) * error
    return Interval(value=mean, low=mean - half, high=mean + half)


def points(results: Results) -> list[Point]:
    """All strategies at all their sizes."""
    return [
        point(results, name=name, strategy=strategy, size=size)
        for name, strategy in results.benchmark.strategies.items()
        for size in sizes(results, strategy)
    ]


def sizes(results: Results, strategy: Strategy) -> tuple[int, ...]:
    """The sizes of a strategy: those given, or all columns of a group at once."""
    window = next(iter(results.rows))
    there = len(results.of(strategy.pools, group=1, window=window, only=strategy.members))
    return strategy.sizes or (there,)


def point(results: Results, *, name: str, strategy: Strategy, size: int) -> Point:
    """One strategy at one size."""
    of_groups, costs, num_subsets = [], [], 0
    for group in range(1, results.benchmark.groups + 1):
        found = []
        for window, rows in results.rows.items():
            columns = results.of(strategy.pools, group=group, window=window, only=strategy.members)
            chosen = subsets(columns, size=size, distinct=strategy.subsets == "distinct")
            num_subsets = len(chosen)
            for subset in chosen:
                merged_N = merged_logits([column.logits_N for column in subset], rule=strategy.rule)
                found.append(figures(rows.labels_N, merged_N))
                costs.append(MergedCost.of(column.cost for column in subset))
        of_groups.append(Figures.mean(found))
    return Point(
        strategy=name,
        size=size,
        groups=tuple(of_groups),
        cost=MergedCost(
            parameters=round(np.mean([cost.parameters for cost in costs])),
            table_bytes=round(np.mean([cost.table_bytes for cost in costs])),
            multiply_adds=round(np.mean([cost.multiply_adds for cost in costs])),
            train_seconds=float(np.mean([cost.train_seconds for cost in costs])),
        ),
        num_subsets=num_subsets,
    )


def subsets(
    columns: Sequence[Column], *, size: int, distinct: bool, most: int = MOST_SUBSETS, draw: int | None = None
) -> list[tuple[Column, ...]]:
    """Subsets of a size, all of them or as many as `most` drawn at random, the same in every call.

    Args:
        columns: Of one group and window.
        size: How many to a subset.
        distinct: Whether no two of a subset may be of one member.
        most: How many at most.
        draw: Which draw; not given: the group's own, so that intervals over groups know of it.

    Raises:
        ValueError: there is no such subset.
    """
    sets: dict[Hashable, list[int]] = {}  # what at most one column may be taken of -> its columns
    for place, column in enumerate(columns):
        sets.setdefault((column.pool, column.member) if distinct else place, []).append(place)
    if size > len(sets):
        raise ValueError(f"{size} of {len(sets)} columns")
    there = list(sets.values())
    of_sets = itertools.islice(itertools.combinations(there, size), most + 1)
    found = list(itertools.islice((chosen for some in of_sets for chosen in itertools.product(*some)), most + 1))
    if len(found) > most:
        number = columns[0].group if draw is None else draw
        random, drawn = np.random.default_rng((size, number)), set[tuple[int, ...]]()
        while len(drawn) < most:
            some = sorted(random.choice(len(there), size=size, replace=False))
            drawn.add(tuple(sorted(int(random.choice(there[one])) for one in some)))
        found = sorted(drawn)
    return [tuple(columns[place] for place in chosen) for chosen in found]


def merged_logits(logits: Sequence[NDArray[np.floating]], *, rule: str = "mean_logit") -> NDArray[np.float64]:
    """Columns merged into one logit a row, [N]."""
    logits_NM = np.stack([column.astype(np.float64) for column in logits], axis=1)
    if rule == "mean_logit":
        merged_N: NDArray[np.float64] = logits_NM.mean(axis=1)
        return merged_N
    fixed = MergeRule.fixed(rule, members=[str(place) for place in range(logits_NM.shape[1])])
    return np.asarray(fixed.logits(torch.from_numpy(logits_NM)).numpy())


def figures(labels_N: NDArray[np.int8], logits_N: NDArray[np.float64]) -> Figures:
    """The figures of one logit a row."""
    found = metrics_of_logits(labels_N, logits_N)
    return Figures(auc=found.auc, log_loss_nats=found.log_loss_nats, ne=found.ne, calibration=found.calibration)
