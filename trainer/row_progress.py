"""Progress of a pass over rows, told on stderr now and then: share done, rate, time left."""

from __future__ import annotations

import sys
import time
from typing import Literal

from trainer.clock import clock

_SECONDS_BETWEEN = 2.0


class RowProgress:
    """Counts rows and says how far the pass is.

    Args:
        what: the word in front, such as "generating".
        num_rows_total: rows of the whole pass; bytes, where `unit` is MiB.
        unit: what is counted.
    """

    def __init__(self, what: str, num_rows_total: int, *, unit: Literal["rows", "MiB"] = "rows") -> None:
        self._what = what
        self._num_rows_total = num_rows_total
        self._unit, self._unit_size = unit, 1 << 20 if unit == "MiB" else 1
        self._num_rows = 0
        self._started = self._last = time.monotonic()

    def add(self, num_rows: int) -> None:
        """More rows are done."""
        self._num_rows += num_rows
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN or not self._num_rows:
            return
        self._last = now
        rate = self._num_rows / (now - self._started)
        left = clock((self._num_rows_total - self._num_rows) / rate)
        share = self._num_rows / self._num_rows_total
        done, rate = self._num_rows // self._unit_size, rate / self._unit_size
        line = f"{self._what}: {share:4.0%}, {done:,} {self._unit}, {rate:,.0f} {self._unit}/s, ETA {left}"
        print(line, file=sys.stderr, flush=True)
