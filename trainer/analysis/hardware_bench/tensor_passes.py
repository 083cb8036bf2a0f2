"""Memory as members' elementwise operations reach it, in the cache and past it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from trainer.analysis.hardware_bench.device_clock import DeviceClock
from trainer.analysis.hardware_bench.effort import Effort
from trainer.analysis.hardware_bench.points import Point
from trainer.analysis.hardware_bench.rank_processes import RankHere

_MIB = 2**20
_USUAL_CACHE = 32 * _MIB
_HOST_COPY_MIB = 256
# Operation -> tensors that it reads and writes, and what it does. Each writes a new tensor, as in a network.
_OPERATIONS: dict[str, tuple[int, Callable[[Tensor, Tensor], Tensor]]] = {
    "copy": (2, lambda one, _other: one.clone()),
    "relu": (2, lambda one, _other: torch.relu(one)),
    "add": (3, lambda one, other: one + other),
    "mul": (3, lambda one, other: one * other),
}


def pass_bytes(cache_bytes: float, *, quick: bool) -> tuple[list[int], list[int]]:
    """Bytes of one tensor: those whose operations stay in a cache of that size, and those that are well past it."""
    cache = cache_bytes or _USUAL_CACHE
    near = [round(cache * share) for share in (1 / 64, 1 / 24, 1 / 12, 1 / 6)] if cache_bytes else []
    far = [round(cache * times) for times in (1, 1.5, 2)]
    return (near[:1], far[:1]) if quick else (near, far)


def measure_passes(here: RankHere, sizes: Sequence[int], effort: Effort) -> list[Point]:
    """Elementwise operations on tensors of these bytes; on a GPU, copies from host memory too."""
    here.grow_heap()
    clock, points = DeviceClock(here.device), []
    for size in sizes:
        one, other = torch.rand(2, size // 4, device=here.device)
        for name, (num_tensors, operation) in _OPERATIONS.items():
            here.meet()
            seconds = clock.median(lambda: operation(one, other), seconds=effort.seconds, repeats=effort.repeats)  # noqa: B023
            points.append(Point(what=name, size={"moved_bytes": num_tensors * one.nbytes}, seconds=(seconds,)))
    return points


def measure_host_copies(here: RankHere, effort: Effort) -> list[Point]:
    """From page-locked host memory to the GPU."""
    source = torch.rand((16 if effort.quick else _HOST_COPY_MIB) * _MIB // 4).pin_memory()
    target = torch.empty_like(source, device=here.device)
    here.meet()
    seconds = DeviceClock(here.device).median(
        lambda: target.copy_(source, non_blocking=True), seconds=effort.seconds, repeats=effort.repeats
    )
    return [Point(what="host copy", size={"moved_bytes": source.nbytes}, seconds=(seconds,))]


def gb_per_s(points: Sequence[Point]) -> float:
    """The median over operations and sizes; 0 without points."""
    if not points:
        return 0.0
    return 1 / statistics.median(point.mean_seconds / point.size["moved_bytes"] for point in points) / 1e9
