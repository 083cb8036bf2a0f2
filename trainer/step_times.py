"""StepTimes: where a step's time goes: data, lookup and communication, dense, optimizer.

On a GPU the marks are CUDA events on the current stream, read when the figures are asked for. Data is what the training
loop itself waits for a batch, by the clock on the wall: batches are made ahead in another thread, and no stream knows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import nn
from torchrec.sparse.jagged_tensor import KeyedTensor

Item = TypeVar("Item")

_PHASES = {
    # (from mark, to mark) -> what the time between them was spent on
    ("forward", "looked_up"): "lookup_and_communication",
    ("looked_up", "embedding_gradient"): "dense",
    ("embedding_gradient", "backward_done"): "lookup_and_communication",
    ("backward_done", "reduced"): "lookup_and_communication",
    ("reduced", "stepped"): "optimizer",
}
PHASES = ("data", "lookup_and_communication", "dense", "optimizer")


class StepTimes:
    """Seconds per phase since the last `take`.

    Args:
        device: Where the model runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._marks: list[tuple[str, Any]] = []
        self._data_seconds = 0.0

    def mark(self, event: str) -> None:
        """Notes that an event happened now."""
        if self._cuda:
            stamp: Any = torch.cuda.Event(enable_timing=True)
            stamp.record()
        else:
            stamp = time.perf_counter()
        self._marks.append((event, stamp))

    def watch(self, tables: nn.Module) -> None:
        """Marks a training lookup's beginning and end, and when the gradient comes back to it."""
        tables.register_forward_pre_hook(self._before_lookup)
        tables.register_forward_hook(self._after_lookup)

    def _before_lookup(self, _module: nn.Module, _inputs: Any) -> None:
        if torch.is_grad_enabled():  # evaluation is no part of a step
            self.mark("forward")

    def _after_lookup(self, _module: nn.Module, _inputs: Any, pooled: Any) -> KeyedTensor:
        found: KeyedTensor = pooled if isinstance(pooled, KeyedTensor) else pooled.wait()
        if torch.is_grad_enabled():
            self.mark("looked_up")
        if found.values().requires_grad:
            found.values().register_hook(lambda _gradient: self.mark("embedding_gradient"))
        return found  # in place of the awaitable, which must be waited for once

    def timed(self, items: Iterator[Item]) -> Iterator[Item]:
        """The same items; the time to get each counts as data."""
        while True:
            began = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            self._data_seconds += time.perf_counter() - began
            yield item

    def take(self) -> dict[str, float]:
        """Seconds per phase since the last call."""
        if self._cuda:
            torch.cuda.synchronize()
        seconds = dict.fromkeys(PHASES, 0.0) | {"data": self._data_seconds}
        self._data_seconds = 0.0
        for (before, start), (after, end) in zip(self._marks, self._marks[1:], strict=False):
            phase = _PHASES.get((before, after))
            if phase is not None:
                seconds[phase] += start.elapsed_time(end) / 1e3 if self._cuda else end - start
        self._marks.clear()
        return seconds
