"""ColumnMeter: everything that is known of one prediction column from a single pass over it, additive.

States add up over ranks, parts and jobs in any order, to the same bits. AUC comes as a bracket;
trainer/metrics/ranking.py has the exact one, which reads the column anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from trainer import storage
from trainer.metrics.auc_histogram import NUM_BINS, AucBracket, AucHistogram
from trainer.metrics.column_sums import ColumnSums, CurvePoint, Kind
from trainer.metrics.exact import BinaryMetrics

_HISTOGRAM = "histogram"


class ColumnMeter:
    """Sums, calibration curve and AUC's bracket of one column; at most 300 MB.

    Args:
        name: The member, or merged, for messages.
        kind: What its scores are.
    """

    def __init__(self, name: str, *, kind: Kind) -> None:
        self._sums = ColumnSums(name, kind=kind)
        self._histogram = AucHistogram(kind=kind)

    def add(
        self, labels: NDArray[np.integer], scores: NDArray[np.floating], *, part: str = "", first_row: int = 0
    ) -> None:
        """Adds rows of a part that lie together, as `ColumnSums.add`.

        Raises:
            DataError: a score is NaN, infinite or, of a probability, outside [0, 1], or a label is neither 0 nor 1.
        """
        self._sums.add(labels, scores, part=part, first_row=first_row)
        self._histogram.add(labels, scores)

    def merge(self, other: ColumnMeter) -> None:
        """Adds another's rows to these."""
        self._sums.merge(other._sums)
        self._histogram.merge(other._histogram)

    @property
    def num_rows(self) -> int:
        """Rows that were added."""
        return self._sums.num_rows

    def auc_bracket(self) -> AucBracket:
        """Bounds of the exact AUC."""
        return self._histogram.bracket()

    def metrics(self) -> BinaryMetrics:
        """The figures; AUC is the bracket's middle, and average precision, which needs the order, NaN."""
        return self._sums.metrics(auc=self.auc_bracket().middle)

    def curve(self) -> tuple[CurvePoint, ...]:
        """The calibration curve."""
        return self._sums.curve()

    def state(self) -> dict[str, NDArray[np.int64]]:
        """All of it as int64 arrays of fixed shapes: added up over ranks they are the state of all rows."""
        return {**self._sums.state(), _HISTOGRAM: self._histogram.counts}

    @staticmethod
    def from_state(name: str, *, kind: Kind, state: Mapping[str, Any]) -> ColumnMeter:
        """A meter from a `state`, or the sum of several."""
        meter = ColumnMeter(name, kind=kind)
        meter._sums = ColumnSums.from_state(name, kind=kind, state=state)
        meter._histogram.counts = np.asarray(state[_HISTOGRAM], dtype=np.int64)
        return meter

    def write(self, path: str) -> None:
        """Writes the state as .npz; of the histogram only the bins that hold rows."""
        state: dict[str, Any] = dict(self.state())
        counts = state.pop(_HISTOGRAM)
        bins = np.flatnonzero(counts)
        state |= {"name": self._sums.name, "kind": self._sums.kind, "bins": bins, "bin_counts": counts[bins]}
        with storage.open_file(path, "wb") as file:
            np.savez(file, **state)

    @staticmethod
    def read(path: str) -> ColumnMeter:
        """The meter that was written to a file.

        Raises:
            DataError: the file is not one of a meter.
        """
        try:
            with storage.open_file(path, "rb") as file, np.load(file) as found:
                state = dict(found.items())
            counts = np.zeros(2 * NUM_BINS, dtype=np.int64)
            counts[state.pop("bins")] = state.pop("bin_counts")
            name, kind = str(state.pop("name")), str(state.pop("kind"))
            known: dict[str, Kind] = {one: one for one in get_args(Kind)}
            return ColumnMeter.from_state(name, kind=known[kind], state={**state, _HISTOGRAM: counts})
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise DataError(f"{path} does not hold a column's figures ({error}); write it again") from error
