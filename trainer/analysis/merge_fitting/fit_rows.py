"""FitRows: the labels and the members' logits that merge rules are fitted and judged on.

Legend: N rows, M members.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from configs.errors import DataError
from modules.merge import MergeRule
from trainer.predictions.columns import LABEL, ROW, logit_column
from trainer.predictions.reading import Predictions
from trainer.row_progress import RowProgress

CHUNK_ROWS = 1 << 17


@dataclass(frozen=True, kw_only=True)
class FitRows:
    """Rows in their order, all of a folder's or evenly spaced ones."""

    members: tuple[str, ...]
    labels: NDArray[np.int8]  # [N], 0 or 1
    logits: NDArray[np.float32]  # [N, M], column-major
    num_rows_total: int  # how many they were drawn from

    @property
    def num_rows(self) -> int:
        """Rows that are here."""
        return len(self.labels)

    def where(self, keep: NDArray[np.bool_]) -> FitRows:
        """Those rows alone, copied."""
        logits = np.empty((int(keep.sum()), len(self.members)), dtype=np.float32, order="F")
        for column in range(len(self.members)):
            logits[:, column] = self.logits[keep, column]
        return replace(self, labels=self.labels[keep], logits=logits)

    def at_most(self, num_rows: int) -> FitRows:
        """Evenly spaced rows, that many or all."""
        if self.num_rows <= num_rows:
            return self
        keep = np.zeros(self.num_rows, dtype=bool)
        keep[spaced(self.num_rows, num_rows)] = True
        return self.where(keep)

    def refuse_one_class(self, *, remedy: str = "take rows of more parts") -> None:
        """Refuses labels that are all equal.

        Raises:
            DataError: they are.
        """
        clicks = int(self.labels.sum())
        if clicks in (0, self.num_rows):
            raise DataError(
                f"{self.num_rows:,} rows with {clicks:,} clicks: a fit needs rows with and without a click; {remedy}"
            )


def spaced(num_rows: int, wanted: int) -> NDArray[np.int64]:
    """Numbers of `wanted` evenly spaced rows, rising; all where there are fewer."""
    count = min(num_rows, wanted)
    # Python's integers would not overflow; 2^63 / 89 million rows leaves room for 10^11 wanted ones, so these do not.
    return np.arange(count, dtype=np.int64) * num_rows // max(count, 1)


def read_fit_rows(predictions: Predictions, *, max_rows: int) -> FitRows:
    """Labels and logits of a prediction folder; with more than `max_rows`, evenly spaced ones.

    No more than a prediction file is in memory beside them.

    Raises:
        DataError: a file was changed, there are no rows, a row without a label or a logit that is not finite, or one
            class of labels alone.
    """
    if not predictions.num_rows:
        raise DataError(f"{predictions.folder!r} has no rows there, and a fit needs some; name other parts")
    if not predictions.has_labels:
        raise DataError(
            f"{predictions.folder!r} has rows without a label, and a fit needs labels; name labelled parts with --parts"
        )
    predictions.check_bytes(advance=RowProgress("checking", predictions.num_rows).add)
    chosen = spaced(predictions.num_rows, max_rows)
    labels = np.empty(len(chosen), dtype=np.int8)
    logits = np.empty((len(chosen), len(predictions.members)), dtype=np.float32, order="F")
    columns = [logit_column(member) for member in predictions.members]
    progress = RowProgress("reading", predictions.num_rows)
    before = done = 0
    for file in predictions.files:
        stop = int(np.searchsorted(chosen, before + file.num_rows))
        if stop > done:
            here = chosen[done:stop] - before
            read = predictions.read(file, [LABEL, ROW, *columns])
            labels[done:stop] = read[LABEL][here]
            for index, column in enumerate(columns):
                values = read[column][here]
                bad = np.flatnonzero(~np.isfinite(values))
                if len(bad):
                    raise DataError(
                        f"member {predictions.members[index]}: logit {values[bad[0]]} at row"
                        f" {read[ROW][here[bad[0]]]} of {file.part}; score again with a checkpoint that is sound"
                    )
                logits[done:stop, index] = values
        before += file.num_rows
        done = stop
        progress.add(file.num_rows)
    rows = FitRows(members=predictions.members, labels=labels, logits=logits, num_rows_total=predictions.num_rows)
    rows.refuse_one_class()
    return rows


def merged_logits(rule: MergeRule, logits_NM: NDArray[np.float32]) -> NDArray[np.float64]:
    """The rule's merged logit [N], chunk by chunk."""
    merged = np.empty(len(logits_NM), dtype=np.float64)
    for first in range(0, len(merged), CHUNK_ROWS):
        here = slice(first, first + CHUNK_ROWS)
        merged[here] = rule.logits(torch.from_numpy(logits_NM[here])).numpy()
    return merged
