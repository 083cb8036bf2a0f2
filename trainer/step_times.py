"""StepTimes: where a step's time goes: data, lookup, communication, dense, optimizer.

On a GPU the marks are CUDA events on the current stream, read when the figures are asked for. Data is what the training
loop itself waits for a batch, by the clock on the wall: batches are made ahead in another thread, and no stream knows.
Communication is what a rank waits for others while it looks up and updates tables, and the averaging of dense
gradients. Cutting up what is sent, putting together what has come, and the averaging of data-parallel tables (torch
waits for it where no mark can be set) count as lookup.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import nn
from torchrec.sparse.jagged_tensor import KeyedTensor

from sharding.collective_waits import told_waits

Item = TypeVar("Item")

_PHASES = {
    # (from mark, to mark) -> what the time between them was spent on, waits for collectives left out
    ("forward", "looked_up"): "lookup",
    ("looked_up", "embedding_gradient"): "dense",
    ("embedding_gradient", "backward_done"): "lookup",
    ("backward_done", "reduced"): "communication",
    ("reduced", "stepped"): "optimizer",
}
_WITH_WAITS = {before for before, _ in _PHASES} - {"backward_done", "reduced"}
_WAIT, _WAITED = "wait", "waited"
PHASES = ("data", "lookup", "communication", "dense", "optimizer")


class StepTimes:
    """Seconds per phase since the last `take`.

    Args:
        device: Where the model runs.
        world_size: Ranks of the job; a single one waits for nobody.
    """

    def __init__(self, device: torch.device, *, world_size: int = 1) -> None:
        self._cuda = device.type == "cuda"
        self._alone = world_size == 1
        self._marks: list[tuple[str, Any]] = []
        self._marking_thread, self._has_waits = 0, False
        self._data_seconds = 0.0

    def mark(self, event: str) -> None:
        """Notes that an event happened now."""
        self._marks.append((event, self._stamp()))
        self._marking_thread, self._has_waits = threading.get_ident(), event in _WITH_WAITS

    def _stamp(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        stamp = torch.cuda.Event(enable_timing=True)
        stamp.record()
        return stamp

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

    def waits(self) -> contextlib.AbstractContextManager[None]:
        """A block of steps in which waits for collectives count as communication."""
        if self._alone:
            return contextlib.nullcontext()
        return told_waits(begin=lambda: self._mark_wait(_WAIT), end=lambda: self._mark_wait(_WAITED))

    def _mark_wait(self, event: str) -> None:
        # Threads that write checkpoints wait too, and on a GPU ids travel ahead on a stream of their own.
        if not self._has_waits or threading.get_ident() != self._marking_thread:
            return
        if self._cuda and torch.cuda.current_stream() != torch.cuda.default_stream():
            return
        self._marks.append((event, self._stamp()))

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
        self._data_seconds = waited = 0.0
        before, start, wait_start = "", None, None
        for event, stamp in self._marks:
            if event == _WAIT:
                wait_start = stamp
            elif event == _WAITED:
                waited += self._between(wait_start, stamp)
            else:
                phase = _PHASES.get((before, event))
                if phase is not None:
                    seconds[phase] += self._between(start, stamp) - waited
                    seconds["communication"] += waited
                before, start, waited = event, stamp, 0.0
        self._marks.clear()
        return seconds

    def _between(self, start: Any, end: Any) -> float:
        return start.elapsed_time(end) / 1e3 if self._cuda else end - start


def fractions(seconds: Mapping[str, float], *, of: float) -> dict[str, float]:
    """Phases as shares of `of` seconds, as the metrics have them: lookup and communication as one."""
    together = {"lookup_and_communication": seconds["lookup"] + seconds["communication"]}
    alone = {phase: spent for phase, spent in seconds.items() if phase not in ("lookup", "communication")}
    return {f"time/{phase}_fraction": spent / max(of, 1e-9) for phase, spent in (alone | together).items()}
