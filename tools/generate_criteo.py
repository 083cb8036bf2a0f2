"""Generates click logs in the Criteo layout from a planted teacher, and says how well they can be predicted at best.

Writes DIR/day_0.tsv.gz, DIR/day_1.tsv.gz, ... and, last, DIR/ceiling.json: for each day the rows, the click rate, and
the AUC and log loss (nats) of the true click probability. The same arguments give the same rows. Example:

  python tools/generate_criteo.py --output demo/logs --days 2 --rows-per-day 200000 --seed 7

Then prepare them: python tools/prepare_criteo.py --input 'demo/logs/day_*.tsv.gz' --output demo/data
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import polars as pl

from configs.errors import EXIT_DONE, EXIT_FAILURE, ChorusError, ConfigError
from trainer import storage
from trainer.data.criteo import DENSE_NAMES, SPARSE_NAMES
from trainer.data.teacher import Teacher, TeacherRows
from trainer.metrics.exact import BinaryMetrics, metrics_of_logits

CEILING_NAME = "ceiling.json"
_BLOCK_ROWS = 65_536
_GZIP_LEVEL = 1
_SECONDS_BETWEEN = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, generates, prints the ceilings; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        ceilings = generate(
            output=options.output,
            num_days=options.days,
            rows_per_day=options.rows_per_day,
            teacher=Teacher(options.seed, options.max_table_rows),
        )
    except ChorusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {options.output}: cannot be written ({error.strerror or error})", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        print(f"error: stopped; {options.output} is unfinished, the same command does it anew", file=sys.stderr)
        return EXIT_FAILURE
    print("best possible (the true click probability):")
    for name, ceiling in ceilings.items():
        print(
            f"  {name}: {ceiling.num_rows:,} rows, click rate {ceiling.label_rate:.4f},"
            f" AUC {ceiling.auc:.4f}, log loss {ceiling.log_loss_nats:.4f} nats"
        )
    return EXIT_DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/generate_criteo.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", required=True, metavar="DIR", help="folder to write the logs to")
    add("--days", type=int, default=2, metavar="N", help="number of log files (default: 2)")
    add("--rows-per-day", type=int, default=200_000, metavar="N", help="lines of each (default: 200,000)")
    add("--seed", type=int, default=7, metavar="N", help="of the teacher and of every row (default: 7)")
    add(
        "--max-table-rows",
        type=int,
        default=20_000,
        metavar="N",
        help="distinct values of the largest categorical feature (default: 20,000)",
    )
    return parser


def generate(*, output: str, num_days: int, rows_per_day: int, teacher: Teacher) -> dict[str, BinaryMetrics]:
    """Writes the logs of `num_days` days and, last, their ceilings; returns these by day.

    Raises:
        ConfigError: a number is not above zero.
    """
    for key, value in (("--days", num_days), ("--rows-per-day", rows_per_day)):
        if value < 1:
            raise ConfigError(f"{key}: {value} must be above zero")
    if teacher.seed < 0:
        raise ConfigError(f"--seed: {teacher.seed} must not be negative")
    storage.make_folder(output)
    ceiling_path = storage.join(output, CEILING_NAME)
    if storage.is_file(ceiling_path):
        storage.remove_file(ceiling_path)
    progress = _Progress(num_days * rows_per_day)
    ceilings = {}
    for day in range(num_days):
        first = day * rows_per_day
        path = storage.join(output, f"day_{day}.tsv.gz")
        ceilings[f"day_{day}"] = _write_day(path, range(first, first + rows_per_day), teacher, progress)
    storage.write_json(ceiling_path, {name: ceiling.as_json() for name, ceiling in ceilings.items()})
    return ceilings


def _write_day(path: str, row_ids: range, teacher: Teacher, progress: _Progress) -> BinaryMetrics:
    logits, labels = [], []
    # Neither a time nor a name in the header: the same rows are the same bytes.
    with (
        storage.open_file(path, "wb") as file,
        gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=file, mtime=0) as packed,
    ):
        for start, stop in _pairs_of(row_ids):
            rows = teacher.rows(np.arange(start, stop))
            packed.write(_lines(rows, teacher))
            logits.append(rows.logit)
            labels.append(rows.label)
            progress.add(stop - start)
    return metrics_of_logits(np.concatenate(labels), np.concatenate(logits))


def _pairs_of(row_ids: range) -> Iterator[tuple[int, int]]:
    return itertools.pairwise([*range(row_ids.start, row_ids.stop, _BLOCK_ROWS), row_ids.stop])


def _lines(rows: TeacherRows, teacher: Teacher) -> bytes:
    """The rows as text lines of a click log."""
    columns: dict[str, Any] = {"label": rows.label}
    for column, name in enumerate(DENSE_NAMES):
        columns[name] = _with_nulls(pl.Series(rows.dense_raw[:, column]), rows.dense_missing[:, column])
    for feature, name in enumerate(SPARSE_NAMES):
        index = rows.sparse_index[:, feature]
        distinct, place = np.unique(index, return_inverse=True)
        texts = pl.Series([f"{value:08x}" for value in teacher.hashes(feature, distinct).tolist()])
        columns[name] = _with_nulls(texts.gather(place), index < 0)
    text = pl.DataFrame(columns).write_csv(include_header=False, separator="\t", quote_style="never", null_value="")
    return text.encode()


def _with_nulls(series: pl.Series, missing: np.ndarray) -> pl.Series:
    return series.set(pl.Series(missing), None)


class _Progress:
    """Tells stderr now and then how far the generation is."""

    def __init__(self, num_rows_total: int) -> None:
        self._num_rows_total = num_rows_total
        self._num_rows = 0
        self._started = self._last = time.monotonic()

    def add(self, num_rows: int) -> None:
        """More rows are written."""
        self._num_rows += num_rows
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN:
            return
        self._last = now
        rate = self._num_rows / (now - self._started)
        left = (self._num_rows_total - self._num_rows) / rate
        share = self._num_rows / self._num_rows_total
        line = f"generating: {share:4.0%}, {self._num_rows:,} rows, {rate:,.0f} rows/s, {left:,.0f} s left"
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
