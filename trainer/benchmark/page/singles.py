"""Singles: every member of every pool by itself, with the mean of its trainings over groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from configs.benchmark_schema import Published
from trainer.analysis.intervals import Interval
from trainer.benchmark.columns import Column
from trainer.benchmark.points import Figures, figures, over_groups
from trainer.benchmark.report import Report


@dataclass(frozen=True, kw_only=True)
class Single:
    """A member of a pool."""

    pool: str
    member: str
    kind: str
    groups: tuple[Figures, ...]
    """The figures of each group, means over its trainings and the windows."""

    num_columns: int
    """Its predictions in a group and a window: seeds, copies, checkpoints."""

    parameters: int
    multiply_adds: int
    epochs: float | None
    """The mean over its trainings."""

    rows_per_second: float | None
    published: Published | None
    """Given where the pool is trained as the published members are."""

    def interval(self, metric: str) -> Interval:
        """A figure's mean over groups with Student's interval."""
        return over_groups([getattr(group, metric) for group in self.groups])

    def mean(self, metric: str) -> float:
        """A figure's mean over groups."""
        return self.interval(metric).value

    def behind(self, metric: str) -> float | None:
        """This figure minus the published one."""
        theirs = getattr(self.published, metric) if self.published else None
        return None if theirs is None else self.mean(metric) - theirs


def singles(report: Report) -> list[Single]:
    """All of them, the highest AUC first."""
    found = []
    for pool, given in report.benchmark.pools.items():
        for member in given.members:
            columns = [one for one in report.results.columns if one.pool == pool and one.member == member]
            if columns:
                found.append(_single(report, pool, columns=columns))
    return sorted(found, key=lambda one: -one.mean("auc"))


def is_plain(report: Report, single: Single) -> bool:
    """Whether it is one of the models that the others are compared with, or that others have published."""
    strategy = report.benchmark.strategies[report.benchmark.single]
    is_one = single.pool in strategy.pools and (not strategy.members or single.member in strategy.members)
    return is_one or single.published is not None


def _single(report: Report, pool: str, *, columns: Sequence[Column]) -> Single:
    first, benchmark = columns[0], report.benchmark
    groups = []
    for group in range(1, benchmark.groups + 1):
        of_windows = []
        for window, rows in report.results.rows.items():
            there = [one for one in columns if one.group == group and one.window == window]
            of_windows.append(Figures.mean([figures(rows.labels_N, one.logits_N.astype(np.float64)) for one in there]))
        groups.append(Figures.mean(of_windows))
    epochs = [one.epochs for one in columns if one.epochs is not None]
    as_published = pool in benchmark.strategies[benchmark.single].pools
    return Single(
        pool=pool,
        member=first.member,
        kind=first.cost.kind,
        groups=tuple(groups),
        num_columns=max(one.replicate for one in columns),
        parameters=round(np.mean([one.cost.parameters for one in columns])),
        multiply_adds=round(np.mean([one.cost.multiply_adds for one in columns])),
        epochs=float(np.mean(epochs)) if epochs else None,
        rows_per_second=report.speeds.get((pool, first.member)),
        published=benchmark.published.get(first.member) if as_published else None,
    )
