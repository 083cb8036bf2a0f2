"""Slices: the merged prediction beside the best single member on the rows of each part, or of each value of a column.

Of a slice with few rows, few of a class or few blocks neither an interval nor an AUC is given: drawn from so little,
both look far surer than they are.

Legend: N rows, b blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trainer.analysis.intervals import Interval
from trainer.analysis.worth.block_bootstrap import Drawn, Replicates
from trainer.analysis.worth.study_rows import StudyRows
from trainer.metrics.exact import BinaryMetrics, exact_auc, from_sums

MOST_VALUES = 10
LEAST_ROWS = 30
LEAST_OF_CLASS = 5
LEAST_BLOCKS = 10
MISSING = "(missing)"
REST = "(all others)"


@dataclass(frozen=True, kw_only=True)
class Column:
    """Probabilities and losses of each row of one prediction column."""

    name: str
    logits: NDArray[np.floating]  # [N]
    probabilities: NDArray[np.float64]  # [N]
    losses: NDArray[np.float64]  # [N], nats


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """Which slice each row is in."""

    codes: NDArray[np.integer]  # [N]
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Slice:
    """The figures of one slice."""

    value: str
    num_rows: int
    label_rate: float
    merged: BinaryMetrics
    best: BinaryMetrics
    difference: Interval  # log loss, merged minus best, nats; by the block bootstrap; bounds NaN: too few rows
    is_too_few: bool


def too_few(num_rows: int, num_positives: float) -> bool:
    """Whether an AUC of these rows says nothing."""
    return num_rows < LEAST_ROWS or min(num_positives, num_rows - num_positives) < LEAST_OF_CLASS


def by_value(values: NDArray, *, most: int = MOST_VALUES) -> Grouping:
    """The most frequent values, each a slice, and the rest together; missing values are a value."""
    codes, names = _coded(values)
    counts = np.bincount(codes, minlength=len(names))
    frequent = np.argsort(-counts, kind="stable")[:most]
    if len(names) <= most + 1:  # one value alone would not be a rest
        frequent = np.argsort(-counts, kind="stable")
    place = np.full(len(names), len(frequent))
    place[frequent] = np.arange(len(frequent))
    found = tuple(names[code] for code in frequent)
    return Grouping(codes=place[codes], names=found + ((REST,) if len(names) > len(found) else ()))


def _coded(values: NDArray) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Values as numbers from 0, [N], and what each number stands for."""
    found = pa.array(values, from_pandas=True).dictionary_encode()
    names = [str(name) for name in found.dictionary.to_pylist()]
    codes = found.indices.fill_null(len(names)).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, tuple(names + [MISSING] * bool(found.null_count))


def slices(
    rows: StudyRows, grouping: Grouping, replicates: Replicates, *, merged: Column, best: Column
) -> Sequence[Slice]:
    """The figures of each slice that has rows, in the order of their names."""
    found = []
    for code, name in enumerate(grouping.names):
        here = grouping.codes == code
        if not here.any():
            continue
        inside = here.astype(np.float64)
        sums = np.stack([rows.by_block((merged.losses - best.losses) * inside), rows.by_block(inside)], axis=1)
        drawn = replicates.sums(sums)
        with np.errstate(divide="ignore", invalid="ignore"):
            difference = Drawn(value=float(sums[:, 0].sum() / sums[:, 1].sum()), replicates=drawn[:, 0] / drawn[:, 1])
        labels = rows.labels[here]
        has_few = too_few(len(labels), float(labels.sum()))
        is_too_few = has_few or np.count_nonzero(sums[:, 1]) < LEAST_BLOCKS
        interval = difference.interval()
        if is_too_few:
            interval = replace(interval, low=math.nan, high=math.nan)
        found.append(
            Slice(
                value=name,
                num_rows=len(labels),
                label_rate=float(labels.mean()),
                merged=_figures(labels, merged, here, has_auc=not has_few),
                best=_figures(labels, best, here, has_auc=not has_few),
                difference=interval,
                is_too_few=bool(is_too_few),
            )
        )
    return found


def _figures(labels: NDArray[np.integer], column: Column, here: NDArray[np.bool_], *, has_auc: bool) -> BinaryMetrics:
    chances = column.probabilities[here]
    return from_sums(
        num_rows=len(labels),
        label_sum=float(labels.sum()),
        loss_sum=float(column.losses[here].sum()),
        probability_sum=float(chances.sum()),
        auc=exact_auc(labels, column.logits[here]) if has_auc else math.nan,
        brier_sum=float(((chances - labels) ** 2).sum()),
    )
