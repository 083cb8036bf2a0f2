"""How often each id of a feature occurs: distinct ids, the share of the most frequent, skew, unseen ids and drift.

The ids of a table are counted one by one, in an array as long as the table; a table too large for the memory given is
counted in ranges of ids, each in a pass of its own. The figures come from how many ids occur how often, and so add up.

Legend: K ids of a range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from trainer.analysis.data_report.blocks import PreparedBlocks, bands, stability_index
from trainer.data.manifest import FIRST_VALUE_ID, MISSING_ID, RARE_ID, FeatureSpec

TOPS = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
_SMALL_TABLE = 200  # ids; each is a group of its own in the drift
_NUM_BANDS = 10  # groups of ids of about equal frequency, in larger tables
# Codes of an id, one byte each: what it is to the reference parts.
_UNSEEN, _MISSING, _RARE, _TAIL, _FIRST_GROUP = range(5)
_CODE_BYTES = 1
_CHUNK = 1 << 20
_SMALL_COUNT = 1 << 16
# Times that an id occurs: below it, how often is chance. Such ids and the unseen are one group of the drift: its share
# stays about the same from day to day (Good, Biometrika 1953), while an id seen once may never be seen again.
_FEW = 5
_FEWEST_RANKS = 8


@dataclass(frozen=True, kw_only=True)
class IdRange:
    """Ids of one feature that are counted in one pass."""

    feature: FeatureSpec
    first: int
    last: int  # excluded

    def num_bytes(self, count_bytes: int) -> int:
        """Memory that counting takes."""
        return (self.last - self.first) * (count_bytes + _CODE_BYTES)


@dataclass(frozen=True, kw_only=True)
class PartTally:
    """Ids of one part within a range; in `groups` as the drift wants them, None for a reference part."""

    num_ids: int
    missing: int
    rare: int
    unseen: int = 0
    groups: NDArray[np.int64] | None = None


@dataclass(frozen=True, kw_only=True)
class RangeTally:
    """What was counted in a range.

    Attributes:
        times: how often ids from 2 on occur, rising.
        num_ids: how many occur so often.
        reference: ids of the reference parts, as `PartTally.groups`: first the unseen and few, then group by group.
        parts: by name.
    """

    times: NDArray[np.int64]
    num_ids: NDArray[np.int64]
    reference: NDArray[np.int64]
    parts: dict[str, PartTally] = field(default_factory=dict)


def cut_ranges(features: Sequence[FeatureSpec], *, count_bytes: int, most_bytes: int) -> list[IdRange]:
    """Ranges of ids of which none takes more than `most_bytes` to count."""
    most_ids = max(1, most_bytes // (count_bytes + _CODE_BYTES))
    ranges = []
    for feature in features:
        assert feature.rows is not None
        starts = range(0, max(feature.rows, 1), most_ids)
        ranges += [IdRange(feature=feature, first=at, last=min(at + most_ids, feature.rows)) for at in starts]
    return ranges


def tally_ranges(
    source: PreparedBlocks, ranges: Sequence[IdRange], *, count_bytes: int, told: Callable[[int], None]
) -> list[RangeTally]:
    """Counts the ids of some ranges in one pass over the folder; `told` hears of rows times ranges done.

    Raises:
        DataError: a file is damaged, or holds an id that its table has not.
    """
    counters = [_RangeCounter(one, count_bytes) for one in ranges]
    for part in source.parts:
        is_reference = part.name in source.reference
        for counter in counters:
            counter.begin(part.name, is_reference=is_reference)
        for num_rows, blocks in source.ids(part, [one.feature for one in ranges]):
            for counter, ids in zip(counters, blocks, strict=True):
                counter.add(ids)
                told(num_rows)
    return [counter.result() for counter in counters]


class _RangeCounter:
    """Counts one range."""

    def __init__(self, ids: IdRange, count_bytes: int) -> None:
        self._range = ids
        self._counts = np.zeros(ids.last - ids.first, np.uint32 if count_bytes == 4 else np.int64)
        self._one = self._counts.dtype.type(1)
        self._codes: NDArray[np.uint8] | None = None
        self._reference = np.zeros(0, np.int64)
        self._parts: dict[str, PartTally] = {}
        self._name = ""
        self._found = np.zeros(1 << 8, np.int64)  # ids of the present part by code

    def begin(self, name: str, *, is_reference: bool) -> None:
        """Goes on to a part."""
        self._end()
        self._name = name
        if not is_reference and self._codes is None:
            self._end_reference()

    def add(self, ids: NDArray[np.int32]) -> None:
        """Counts a block of ids."""
        if not len(ids):
            return
        lowest, highest = int(ids.min()), int(ids.max())
        feature = self._range.feature
        assert feature.rows is not None
        if lowest < 0 or highest >= feature.rows:
            wrong = lowest if lowest < 0 else highest
            raise DataError(
                f"part {self._name!r}: {feature.name} holds id {wrong}, its table has {feature.rows} rows;"
                " prepare it again"
            )
        if lowest < self._range.first or highest >= self._range.last:
            ids = ids[(ids >= self._range.first) & (ids < self._range.last)]
        places = ids - np.int32(self._range.first) if self._range.first else ids
        np.add.at(self._counts, places, self._one)
        if self._codes is not None:
            self._found += np.bincount(self._codes[places], minlength=1 << 8)
        else:
            missing, rare = int((ids == MISSING_ID).sum()), int((ids == RARE_ID).sum())
            self._found[[_MISSING, _RARE, _TAIL]] += (missing, rare, len(ids) - missing - rare)

    def result(self) -> RangeTally:
        """What was counted."""
        self._end()
        if self._codes is None:
            self._end_reference()
        times, num_ids = _times(self._counts, self._range.first)
        return RangeTally(times=times, num_ids=num_ids, reference=self._reference, parts=self._parts)

    def _end(self) -> None:
        if not self._name:
            return
        found = self._found
        self._parts[self._name] = PartTally(
            num_ids=int(found.sum()),
            missing=int(found[_MISSING]),
            rare=int(found[_RARE]),
            unseen=int(found[_UNSEEN]),
            groups=None if self._codes is None else self._grouped(found),
        )
        self._found = np.zeros_like(found)
        self._name = ""

    @property
    def _is_small(self) -> bool:
        return self._range.feature.rows is not None and self._range.feature.rows <= _SMALL_TABLE

    def _grouped(self, by_code: NDArray[np.int64]) -> NDArray[np.int64]:
        if self._is_small:
            return by_code.copy()
        first = by_code[[_UNSEEN]] + by_code[[_TAIL]]
        return np.concatenate([first, by_code[_MISSING:_TAIL], by_code[_FIRST_GROUP:]])

    def _end_reference(self) -> None:
        """Gives each id its code, from how often the reference parts hold it."""
        first = self._range.first
        times, num_ids = _times(self._counts, first)
        falling = (times * num_ids)[::-1].astype(np.float64)
        of_times = np.where(times < _FEW, _TAIL, bands(falling, _NUM_BANDS)[::-1] + _FIRST_GROUP)
        of_times = np.concatenate([[_UNSEEN], of_times]).astype(np.uint8)
        known = np.concatenate([[0], times])
        self._codes = np.zeros(len(self._counts), np.uint8)
        sums = np.zeros(1 << 8, np.int64)
        for start in range(0, len(self._counts), _CHUNK):
            counts = self._counts[start : start + _CHUNK].astype(np.int64)
            codes = of_times[np.minimum(np.searchsorted(known, counts), len(known) - 1)]
            if self._is_small:
                codes = np.where(counts > 0, np.arange(first + start, first + start + len(counts)) + 1, _UNSEEN)
            for code, one in ((_MISSING, MISSING_ID), (_RARE, RARE_ID)):
                if 0 <= one - first - start < len(counts):
                    codes[one - first - start] = code
            self._codes[start : start + _CHUNK] = codes
            sums += np.bincount(codes, weights=counts, minlength=1 << 8).astype(np.int64)
        self._reference = self._grouped(sums)


def _times(counts: NDArray, first: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How often ids from 2 on occur, rising and without 0, and how many do so."""
    small = np.zeros(_SMALL_COUNT, np.int64)
    large = []
    for start in range(max(FIRST_VALUE_ID - first, 0), len(counts), _CHUNK):
        chunk = counts[start : start + _CHUNK]
        is_small = chunk < _SMALL_COUNT
        small += np.bincount(chunk[is_small], minlength=_SMALL_COUNT)
        large.append(chunk[~is_small].astype(np.int64))
    more, num_more = np.unique(np.concatenate(large) if large else np.zeros(0, np.int64), return_counts=True)
    there = np.flatnonzero(small[1:]) + 1
    return np.concatenate([there, more]), np.concatenate([small[there], num_more])


@dataclass(frozen=True, kw_only=True)
class IdFigures:
    """Figures of one feature's ids over all parts; shares are of all its ids."""

    num_ids: int
    distinct: int
    missing: int
    rare: int
    top_shares: dict[str, float]  # of the ids from 2 on that occur most
    zipf_exponent: float | None


def id_figures(tallies: Sequence[RangeTally]) -> IdFigures:
    """Adds up the ranges of one feature."""
    times = np.concatenate([one.times for one in tallies])
    num_ids = np.concatenate([one.num_ids for one in tallies])
    order = np.argsort(-times, kind="stable")
    times, num_ids = times[order], num_ids[order]
    parts = [part for one in tallies for part in one.parts.values()]
    total, distinct = sum(part.num_ids for part in parts), int(num_ids.sum())
    ends, sums = np.cumsum(num_ids), np.cumsum(times * num_ids)
    shares = {}
    for top in TOPS:
        if total and top // 10 < distinct:
            at = min(int(np.searchsorted(ends, top)), len(ends) - 1)
            held = int(sums[at]) - int(times[at]) * max(int(ends[at]) - top, 0)
            shares[str(top)] = held / total
    return IdFigures(
        num_ids=total,
        distinct=distinct,
        missing=sum(part.missing for part in parts),
        rare=sum(part.rare for part in parts),
        top_shares=shares,
        zipf_exponent=zipf_exponent(times, ends),
    )


def zipf_exponent(times: NDArray[np.int64], ends: NDArray[np.int64]) -> float | None:
    """The s of frequency ~ rank^-s: least squares of the logarithms over ranks spaced evenly in their logarithm.

    Args:
        times: how often ids occur, falling.
        ends: how many ids occur at least so often.

    Returns:
        None where fewer than 8 ids occur 5 times: there is nothing to fit.
    """
    often = ends[times >= _FEW]
    if not len(often) or often[-1] < _FEWEST_RANKS:
        return None
    ranks = np.unique(np.round(np.geomspace(1, int(often[-1]), 60)).astype(np.int64))
    frequency = times[np.searchsorted(ends, ranks)].astype(np.float64)
    return float(-np.polyfit(np.log(ranks), np.log(frequency), 1)[0])


def drift(tallies: Sequence[RangeTally], name: str) -> tuple[float | None, float | None]:
    """Share of a part's ids that no reference part holds, and its stability index; None for a reference part."""
    parts = [one.parts[name] for one in tallies]
    num_ids = sum(part.num_ids for part in parts)
    if any(part.groups is None for part in parts) or not num_ids or not sum(one.reference.sum() for one in tallies):
        return None, None
    index = stability_index(_joined([one.reference for one in tallies]), _joined([part.groups for part in parts]))
    return sum(part.unseen for part in parts) / num_ids, index


def _joined(groups: Sequence[NDArray[np.int64] | None]) -> NDArray[np.int64]:
    """Groups of all ranges; the first, of the unseen and few, is one over all."""
    there = [one for one in groups if one is not None]
    return np.concatenate([[sum(one[0] for one in there)], *(one[1:] for one in there)])
