"""HardwareProgress: how far a measurement is, told on stderr with the time that is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from trainer.clock import clock

_SECONDS_BETWEEN = 2.0


class HardwareProgress:
    """Tells what is measured now.

    Args:
        weights: Section -> its share of the time of all that are measured, in any unit.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = dict(weights)
        self._started = time.monotonic()
        self._told_at = -_SECONDS_BETWEEN

    def tell(self, section: str, title: str, *, done: int, total: int) -> None:
        """Says it, unless it has just said something.

        Args:
            section: The one being measured; those before it in the order of the weights are done.
            title: What of it.
            done: Its parts that are done.
            total: Its parts.
        """
        now = time.monotonic()
        if now < self._told_at + _SECONDS_BETWEEN and done:
            return
        self._told_at = now
        names = list(self._weights)
        before = sum(self._weights[name] for name in names[: names.index(section)])
        share = (before + self._weights[section] * done / total) / sum(self._weights.values())
        spent = now - self._started
        left = f", ETA {clock(spent * (1 - share) / share)}" if share else ""
        print(f"{clock(spent)}: {section} {done}/{total}, {title}{left}", file=sys.stderr, flush=True)
