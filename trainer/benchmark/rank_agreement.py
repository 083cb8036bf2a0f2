"""RankAgreement: Spearman's correlation of measures with gains over subsets that share members, and how sure it is.

Subsets share members, so their number is no number of independent draws, and the usual p-value is wrong: where measure
and gain each follow from the members and have nothing to do with each other, it calls four or five of ten correlations
over 96 subsets of 14 members significant. Here one unit (a member) is left out in turn, with all subsets that hold it,
in all cells at once: a jackknife over units (jackknife.py), on Fisher's scale (atanh), which keeps it within -1 and 1.
In the same case, 95 to 98 of 100 of its 95 % intervals hold zero. Without one of M members, K of M subsets of K are
missing: the more a subset holds, the wider, and the more cautious, the interval.

Legend: S subsets of a cell, P measures, Q gains, U units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from trainer.analysis.intervals import Interval
from trainer.benchmark.jackknife import jackknifed

FEWEST_SUBSETS = 5
_NEARLY = 1.0 - 1e-9  # for 1, which Fisher's scale has at infinity


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Subsets that are compared with each other: of one size, group and window."""

    measures_SP: NDArray[np.float64]
    gains_SQ: NDArray[np.float64]
    holds_SU: NDArray[np.bool_]
    """Whether a subset holds a unit."""

    @staticmethod
    def joined(cells: Sequence[Cell]) -> Cell:
        """The subsets of several cells as one."""
        return Cell(
            measures_SP=np.concatenate([cell.measures_SP for cell in cells]),
            gains_SQ=np.concatenate([cell.gains_SQ for cell in cells]),
            holds_SU=np.concatenate([cell.holds_SU for cell in cells]),
        )

    def correlation(self, keep_S: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Spearman's over some of the subsets, [P, Q]; NaN where one of the two never changes."""
        both = np.concatenate([self.measures_SP[keep_S], self.gains_SQ[keep_S]], axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            whole = np.corrcoef(rankdata(both, axis=0), rowvar=False)
        num_measures = self.measures_SP.shape[1]
        return np.asarray(whole[:num_measures, num_measures:])


@dataclass(frozen=True, kw_only=True)
class RankAgreement:
    """Correlations, of all units and without each."""

    value_PQ: NDArray[np.float64]
    without_UPQ: NDArray[np.float64] | None
    """None: without one of the units, a cell has fewer than `FEWEST_SUBSETS`."""

    @staticmethod
    def of(cells: Sequence[Cell]) -> RankAgreement:
        """The mean over cells, which hold the same units."""
        without = []
        for unit in range(cells[0].holds_SU.shape[1]):
            keeps = [~cell.holds_SU[:, unit] for cell in cells]
            if min(int(keep.sum()) for keep in keeps) < FEWEST_SUBSETS:
                break
            without.append(_mean([cell.correlation(keep) for cell, keep in zip(cells, keeps, strict=True)]))
        else:
            return RankAgreement(value_PQ=_of_all(cells), without_UPQ=np.array(without))
        return RankAgreement(value_PQ=_of_all(cells), without_UPQ=None)

    @staticmethod
    def mean(several: Sequence[RankAgreement]) -> RankAgreement:
        """The mean of correlations of the same units, as at several sizes; all must have intervals."""
        without = [one.without_UPQ for one in several if one.without_UPQ is not None]
        assert len(without) == len(several)
        return RankAgreement(
            value_PQ=_mean([one.value_PQ for one in several]), without_UPQ=np.mean(np.stack(without), axis=0)
        )

    def interval(self, measure: int, gain: int) -> Interval:
        """One of them, within -1 and 1; ends of NaN where it cannot be told."""
        value = float(self.value_PQ[measure, gain])
        if self.without_UPQ is None:
            return Interval(value=value, low=math.nan, high=math.nan)
        scaled = np.arctanh(np.clip([value, *self.without_UPQ[:, measure, gain]], -_NEARLY, _NEARLY))
        found = jackknifed(float(scaled[0]), scaled[1:].tolist())
        return Interval(value=value, low=math.tanh(found.low), high=math.tanh(found.high))


def _of_all(cells: Sequence[Cell]) -> NDArray[np.float64]:
    return _mean([cell.correlation(np.ones(len(cell.holds_SU), dtype=bool)) for cell in cells])


def _mean(several: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.asarray(np.mean(np.stack(several), axis=0))
