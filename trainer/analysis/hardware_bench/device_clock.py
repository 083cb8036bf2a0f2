"""DeviceClock: seconds that a device spends on what it is given, as CPU time passes or as a GPU's stream marks it."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


class DeviceClock:
    """Times work on a device.

    Args:
        device: Where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"

    def stamp(self) -> Any:
        """A mark behind all that the device was given so far."""
        if not self._cuda:
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, before: Any, after: Any) -> float:
        """Between two marks."""
        if not self._cuda:
            return float(after - before)
        after.synchronize()
        return float(before.elapsed_time(after)) / 1e3

    def median(self, work: Callable[[], object], *, seconds: float, repeats: int) -> float:
        """Seconds of one call of `work`: the median of `repeats` windows that take some `seconds` together.

        A first call, which is not counted, brings code and memory in; a second one says how many fit into a window.
        """
        work()
        num_calls = 1
        once = self._of_calls(work, num_calls)
        num_calls = max(1, math.floor(seconds / repeats / max(once, 1e-9)))
        return statistics.median(self._of_calls(work, num_calls) for _ in range(repeats))

    def _of_calls(self, work: Callable[[], object], num_calls: int) -> float:
        before = self.stamp()
        for _ in range(num_calls):
            work()
        return self.seconds(before, self.stamp()) / num_calls
