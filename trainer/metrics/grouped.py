"""Figures of groups of rows: GAUC by a feature's values, and figures of each day or of the largest values.

GAUC is the mean of the AUCs within groups, each weighted with its rows (Zhu et al., "Optimized
Cost per Click in Taobao Display Advertising", KDD 2017): how well rows of one user, say, are
ordered among themselves. Groups of one class have no AUC and are left out.

Legend: n rows of a chunk, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from configs.errors import DataError
from trainer.metrics.column_sums import Kind, RowFigures, refuse_bad_rows
from trainer.metrics.exact import BinaryMetrics, from_sums
from trainer.metrics.exact_sum import ExactSum, ExactSums
from trainer.metrics.ranking import (
    DEFAULT_MEMORY_BYTES,
    LEAST_MEMORY_BYTES,
    Ranking,
    Source,
    as_bools,
    ordered_keys,
    rank,
    rank_keys,
)

GroupedSource = Callable[[], Iterator[tuple[NDArray[np.integer], NDArray[np.floating], NDArray]]]
"""Gives the chunks of a column, labels [n], scores [n] and values [n] (whole numbers or strings), anew at each call."""

MISSING = "(missing)"  # what a string that is null counts as
_KEY_BITS = 32
_MOST_GROUPS = 1 << 31  # 31 bits of group, 32 of score, one of label
_BLOCK_ROWS = 1 << 18  # about 100 bytes each
_WORKING_BYTES = 1 << 25
_BYTES_A_ROW = 24  # packed, and a large group taken apart
_MOST_UNMERGED = 1 << 20


@dataclass(frozen=True, kw_only=True)
class GroupedAuc:
    """AUC within groups; NaN where no group has both classes.

    Attributes:
        weighted: GAUC, the mean weighted with the groups' rows.
        unweighted: The plain mean.
        num_groups: Groups that have both classes.
        num_groups_left_out: Groups that have one.
        num_rows_left_out: Their rows.
    """

    weighted: float
    unweighted: float
    num_groups: int
    num_groups_left_out: int
    num_rows_left_out: int


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Figures of the rows of one value."""

    value: str | int | None  # None: all values that are not named
    num_values: int
    metrics: BinaryMetrics

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"value": self.value, "num_values": self.num_values, **self.metrics.as_json()}


class ValueCounts:
    """The distinct values of a feature, in order, and their rows."""

    def __init__(self) -> None:
        self.values: NDArray = np.empty(0, dtype=np.int64)
        self.num_rows = np.empty(0, dtype=np.int64)
        self._unmerged: list[tuple[NDArray, NDArray[np.int64]]] = []

    @staticmethod
    def of(source: GroupedSource) -> ValueCounts:
        """Those of a source.

        Raises:
            DataError: its values are neither whole numbers nor strings.
        """
        counts = ValueCounts()
        for _, _, values in source():
            found, rows = np.unique(plain_values(values), return_counts=True)
            counts._unmerged.append((found, rows.astype(np.int64)))
            # No sooner than there are as many again, so that merging takes time in proportion.
            if sum(len(rows) for _, rows in counts._unmerged) > _MOST_UNMERGED + len(counts.values):
                counts._merge()
        counts._merge()
        return counts

    def codes(self, values: NDArray) -> NDArray[np.int64]:
        """Place [n] of each value [n] among `values`.

        Raises:
            DataError: a value is not there.
        """
        plain = plain_values(values)
        codes = self.values.searchsorted(plain)
        if not (self.values[np.minimum(codes, len(self.values) - 1)] == plain).all():
            raise DataError("the rows were not the same when they were read again; let nothing write to them meanwhile")
        return codes

    def _merge(self) -> None:
        if not self._unmerged:
            return
        kept = [(self.values, self.num_rows)] if len(self.values) else []
        values = [found for found, _ in (*kept, *self._unmerged)]
        if len({found.dtype.kind for found in values}) > 1:
            raise DataError("a feature has whole numbers in one file and strings in another; group by another feature")
        rows = np.concatenate([rows for _, rows in (*kept, *self._unmerged)])
        self.values, place = np.unique(np.concatenate(values), return_inverse=True)
        self.num_rows = np.zeros(len(self.values), dtype=np.int64)
        np.add.at(self.num_rows, place, rows)
        self._unmerged = []


def plain_values(values: NDArray) -> NDArray:
    """Values [n] as int64 or as numpy strings; null strings become MISSING.

    Raises:
        DataError: they are neither whole numbers nor strings.
    """
    if values.dtype.kind in "iub":
        return values.astype(np.int64)
    if values.dtype.kind == "U":
        return values
    try:
        texts = pa.array(values, type=pa.string(), from_pandas=True).fill_null(MISSING).dictionary_encode()
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(
            f"rows are grouped by whole numbers or strings, not by {values.dtype} ({error}); choose another feature"
        ) from error
    if not len(texts):
        return np.empty(0, dtype=np.str_)
    names = np.array(texts.dictionary.to_pylist(), dtype=np.str_)
    return names[texts.indices.to_numpy()]


def grouped_auc(
    source: GroupedSource,
    *,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    beat: Callable[[str], None] = lambda _doing: None,
) -> GroupedAuc:
    """GAUC of a float32 (or float16) column by its values; in several passes where rows are many.

    A row takes 24 bytes at the peak; the distinct values, about 40 bytes each, are held beside `memory_bytes`.

    Raises:
        DataError: as `rank`, a value is neither a whole number nor a string, or the scores are float64.
    """
    if memory_bytes < 2 * LEAST_MEMORY_BYTES:
        raise DataError(f"memory_bytes: {memory_bytes} is too little to group by; give {2 * LEAST_MEMORY_BYTES}")
    counts = ValueCounts.of(source)
    assert len(counts.values) < _MOST_GROUPS
    most_rows = (memory_bytes - _WORKING_BYTES) // _BYTES_A_ROW
    ends, found = np.cumsum(counts.num_rows), _Groups()
    first, before = 0, 0
    while first < len(ends):
        beat("reading groups")
        stop = max(first + 1, int(ends.searchsorted(before + most_rows, side="right")))
        num_rows = int(ends[stop - 1]) - before
        if num_rows > most_rows:  # one group
            of_group = _where(source, counts.codes, place=first)
            found += _Groups.of_ranking(rank(of_group, num_rows=num_rows, memory_bytes=memory_bytes, beat=beat))
        else:
            packed = _gather(source, counts, codes=range(first, stop), num_rows=num_rows)
            beat("sorting groups")
            packed.sort()
            found += _of_packed(packed, ends[first:stop] - before, beat=beat)
        first, before = stop, int(ends[stop - 1])
    return found.result()


def slices(
    source: GroupedSource,
    *,
    kind: Kind,
    largest: int,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    beat: Callable[[str], None] = lambda _doing: None,
) -> tuple[Slice, ...]:
    """Exact figures of the values with the most rows, largest first, and of all others together.

    The source is read twice, and once for each slice; `largest` is 1 or more.

    Raises:
        DataError: as `rank` and `ColumnSums.add`, or a value is neither a whole number nor a string.
    """
    assert largest > 0, largest
    counts = ValueCounts.of(source)
    order = np.lexsort((np.arange(len(counts.values)), -counts.num_rows))  # of equal ones the first
    named = counts.values[order[:largest]]
    num_slices = len(named) + (len(order) > len(named))
    sums = tuple(ExactSums(num_slices) for _ in range(3))
    for number, (labels, scores, values) in enumerate(source()):
        beat("slices")
        refuse_bad_rows(labels, scores, column="scores", kind=kind, part=f"chunk {number}", first_row=0)
        rows, groups = RowFigures.of(labels, scores, kind=kind), _slice_of(values, named)
        for total, added in zip(sums, (rows.log_loss_nats, rows.brier, rows.probability), strict=True):
            total.add(added, groups)
    found = []
    for index in range(num_slices):
        codes = order[index : index + 1] if index < len(named) else order[len(named) :]
        num_rows = int(counts.num_rows[codes].sum())
        rows_of = _where(source, lambda values: _slice_of(values, named), place=index)
        ranking = rank(rows_of, num_rows=num_rows, memory_bytes=memory_bytes, beat=beat)
        metrics = from_sums(
            num_rows=num_rows,
            label_sum=ranking.num_positives,
            loss_sum=sums[0].of(index).value,
            brier_sum=sums[1].of(index).value,
            probability_sum=sums[2].of(index).value,
            auc=ranking.auc,
            auprc=ranking.auprc,
        )
        value = named[index].item() if index < len(named) else None
        found.append(Slice(value=value, num_values=len(codes), metrics=metrics))
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class _Groups:
    """Sums over groups; those of different groups add up."""

    weighted: ExactSum = ExactSum()
    unweighted: ExactSum = ExactSum()
    num_groups: int = 0
    num_rows: int = 0
    num_groups_left_out: int = 0
    num_rows_left_out: int = 0

    def __add__(self, other: _Groups) -> _Groups:
        return _Groups(**{name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__})

    @staticmethod
    def of_ranking(ranking: Ranking) -> _Groups:
        num_rows = ranking.num_positives + ranking.num_negatives
        if math.isnan(ranking.auc):
            return _Groups(num_groups_left_out=1, num_rows_left_out=num_rows)
        return _Groups(
            weighted=ExactSum.of(np.array([ranking.auc * num_rows])),
            unweighted=ExactSum.of(np.array([ranking.auc])),
            num_groups=1,
            num_rows=num_rows,
        )

    @staticmethod
    def of_sorted(packed: NDArray[np.uint64]) -> _Groups:
        """Of the rows of whole groups in order, as `_gather` packs them; few enough for int64."""
        ties = packed >> np.uint64(1)
        starts = np.append(0, np.flatnonzero(ties[1:] != ties[:-1]) + 1)
        group = ties[starts] >> np.uint64(_KEY_BITS)
        group_starts = np.append(0, np.flatnonzero(group[1:] != group[:-1]) + 1)
        positives = np.add.reduceat((packed & np.uint64(1)).astype(np.int64), starts)
        negatives = np.diff(starts, append=len(packed)) - positives
        before = np.cumsum(negatives) - negatives
        below = before - np.repeat(before[group_starts], np.diff(group_starts, append=len(group)))
        twice_wins = np.add.reduceat(positives * (2 * below + negatives), group_starts)
        num_positives, num_negatives = (np.add.reduceat(of, group_starts) for of in (positives, negatives))
        rows = num_positives + num_negatives
        used = (num_positives > 0) & (num_negatives > 0)
        aucs = twice_wins[used] / (2 * num_positives[used] * num_negatives[used])
        return _Groups(
            weighted=ExactSum.of(aucs * rows[used]),
            unweighted=ExactSum.of(aucs),
            num_groups=int(used.sum()),
            num_rows=int(rows[used].sum()),
            num_groups_left_out=int((~used).sum()),
            num_rows_left_out=int(rows[~used].sum()),
        )

    def result(self) -> GroupedAuc:
        return GroupedAuc(
            weighted=self.weighted.over(self.num_rows) if self.num_groups else math.nan,
            unweighted=self.unweighted.over(self.num_groups) if self.num_groups else math.nan,
            num_groups=self.num_groups,
            num_groups_left_out=self.num_groups_left_out,
            num_rows_left_out=self.num_rows_left_out,
        )


def _slice_of(values: NDArray, named: NDArray) -> NDArray[np.int64]:
    """Place [n] of each value [n] among the named ones; their number for any other."""
    order = np.argsort(named)
    plain = plain_values(values)
    found = np.minimum(named[order].searchsorted(plain), len(named) - 1)
    return np.where(named[order][found] == plain, order[found], len(named))


def _where(source: GroupedSource, places: Callable[[NDArray], NDArray[np.int64]], *, place: int) -> Source:
    """The rows whose values have a place."""

    def rows() -> Iterator[tuple[NDArray[np.integer], NDArray[np.floating]]]:
        for labels, scores, values in source():
            inside = places(values) == place
            yield labels[inside], scores[inside]

    return rows


def _gather(source: GroupedSource, counts: ValueCounts, *, codes: range, num_rows: int) -> NDArray[np.uint64]:
    """Rows of some groups, unsorted: group, score and label in one integer."""
    packed, filled = np.empty(num_rows, dtype=np.uint64), 0
    for labels, scores, values in source():
        code = counts.codes(values)
        inside = (code >= codes.start) & (code < codes.stop)
        keys = ordered_keys(scores[inside])
        if keys.dtype != np.uint32:
            raise DataError(f"GAUC takes float32 scores, and these are {scores.dtype}; give them as they are written")
        groups = code[inside].astype(np.uint64) << np.uint64(_KEY_BITS + 1)
        rows = groups | keys.astype(np.uint64) << np.uint64(1) | as_bools(labels[inside]).astype(np.uint64)
        packed[filled : filled + len(rows)] = rows
        filled += len(rows)
    assert filled == num_rows
    return packed


def _of_packed(packed: NDArray[np.uint64], ends: NDArray[np.int64], *, beat: Callable[[str], None]) -> _Groups:
    """Sums over the groups whose rows are in order and end there."""
    found = _Groups()
    first, start = 0, 0
    while first < len(ends):
        beat("ranking groups")
        stop = max(first + 1, int(ends.searchsorted(start + _BLOCK_ROWS, side="right")))
        rows = packed[start : int(ends[stop - 1])]
        if len(rows) > _BLOCK_ROWS:  # one large group
            positive = (rows & np.uint64(1)).astype(np.bool_)
            keys = (rows >> np.uint64(1)).astype(np.uint32)  # the lowest 32 bits
            found += _Groups.of_ranking(rank_keys(keys[~positive], keys[positive], beat=beat))
        else:
            found += _Groups.of_sorted(rows)
        first, start = stop, int(ends[stop - 1])
    return found
