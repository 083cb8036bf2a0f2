"""Figures of a prediction folder: exact metrics of every member and of the merge, over all rows and part by part.

One column after the other is read, in chunks, from what was written; memory is bounded by
`memory_bytes` and one file's columns. Members are judged by their logits, the merge by its probability.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from modules.merge import MERGED
from trainer.clock import clock
from trainer.metrics.column_sums import ColumnSums, Kind
from trainer.metrics.exact import BinaryMetrics
from trainer.metrics.ranking import Source, num_passes, rank
from trainer.predictions.columns import LABEL, logit_column
from trainer.predictions.manifest import PredictionFile
from trainer.predictions.reading import Predictions

_SAY_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Figures as plain values, None where one is not defined; all empty where a row has no label.

    Attributes:
        metrics: Member or "merged" -> figures over all rows.
        by_part: Part -> the same over its rows.
        curves: Member or "merged" -> the points of its calibration curve over all rows.
    """

    metrics: Mapping[str, Any] = field(default_factory=dict)
    by_part: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, Any] = field(default_factory=dict)


def prediction_figures(
    predictions: Predictions,
    *,
    memory_bytes: int,
    beat: Callable[[str], None] = lambda _doing: None,
    say: Callable[[str], None] = lambda _line: None,
) -> Figures:
    """Exact figures of all columns, the same at every number of ranks.

    Args:
        predictions: What to judge.
        memory_bytes: What may be held beside one file's columns; with less, files are read more often.
        beat: Told of the work every few seconds or sooner.
        say: Told how far it is where it takes long.

    Raises:
        DataError: a score is NaN or infinite (names member, part and row), a label is neither 0 nor 1, or a file
            cannot be read.
    """
    if not predictions.has_labels or not predictions.num_rows:
        return Figures()
    columns: dict[str, tuple[str, Kind]] = {name: (logit_column(name), "logit") for name in predictions.members}
    columns[MERGED] = (MERGED, "probability")
    parts = {file.part for file in predictions.files}
    passes = 1 + num_passes(predictions.num_rows, memory_bytes=memory_bytes) + (len(parts) > 1)
    progress = _Progress(len(columns) * passes * predictions.num_rows, beat=beat, say=say)
    metrics: dict[str, Any] = {}
    by_part: dict[str, dict[str, Any]] = {part: {} for part in predictions.manifest.parts if part in parts}
    curves: dict[str, Any] = {}
    for name, (column, kind) in columns.items():
        reader = _Column(predictions, name=name, column=column, kind=kind, progress=progress)
        whole = ColumnSums(name, kind=kind)
        for part, of_part in by_part.items():
            sums = reader.sums(part)
            of_part[name] = reader.metrics(sums, part=part, memory_bytes=memory_bytes).as_json()
            whole.merge(sums)
        alone = next(iter(by_part.values()))[name] if len(by_part) == 1 else None
        metrics[name] = alone or reader.metrics(whole, part=None, memory_bytes=memory_bytes).as_json()
        curves[name] = [point.as_json() for point in whole.curve()]
    return Figures(metrics=metrics, by_part=by_part, curves=curves)


class _Progress:
    """Counts rows that were read, and says how far that is."""

    def __init__(self, num_rows_total: int, *, beat: Callable[[str], None], say: Callable[[str], None]) -> None:
        self.beat = beat
        self._say = say
        self._total = num_rows_total
        self._done = 0
        self._started = self._last = time.monotonic()

    def add(self, num_rows: int, *, column: str) -> None:
        self._done += num_rows
        self.beat(f"figures of {column}")
        now = time.monotonic()
        if now - self._last < _SAY_SECONDS or not self._done:
            return
        self._last = now
        share = min(self._done / self._total, 0.99)  # the number of passes is a guess where memory is short
        left = clock((now - self._started) * (1 - share) / share)
        self._say(f"figures: {share:4.0%}, now {column}, ETA {left}")


class _Column:
    """Reads one column of a prediction folder, over and over."""

    def __init__(self, predictions: Predictions, *, name: str, column: str, kind: Kind, progress: _Progress) -> None:
        self._predictions = predictions
        self._name = name
        self._column = column
        self._kind = kind
        self._progress = progress

    def sums(self, part: str) -> ColumnSums:
        """Sums over a part."""
        sums = ColumnSums(self._name, kind=self._kind)
        for file in self._files(part):
            found = self._predictions.read(file, [LABEL, self._column])
            sums.add(found[LABEL], found[self._column], part=part, first_row=file.first_row)
            self._progress.add(file.num_rows, column=self._name)
        return sums

    def metrics(self, sums: ColumnSums, *, part: str | None, memory_bytes: int) -> BinaryMetrics:
        """The figures of a part, or of all rows, from its sums and the order of its scores."""
        ranking = rank(self._source(part), num_rows=sums.num_rows, memory_bytes=memory_bytes, beat=self._progress.beat)
        return sums.metrics(auc=ranking.auc, auprc=ranking.auprc)

    def _files(self, part: str | None) -> Iterator[PredictionFile]:
        return (file for file in self._predictions.files if part is None or file.part == part)

    def _source(self, part: str | None) -> Source:
        def chunks() -> Iterator[tuple[Any, Any]]:
            for file in self._files(part):
                found = self._predictions.read(file, [LABEL, self._column])
                yield found[LABEL], found[self._column]
                self._progress.add(file.num_rows, column=self._name)

        return chunks
