"""AucSpeed: time and memory of exact and streaming figures over columns as long as a day of the Criteo 1TB log.

The columns are made: log-odds of clicks N(-3.4, 1), labels drawn from them (about 5 %, thinned to
3.4 %), and each column the log-odds with noise of its own. As float32 many rows tie by themselves;
one in a hundred is put on the coarse grid of float16 besides.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from trainer.analysis.bench.memory_watch import MemoryWatch, anonymous_bytes
from trainer.metrics.column_meter import ColumnMeter
from trainer.metrics.ranking import Ranking, Source, rank
from trainer.predictions.columns import LABEL, logit_column

CRITEO_1TB_TEST_ROWS = 89_137_319  # the half of the last day that MLPerf tests on
_CHUNK_ROWS = 1 << 20
_KEPT_POSITIVES = 0.7
_GRID_EVERY = 100
_SEED = 89
_MIB = 1 << 20
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class ColumnSpeed:
    """One column, both ways.

    Attributes:
        exact_seconds: Of the exact AUC and average precision, with the column's reading.
        exact_cpu_seconds: Processor time of that, which other work on the machine prolongs less.
        exact_bytes: Peak memory of that, above what was held before.
        streaming_seconds: Of all streaming figures: log loss, Brier, calibration and AUC's bracket.
        streaming_cpu_seconds: Processor time of that.
        streaming_bytes: Peak memory of that.
        auc: The exact AUC.
        lower: The bracket's lower end.
        upper: Its upper end.
    """

    exact_seconds: float
    exact_cpu_seconds: float
    exact_bytes: int
    streaming_seconds: float
    streaming_cpu_seconds: float
    streaming_bytes: int
    auc: float
    lower: float
    upper: float


@dataclass(frozen=True, kw_only=True)
class AucSpeed:
    """What was measured."""

    num_rows: int
    label_rate: float
    distinct_share: float  # of the first column's first rows: distinct values over rows
    from_files: bool  # whether seconds hold the reading of Parquet files
    load_average: float  # of the machine, when it was over
    columns: tuple[ColumnSpeed, ...]

    @property
    def exact_seconds(self) -> float:
        """Of all columns, one after the other."""
        return sum(column.exact_seconds for column in self.columns)

    @property
    def bracket_width(self) -> float:
        """The widest bracket."""
        return max(column.upper - column.lower for column in self.columns)

    def lines(self) -> list[str]:
        """The figures, for people."""
        inside = all(column.lower <= column.auc <= column.upper for column in self.columns)
        return [
            f"AUC of {self.num_rows:,} rows, {self.label_rate:.2%} positives,"
            f" {'from Parquet files' if self.from_files else 'from memory'}; {len(self.columns)} columns;"
            f" load average {self.load_average:.1f} on {os.cpu_count()} cores",
            f"exact, with average precision:  {_spread([column.exact_seconds for column in self.columns])} a column"
            f" (processor {_spread([column.exact_cpu_seconds for column in self.columns])}),"
            f" {max(column.exact_bytes for column in self.columns) / _MIB:,.0f} MiB;"
            f" all columns {self.exact_seconds:.1f} s",
            f"streaming, with all other sums: {_spread([column.streaming_seconds for column in self.columns])} a column"
            f" (processor {_spread([column.streaming_cpu_seconds for column in self.columns])}),"
            f" {max(column.streaming_bytes for column in self.columns) / _MIB:,.0f} MiB;"
            f" bracket {self.bracket_width:.2e} wide, the exact AUC is {'inside' if inside else 'OUTSIDE'}",
        ]


def _spread(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.2f} s, at most {max(seconds):.2f} s"


def measure(
    *,
    num_rows: int = CRITEO_1TB_TEST_ROWS,
    num_columns: int = 9,
    folder: str | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> AucSpeed:
    """Makes columns one after the other, and times both ways on each.

    Args:
        num_rows: Rows of a column.
        num_columns: How many.
        folder: Where each column is written as Parquet and read from, removed at the end; None: columns stay in memory.
        say: Told of each column.
    """
    log_odds, labels = _made_labels(num_rows)
    speeds: list[ColumnSpeed] = []
    distinct = 0.0
    for index in range(num_columns):
        logits = made_logits(log_odds, index=index)
        if not index:
            distinct = len(np.unique(logits[:_CHUNK_ROWS])) / max(1, len(logits[:_CHUNK_ROWS]))
        if folder is None:
            speeds.append(_measure_column(_in_memory(labels, logits), num_rows=num_rows))
        else:
            path = os.path.join(folder, f"column_{index}.parquet")
            os.makedirs(folder, exist_ok=True)
            pq.write_table(pa.table({LABEL: labels, logit_column("made"): logits}), path, row_group_size=_CHUNK_ROWS)
            del logits
            speeds.append(_measure_column(_in_file(path), num_rows=num_rows))
            os.remove(path)
        last = speeds[-1]
        say(
            f"column {index + 1} of {num_columns}: exact {last.exact_seconds:.2f} s,"
            f" streaming {last.streaming_seconds:.2f} s"
        )
    return AucSpeed(
        num_rows=num_rows,
        label_rate=float(labels.mean()) if num_rows else 0.0,
        distinct_share=distinct,
        from_files=folder is not None,
        load_average=os.getloadavg()[0],
        columns=tuple(speeds),
    )


def made_logits(log_odds: NDArray[np.float32], *, index: int) -> NDArray[np.float32]:
    """A column [n]: the log-odds with noise, every hundredth row on the grid of float16."""
    random = np.random.default_rng((_SEED, index))
    logits = np.empty_like(log_odds)
    for first in range(0, len(log_odds), _CHUNK_ROWS):
        chunk = log_odds[first : first + _CHUNK_ROWS]
        logits[first : first + _CHUNK_ROWS] = chunk + np.float32(0.3) * random.standard_normal(len(chunk), np.float32)
    logits[::_GRID_EVERY] = logits[::_GRID_EVERY].astype(np.float16)
    return logits


def _made_labels(num_rows: int) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    random = np.random.default_rng(_SEED)
    log_odds, labels = np.empty(num_rows, np.float32), np.empty(num_rows, np.int8)
    for first in range(0, num_rows, _CHUNK_ROWS):
        chunk = random.standard_normal(min(_CHUNK_ROWS, num_rows - first), np.float32) - np.float32(3.4)
        clicked = random.random(len(chunk), np.float32) < np.float32(_KEPT_POSITIVES) / (1 + np.exp(-chunk))
        log_odds[first : first + _CHUNK_ROWS], labels[first : first + _CHUNK_ROWS] = chunk, clicked
    return log_odds, labels


def _in_memory(labels: NDArray[np.int8], logits: NDArray[np.float32]) -> Source:
    def chunks() -> Iterator[tuple[NDArray[np.int8], NDArray[np.float32]]]:
        for first in range(0, len(labels), _CHUNK_ROWS):
            yield labels[first : first + _CHUNK_ROWS], logits[first : first + _CHUNK_ROWS]

    return chunks


def _in_file(path: str) -> Source:
    def chunks() -> Iterator[tuple[NDArray[np.int8], NDArray[np.float32]]]:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                yield table.column(LABEL).to_numpy(), table.column(logit_column("made")).to_numpy()

    return chunks


def _measure_column(source: Source, *, num_rows: int) -> ColumnSpeed:
    def exact() -> Ranking:
        return rank(source, num_rows=num_rows)

    def streaming() -> ColumnMeter:
        meter = ColumnMeter("made", kind="logit")
        for labels, scores in source():
            meter.add(labels, scores)
        return meter

    exact_result = _timed(exact)
    streaming_result = _timed(lambda: streaming().auc_bracket())
    return ColumnSpeed(
        exact_seconds=exact_result.seconds,
        exact_cpu_seconds=exact_result.cpu_seconds,
        exact_bytes=exact_result.num_bytes,
        streaming_seconds=streaming_result.seconds,
        streaming_cpu_seconds=streaming_result.cpu_seconds,
        streaming_bytes=streaming_result.num_bytes,
        auc=exact_result.result.auc,
        lower=streaming_result.result.lower,
        upper=streaming_result.result.upper,
    )


@dataclass(frozen=True, kw_only=True)
class _Timed(Generic[_Result]):
    """What came out, and the peak of the memory above that at the start."""

    result: _Result
    seconds: float
    cpu_seconds: float
    num_bytes: int


def _timed(work: Callable[[], _Result]) -> _Timed[_Result]:
    before = anonymous_bytes(os.getpid()) or 0
    with MemoryWatch(os.getpid()) as watch:
        started, cpu_started = time.perf_counter(), time.thread_time()
        result = work()
        seconds, cpu_seconds = time.perf_counter() - started, time.thread_time() - cpu_started
    num_bytes = max(0, watch.peak.of_one_process_bytes - before)
    return _Timed(result=result, seconds=seconds, cpu_seconds=cpu_seconds, num_bytes=num_bytes)
