"""ColumnSums: the additive figures of one prediction column, with its calibration curve; the same in any row order.

Log loss is in nats; Brier's score is the mean of (probability - label)^2 (Brier 1950). What a row
adds is computed in float64 from the column as written and summed exactly (trainer/metrics/exact_sum.py),
so ranks, jobs and days add up to the same bits in any order. (numpy computes exp and log by the
machine's instructions: another kind of processor may differ in a row's last digit.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from trainer.metrics.exact import BinaryMetrics, LogitFigures, from_sums, log_losses
from trainer.metrics.exact_sum import ExactSum, ExactSums

Kind = Literal["logit", "probability"]
# The curve's bins: equal widths in the logit, and all beyond in the two at the ends.
CURVE_EDGES = np.arange(-8.0, 8.25, 0.5)
_NUM_CURVE_BINS = len(CURVE_EDGES) + 1
_EDGES: Mapping[Kind, NDArray[np.float64]] = {"logit": CURVE_EDGES, "probability": 1.0 / (1.0 + np.exp(-CURVE_EDGES))}
_CHUNK_ROWS = 1 << 14  # what is made of a chunk stays in the cache


@dataclass(frozen=True, kw_only=True)
class RowFigures:
    """What each row adds, float64 [n]."""

    log_loss_nats: NDArray[np.float64]
    brier: NDArray[np.float64]
    probability: NDArray[np.float64]

    @staticmethod
    def of(labels: NDArray[np.integer], scores: NDArray[np.floating], *, kind: Kind) -> RowFigures:
        """Figures of labels [n] and logits or probabilities [n]; probabilities' log losses as `exact.log_losses`."""
        if kind == "logit":
            found = LogitFigures.of(labels, scores)
            losses, probability = found.log_loss_nats, found.probability
        else:
            losses, probability = log_losses(labels, scores), scores.astype(np.float64)
        return RowFigures(log_loss_nats=losses, brier=np.square(probability - labels), probability=probability)


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One bin of a calibration curve: rows whose probability is in [lowest, highest)."""

    lowest: float
    highest: float
    num_rows: int
    label_rate: float
    mean_probability: float

    def as_json(self) -> dict[str, float | int]:
        """Plain values."""
        return asdict(self)


class ColumnSums:
    """Sums over the rows of one column.

    Args:
        name: The member, or merged, for messages.
        kind: What its scores are.
    """

    def __init__(self, name: str, *, kind: Kind) -> None:
        self.name = name
        self.kind = kind
        self._counts = np.zeros((2, _NUM_CURVE_BINS), dtype=np.int64)  # rows by label and bin
        self._log_loss = ExactSum()
        self._brier = ExactSum()
        self._probability = ExactSums(_NUM_CURVE_BINS)

    @property
    def num_rows(self) -> int:
        """Rows that were added."""
        return int(self._counts.sum())

    @property
    def num_positives(self) -> int:
        """Rows of label 1."""
        return int(self._counts[1].sum())

    def add(
        self, labels: NDArray[np.integer], scores: NDArray[np.floating], *, part: str = "", first_row: int = 0
    ) -> None:
        """Adds rows of a part that lie together.

        Args:
            labels: 0 or 1, [n].
            scores: [n].
            part: Their part, for messages.
            first_row: Number of the first in its part, for messages.

        Raises:
            DataError: a score is NaN, infinite or, of a probability, outside [0, 1], or a label is neither 0 nor 1.
        """
        refuse_bad_rows(labels, scores, column=self.name, kind=self.kind, part=part, first_row=first_row)
        for first in range(0, len(labels), _CHUNK_ROWS):
            label, score = labels[first : first + _CHUNK_ROWS], scores[first : first + _CHUNK_ROWS]
            rows = RowFigures.of(label, score, kind=self.kind)
            bins = _curve_bins(score, kind=self.kind)
            np.add.at(self._counts.reshape(-1), bins + _NUM_CURVE_BINS * label.astype(np.int64), np.int64(1))
            self._log_loss += ExactSum.of(rows.log_loss_nats)
            self._brier += ExactSum.of(rows.brier)
            self._probability.add(rows.probability, bins)

    def merge(self, other: ColumnSums) -> None:
        """Adds another's rows to these."""
        assert self.kind == other.kind, "columns of two kinds"
        self._counts += other._counts
        self._log_loss += other._log_loss
        self._brier += other._brier
        self._probability.merge(other._probability)

    def metrics(self, *, auc: float, auprc: float = math.nan) -> BinaryMetrics:
        """The figures, with those that come from elsewhere."""
        probabilities = sum((self._probability.of(index) for index in range(_NUM_CURVE_BINS)), ExactSum())
        return from_sums(
            num_rows=self.num_rows,
            label_sum=self.num_positives,
            loss_sum=self._log_loss.value,
            probability_sum=probabilities.value,
            brier_sum=self._brier.value,
            auc=auc,
            auprc=auprc,
        )

    def curve(self) -> tuple[CurvePoint, ...]:
        """The calibration curve: the bins that hold rows, from the lowest probability up."""
        edges = [0.0, *_EDGES["probability"].tolist(), 1.0]
        rows = self._counts.sum(axis=0)
        return tuple(
            CurvePoint(
                lowest=edges[index],
                highest=edges[index + 1],
                num_rows=int(rows[index]),
                label_rate=int(self._counts[1, index]) / int(rows[index]),
                mean_probability=self._probability.of(index).over(int(rows[index])),
            )
            for index in np.flatnonzero(rows).tolist()
        )

    def state(self) -> dict[str, NDArray[np.int64]]:
        """All sums as int64 arrays: those of several ranks are added up to the state of all their rows."""
        sums = [self._probability.of(index).limbs() for index in range(_NUM_CURVE_BINS)]
        return {
            "counts": self._counts.copy(),
            "log_loss": self._log_loss.limbs(),
            "brier": self._brier.limbs(),
            "probability": np.stack(sums),
        }

    @staticmethod
    def from_state(name: str, *, kind: Kind, state: Mapping[str, Any]) -> ColumnSums:
        """Sums from a `state`, or the sum of several."""
        sums = ColumnSums(name, kind=kind)
        sums._counts = np.array(state["counts"], dtype=np.int64)
        sums._log_loss = ExactSum.from_limbs(state["log_loss"])
        sums._brier = ExactSum.from_limbs(state["brier"])
        sums._probability = ExactSums.from_sums([ExactSum.from_limbs(limbs) for limbs in state["probability"]])
        return sums


def _curve_bins(scores: NDArray[np.floating], *, kind: Kind) -> NDArray[np.int64]:
    """Bin [n] of each score; a score at an edge is in the bin above it."""
    if kind == "logit":  # edges are halves, which floats hold exactly
        return (np.floor(np.clip(scores, -8.5, 8.0).astype(np.float64) * 2.0) + 17.0).astype(np.int64)
    return _EDGES[kind].searchsorted(scores.astype(np.float64), side="right")


def refuse_bad_rows(
    labels: NDArray[np.integer],
    scores: NDArray[np.floating],
    *,
    column: str,
    kind: Kind,
    part: str,
    first_row: int,
) -> None:
    """Refuses rows that have no figures.

    Raises:
        DataError: names the first such row: its score is NaN, infinite or, of a probability, outside [0, 1], or its
            label is neither 0 nor 1.
    """
    if not len(labels):
        return
    least, most = (-np.inf, np.inf) if kind == "logit" else (np.nextafter(0.0, -1), np.nextafter(1.0, 2))
    if not (scores.max() < most and scores.min() > least):  # NaN is neither
        index = int(np.argmin((scores < most) & (scores > least)))
        raise DataError(
            f"the {kind} of {column!r} for row {first_row + index:_} of part {part!r} is {scores[index]},"
            f" and has no figures; score again without {column!r}, or from an earlier checkpoint"
        )
    known = (labels == 0) | (labels == 1)
    if not known.all():
        index = int(np.argmin(known))
        raise DataError(
            f"the label of row {first_row + index:_} of part {part!r} is {labels[index]}; figures need 0 or 1"
        )
