"""Figures of a prediction folder: exact metrics of every member and of the merge, over all rows and part by part.

One column after the other is read, in chunks, from what was written; memory is bounded by
`memory_bytes` and one file's columns. Members and the merge are judged by their logits, so on one scale.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from modules.merge import MERGED
from trainer.clock import clock
from trainer.metrics.column_meter import ColumnMeter
from trainer.metrics.column_sums import ColumnSums, CurvePoint
from trainer.metrics.exact import BinaryMetrics
from trainer.metrics.ranking import Source, num_passes, rank
from trainer.predictions.columns import LABEL, logit_column
from trainer.predictions.manifest import PredictionFile
from trainer.predictions.reading import Predictions

Form = Literal["exact", "streaming"]
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
    form: Form = "exact",
    beat: Callable[[str], None] = lambda _doing: None,
    say: Callable[[str], None] = lambda _line: None,
) -> Figures:
    """Figures of all columns, the same at every number of ranks.

    Args:
        predictions: What to judge.
        memory_bytes: What exact ones may hold beside one file's columns; with less, files are read more often.
        form: exact; or streaming, which reads each column once: AUC is then the middle of its bracket auc_lower to
            auc_upper, and there is no average precision. A column takes up to 600 MB.
        beat: Told of the work every few seconds or sooner.
        say: Told how far it is where it takes long.

    Raises:
        DataError: a score is NaN or infinite (names member, part and row), a label is neither 0 nor 1, or a file
            cannot be read.
    """
    if not predictions.has_labels or not predictions.num_rows:
        return Figures()
    columns = {name: logit_column(name) for name in (*predictions.members, MERGED)}
    parts = {file.part for file in predictions.files}
    passes = 1
    if form == "exact":
        passes += num_passes(predictions.num_rows, memory_bytes=memory_bytes) + (len(parts) > 1)
    progress = _Progress(len(columns) * passes * predictions.num_rows, beat=beat, say=say)
    metrics: dict[str, Any] = {}
    by_part: dict[str, dict[str, Any]] = {part: {} for part in predictions.manifest.parts if part in parts}
    curves: dict[str, Any] = {}
    for name, column in columns.items():
        reader = _Column(predictions, name=name, column=column, progress=progress)
        of_parts, metrics[name], curve = (
            _exact(reader, list(by_part), memory_bytes=memory_bytes)
            if form == "exact"
            else _streaming(reader, list(by_part))
        )
        for part, of_part in of_parts.items():
            by_part[part][name] = of_part
        curves[name] = [point.as_json() for point in curve]
    return Figures(metrics=metrics, by_part=by_part, curves=curves)


_OfColumn = tuple[dict[str, Any], dict[str, Any], tuple[CurvePoint, ...]]  # by part, of all rows, its curve


def _exact(reader: _Column, parts: Sequence[str], *, memory_bytes: int) -> _OfColumn:
    whole, of_parts = reader.no_sums(), {}
    for part in parts:
        sums = reader.no_sums()
        reader.fill(sums, part)
        of_parts[part] = reader.metrics(sums, part=part, memory_bytes=memory_bytes).as_json()
        whole.merge(sums)
    if len(parts) == 1:
        return of_parts, of_parts[parts[0]], whole.curve()
    return of_parts, reader.metrics(whole, part=None, memory_bytes=memory_bytes).as_json(), whole.curve()


def _streaming(reader: _Column, parts: Sequence[str]) -> _OfColumn:
    whole, of_parts = reader.no_meter(), {}
    for part in parts:
        meter = reader.no_meter() if len(parts) > 1 else whole
        reader.fill(meter, part)
        of_parts[part] = _bracketed(meter)
        if meter is not whole:
            whole.merge(meter)
    return of_parts, _bracketed(whole), whole.curve()


def _bracketed(meter: ColumnMeter) -> dict[str, float | int | None]:
    bracket = meter.auc_bracket()
    ends = {"auc_lower": bracket.lower, "auc_upper": bracket.upper}
    return meter.metrics().as_json() | {name: end if math.isfinite(end) else None for name, end in ends.items()}


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

    def __init__(self, predictions: Predictions, *, name: str, column: str, progress: _Progress) -> None:
        self._predictions = predictions
        self._name = name
        self._column = column
        self._progress = progress

    def no_sums(self) -> ColumnSums:
        """Sums of no rows yet."""
        return ColumnSums(self._name, kind="logit")

    def no_meter(self) -> ColumnMeter:
        """A meter of no rows yet."""
        return ColumnMeter(self._name, kind="logit")

    def fill(self, sums: ColumnSums | ColumnMeter, part: str) -> None:
        """Adds the rows of a part."""
        for file in self._files(part):
            found = self._predictions.read(file, [LABEL, self._column])
            sums.add(found[LABEL], found[self._column], part=part, first_row=file.first_row)
            self._progress.add(file.num_rows, column=self._name)

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
