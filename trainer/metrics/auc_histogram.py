"""AucHistogram: AUC of a stream of rows, with a proven bracket [lower, upper] around the exact one.

Rows are counted by label in 2^24 bins of their scores. The map from scores to bins keeps their
order (it only multiplies, adds and cuts off, which rounding keeps monotone, or cuts the last bits
off a float), so a pair in different bins is ordered for sure, and a pair in one bin may be a win, a
tie or a loss: the exact AUC lies between that of all losses and that of all wins. Both ends are
quotients of integers, rounded once, so that the rounded exact AUC lies between them, too.

    logits          bins of 2^-19 (1.9e-6) from -16 to 16, and what is beyond in those at the ends
    probabilities   float32 from 2^-32 to 1 without their last 4 bits: bins of 2^-20 to 2^-19 of the probability

With log-odds spread by 1, the bracket is about 0.28 bins' widths wide: 5e-7. It is wide where many
positives and negatives share one bin: of a column of one value it is [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.metrics.column_sums import Kind

NUM_BINS = 1 << 24
LOGIT_LIMIT = 16.0
_LOWEST_BITS = 95 << 23  # of the float32 2^-32
_CUT_BITS = 4
_CHUNK_ROWS = 1 << 14  # what is made of a chunk stays in the cache


@dataclass(frozen=True, kw_only=True)
class AucBracket:
    """Bounds of the exact AUC; NaN unless both classes are there."""

    lower: float
    upper: float

    @property
    def middle(self) -> float:
        """The AUC where pairs of one bin count half."""
        return (self.lower + self.upper) / 2

    @property
    def width(self) -> float:
        """How far the bounds are apart."""
        return self.upper - self.lower


class AucHistogram:
    """Counts of one column's rows; 268 MB, of which only touched pages are held.

    Args:
        kind: What its scores are.
    """

    def __init__(self, *, kind: Kind) -> None:
        self.kind = kind
        self.counts = np.zeros(2 * NUM_BINS, dtype=np.int64)  # of negatives, then of positives; they add up over ranks

    def add(self, labels: NDArray[np.integer], scores: NDArray[np.floating]) -> None:
        """Counts rows [n]; labels are 0 or 1, scores finite."""
        one = np.int64(1)  # of the counts' own type: another type is ten times slower
        for first in range(0, len(labels), _CHUNK_ROWS):
            bins = bins_of(scores[first : first + _CHUNK_ROWS], kind=self.kind)
            bins += labels[first : first + _CHUNK_ROWS].astype(np.int64) * NUM_BINS
            np.add.at(self.counts, bins, one)

    def merge(self, other: AucHistogram) -> None:
        """Adds another's rows to these."""
        assert self.kind == other.kind, "columns of two kinds"
        self.counts += other.counts

    def bracket(self) -> AucBracket:
        """Bounds of the exact AUC."""
        negatives, positives = self.counts[:NUM_BINS], self.counts[NUM_BINS:]
        num_negatives, num_positives = int(negatives.sum()), int(positives.sum())
        pairs = num_negatives * num_positives
        if not pairs:
            return AucBracket(lower=math.nan, upper=math.nan)
        sure, unknown, below = 0, 0, 0
        for first in range(0, NUM_BINS, _CHUNK_ROWS):
            negative, positive = negatives[first : first + _CHUNK_ROWS], positives[first : first + _CHUNK_ROWS]
            total = int(negative.sum())
            if positive.any():
                used = np.flatnonzero(positive)
                type_ = np.int64 if pairs < 1 << 63 else object
                counts = positive[used].astype(type_)
                before = np.cumsum(negative) - negative
                sure += below * int(counts.sum()) + int(counts @ before[used].astype(type_))
                unknown += int(counts @ negative[used].astype(type_))
            below += total
        return AucBracket(lower=sure / pairs, upper=(sure + unknown) / pairs)


def bins_of(scores: NDArray[np.floating], *, kind: Kind) -> NDArray[np.int64]:
    """Bin [n] of each score, 0 to NUM_BINS - 1; a higher score is never in a lower bin."""
    if kind == "logit":
        scaled = scores.astype(np.float64)
        scaled += LOGIT_LIMIT
        scaled *= NUM_BINS / (2 * LOGIT_LIMIT)
        return np.clip(scaled, 0, NUM_BINS - 1, out=scaled).astype(np.int64)
    bits = scores.astype(np.float32).view(np.int32).astype(np.int64)  # of numbers from 0 on they have the same order
    return np.clip((bits - _LOWEST_BITS) >> _CUT_BITS, 0, NUM_BINS - 1)
