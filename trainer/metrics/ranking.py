"""Ranking: exact AUC with ties, and average precision, of columns that are read chunk by chunk.

Scores become unsigned integers of the same order. Where a column's integers fit into memory, they
are gathered in one pass, positives and negatives apart, and sorted; where not, a first pass counts
them by their leading bits, and further passes take one interval of values after the other. No
files are written. Counts are integers until the last division.

Legend: P positives, Q negatives, n rows of a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from trainer.metrics.exact_sum import ExactSum

Source = Callable[[], Iterator[tuple[NDArray[np.integer], NDArray[np.floating]]]]
"""Gives the chunks of a column, labels [n] (0 or 1) and scores [n]; each call gives all of them from the start."""

DEFAULT_MEMORY_BYTES = 1 << 30
LEAST_MEMORY_BYTES = 1 << 25
_LEVEL_BITS = 16  # counted at once
_WORKING_BYTES = 1 << 24  # beside the sorted integers: counts, and a block of thresholds
_BLOCK_POSITIVES = 1 << 17  # about 64 bytes each
_SLICE_ROWS = 1 << 18  # of a chunk, so that what is made of it stays in the cache


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """How a column orders its rows; those of disjoint intervals of scores add up.

    Attributes:
        num_positives: P.
        num_negatives: Q.
        twice_wins: Over all pairs of a positive and a negative: 2 where the positive's score is higher, 1 where equal.
        precisions: Sum over positives of the precision among the rows that score as high or higher.
    """

    num_positives: int = 0
    num_negatives: int = 0
    twice_wins: int = 0
    precisions: ExactSum = field(default_factory=ExactSum)

    def __add__(self, other: Ranking) -> Ranking:
        return Ranking(
            num_positives=self.num_positives + other.num_positives,
            num_negatives=self.num_negatives + other.num_negatives,
            twice_wins=self.twice_wins + other.twice_wins,
            precisions=self.precisions + other.precisions,
        )

    @property
    def auc(self) -> float:
        """Area under the ROC curve, ties count half; NaN unless both classes are there."""
        pairs = self.num_positives * self.num_negatives
        return self.twice_wins / (2 * pairs) if pairs else math.nan

    @property
    def auprc(self) -> float:
        """Average precision, as scikit-learn's `average_precision_score`; NaN without positives."""
        return self.precisions.over(self.num_positives) if self.num_positives else math.nan


def rank(
    source: Source,
    *,
    num_rows: int | None = None,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    beat: Callable[[str], None] = lambda _doing: None,
) -> Ranking:
    """Ranks a column.

    Args:
        source: The column; float32 and float16 take 5 bytes a row at the peak, other scores 9.
        num_rows: Rows of the source where that is known, which saves counting them.
        memory_bytes: What may be held beside the source's own chunks; with less, the source is read more often.
        beat: Told of the work every few seconds or sooner.

    Raises:
        DataError: a score is NaN, a label is neither 0 nor 1, the memory is too little, or the source gives other
            rows when it is read again.
    """
    if memory_bytes < LEAST_MEMORY_BYTES:
        raise DataError(f"memory_bytes: {memory_bytes} is too little to rank a column; give {LEAST_MEMORY_BYTES}")
    first_scores = next((scores for _, scores in source()), None)
    if first_scores is None:
        return Ranking()
    ranker = _Ranker(source, dtype=_key_dtype(first_scores), memory_bytes=memory_bytes, beat=beat)
    if num_rows is not None and num_rows <= ranker.most_rows:
        negatives, positives = ranker.gather(num_rows, first=0, last=ranker.last_key)
        return rank_keys(negatives, positives, beat=beat)
    return ranker.rank_externally()


def rank_keys(
    negatives: NDArray[np.unsignedinteger],
    positives: NDArray[np.unsignedinteger],
    *,
    column: Ranking | None = None,
    below: Ranking | None = None,
    beat: Callable[[str], None] = lambda _doing: None,
) -> Ranking:
    """Ranks keys of negatives and of positives, as `ordered_keys` gives them; sorts both in place.

    Args:
        negatives: Keys.
        positives: Keys.
        column: How many rows of each class the whole column has; None: these are all.
        below: How many of them have lower keys than all of these.
        beat: Told of the work.
    """
    below = below or Ranking()
    column = column or Ranking(num_positives=len(positives), num_negatives=len(negatives))
    for keys in (negatives, positives):
        beat("sorting scores")
        keys.sort()
    twice_wins, precisions, start = 0, ExactSum(), 0
    while start < len(positives):
        beat("ranking scores")
        # A block ends where a tie does.
        stop = min(start + _BLOCK_POSITIVES, len(positives))
        stop = int(positives.searchsorted(positives[stop - 1], side="right"))
        block = positives[start:stop]
        starts = np.append(0, np.flatnonzero(block[1:] != block[:-1]) + 1)
        thresholds, tied = block[starts], np.diff(starts, append=len(block))
        lower = below.num_negatives + negatives.searchsorted(thresholds, side="left")
        lower_or_tied = below.num_negatives + negatives.searchsorted(thresholds, side="right")
        twice_wins += _dot(tied, lower + lower_or_tied)
        true_positives = column.num_positives - below.num_positives - start - starts
        precisions += _precisions(tied, true_positives, column.num_negatives - lower)
        start = stop
    return Ranking(
        num_positives=len(positives), num_negatives=len(negatives), twice_wins=twice_wins, precisions=precisions
    )


def num_passes(num_rows: int, *, memory_bytes: int) -> int:
    """How often about `rank` reads a float32 column of so many rows."""
    most_rows = _most_rows(np.dtype(np.uint32), memory_bytes=memory_bytes)
    return 1 if num_rows <= most_rows else 1 + -(-num_rows // most_rows)


def ordered_keys(scores: NDArray[np.floating]) -> NDArray[np.unsignedinteger]:
    """Integers [n] that compare as the scores [n] do: uint32 for float32 and float16, else uint64; -0 equals 0."""
    dtype = _key_dtype(scores)
    wide: NDArray[np.floating] = scores.astype(np.float32 if dtype == np.uint32 else np.float64)
    wide += 0.0  # -0.0 + 0.0 is 0.0
    sign_bit = dtype.type(1 << 8 * dtype.itemsize - 1)
    bits = wide.view(dtype)
    # A negative number's bits are in the opposite order; a positive one's only need to come after them.
    signed = wide.view(np.dtype(f"i{dtype.itemsize}"))
    return bits ^ ((signed >> (8 * dtype.itemsize - 1)).view(dtype) | sign_bit)


@dataclass(frozen=True, kw_only=True)
class _Interval:
    """Keys from `first` to `last`, both among them, and how many rows have one."""

    first: int
    last: int
    positives: int
    negatives: int

    @property
    def num_rows(self) -> int:
        return self.positives + self.negatives


class _Ranker:
    """The passes over one source."""

    def __init__(self, source: Source, *, dtype: np.dtype, memory_bytes: int, beat: Callable[[str], None]) -> None:
        self._source = source
        self._dtype = dtype
        self._beat = beat
        self.last_key = (1 << 8 * dtype.itemsize) - 1
        self.most_rows = _most_rows(dtype, memory_bytes=memory_bytes)

    def rank_externally(self) -> Ranking:
        shift = 8 * self._dtype.itemsize - _LEVEL_BITS
        counts = self._histogram(first=0, shift=shift)
        column = Ranking(num_positives=int(counts[1].sum()), num_negatives=int(counts[0].sum()))
        found = Ranking()
        for interval in self._intervals(counts, first=0, shift=shift):
            if interval.num_rows > self.most_rows:
                assert interval.first == interval.last
                found += _all_tied(interval, column=column, below=found)
                continue
            negatives, positives = self.gather(interval.num_rows, first=interval.first, last=interval.last)
            if len(positives) != interval.positives:
                raise _changed()
            found += rank_keys(negatives, positives, column=column, below=found, beat=self._beat)
        return found

    def gather(self, num_rows: int, *, first: int, last: int) -> tuple[NDArray, NDArray]:
        """Keys of the interval's rows, of negatives and of positives, unsorted: both ends of one array."""
        keys = np.empty(num_rows, dtype=self._dtype)
        low, high = 0, num_rows
        for labels, found in self._chunks():
            if first > 0 or last < self.last_key:
                inside = (found >= first) & (found <= last)
                labels, found = labels[inside], found[inside]
            negatives, positives = found[~labels], found[labels]
            if low + len(negatives) > high - len(positives):
                raise _changed()
            keys[low : low + len(negatives)] = negatives
            keys[high - len(positives) : high] = positives
            low, high = low + len(negatives), high - len(positives)
        if low != high:
            raise _changed()
        return keys[:low], keys[high:]

    def _intervals(self, counts: NDArray[np.int64], *, first: int, shift: int) -> Iterator[_Interval]:
        """Intervals in rising order that fit into memory each, or hold a single key."""
        rows = counts.sum(axis=0)
        bins = np.flatnonzero(rows)
        index = 0
        while index < len(bins):
            stop, held = index + 1, int(rows[bins[index]])
            while stop < len(bins) and held + int(rows[bins[stop]]) <= self.most_rows:
                held += int(rows[bins[stop]])
                stop += 1
            low = first + (int(bins[index]) << shift)
            if held > self.most_rows and shift:
                finer = shift - _LEVEL_BITS
                yield from self._intervals(self._histogram(first=low, shift=finer), first=low, shift=finer)
            else:
                negatives, positives = counts[:, bins[index] : bins[stop - 1] + 1].sum(axis=1).tolist()
                last = first + ((int(bins[stop - 1]) + 1) << shift) - 1
                yield _Interval(first=low, last=last, positives=positives, negatives=negatives)
            index = stop

    def _histogram(self, *, first: int, shift: int) -> NDArray[np.int64]:
        """Negatives and positives [2, 2^16] by the bits of a key above `shift`, of the 2^(16 + shift) from `first`."""
        counts = np.zeros((2, 1 << _LEVEL_BITS), dtype=np.int64)
        whole = shift + _LEVEL_BITS == 8 * self._dtype.itemsize
        last = first + (1 << shift + _LEVEL_BITS) - 1
        for labels, keys in self._chunks():
            if not whole:
                inside = (keys >= first) & (keys <= last)
                labels, keys = labels[inside], keys[inside]
            bins = ((keys - self._dtype.type(first)) >> self._dtype.type(shift)).astype(np.int64)
            np.add.at(counts.reshape(-1), bins + (labels.astype(np.int64) << _LEVEL_BITS), np.int64(1))
        return counts

    def _chunks(self) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.unsignedinteger]]]:
        for labels, scores in self._source():
            for first in range(0, len(labels), _SLICE_ROWS):
                self._beat("reading scores")
                yield (
                    as_bools(labels[first : first + _SLICE_ROWS]),
                    self._keys(scores[first : first + _SLICE_ROWS]),
                )

    def _keys(self, scores: NDArray[np.floating]) -> NDArray[np.unsignedinteger]:
        assert _key_dtype(scores) == self._dtype, "chunks of one column are of different types"
        if np.isnan(scores.max()):  # of a chunk with NaN the maximum is NaN
            raise DataError("a score is NaN, which has no place in an order; remove its row, or score it again")
        return ordered_keys(scores)


def _most_rows(dtype: np.dtype, *, memory_bytes: int) -> int:
    return (memory_bytes - _WORKING_BYTES) // (dtype.itemsize + 1)  # a byte more: where ties of positives end


def _key_dtype(scores: NDArray[np.floating]) -> np.dtype:
    return np.dtype(np.uint32 if scores.dtype in (np.float16, np.float32) else np.uint64)


def as_bools(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Which labels [n] are 1.

    Raises:
        DataError: a label is neither 0 nor 1.
    """
    positive = labels == 1
    if not (positive | (labels == 0)).all():
        raise DataError("a label is neither 0 nor 1, and figures need one of the two; look at the log")
    return positive


def _changed() -> DataError:
    return DataError("the rows were not the same when they were read again; let nothing write to them meanwhile")


def _dot(counts: NDArray[np.int64], others: NDArray[np.int64]) -> int:
    """The sum of products, also where it does not fit into int64."""
    largest = int(counts.max(initial=0)) * int(others.max(initial=0)) * len(counts)
    if largest < 1 << 63:
        return int(np.dot(counts, others))
    return int(np.dot(counts.astype(object), others.astype(object)))


def _precisions(
    tied: NDArray[np.int64], true_positives: NDArray[np.int64] | int, false_positives: NDArray[np.int64]
) -> ExactSum:
    return ExactSum.of(tied * (true_positives / (true_positives + false_positives)))


def _all_tied(interval: _Interval, *, column: Ranking, below: Ranking) -> Ranking:
    """The ranking of rows that all have one score, from their numbers alone."""
    tied = np.array([interval.positives])
    true_positives = column.num_positives - below.num_positives
    false_positives = np.array([column.num_negatives - below.num_negatives])
    return Ranking(
        num_positives=interval.positives,
        num_negatives=interval.negatives,
        twice_wins=interval.positives * (2 * below.num_negatives + interval.negatives),
        precisions=_precisions(tied, true_positives, false_positives) if interval.positives else ExactSum(),
    )
