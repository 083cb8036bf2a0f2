"""Collectives: those of a training step on buffers of any size, and the bytes that a rank sends to others in them."""

from __future__ import annotations

import time

import torch
import torch.distributed as dist

from configs.hardware_schema import COLLECTIVES

_VALUE_BYTES = 4


class Collectives:
    """Runs collectives between the ranks of a group; all ranks must call every method alike.

    Args:
        group: The ranks.
        device: Where the buffers lie.
    """

    def __init__(self, group: dist.ProcessGroup, *, device: torch.device) -> None:
        self._group, self._device = group, device
        self._world_size = group.size()

    def sent_bytes(self, name: str, *, num_bytes: int) -> float:
        """Bytes that a rank sends to others for a buffer of so many; a ring's, as sharding/report.py counts them."""
        others = num_bytes * (self._world_size - 1) / self._world_size
        return 2 * others if name == "all_reduce" else others

    def run(self, name: str, *, num_bytes: int) -> None:
        """One of them, to its end; on a GPU that is when the stream has come to it."""
        self.seconds(name, num_bytes=num_bytes, num_calls=1)

    def seconds(self, name: str, *, num_bytes: int, num_calls: int) -> float:
        """Seconds of one of `num_calls` that follow each other, each waited for as a step does.

        Args:
            name: Of configs.hardware_schema.COLLECTIVES.
            num_bytes: Of the buffer: all that a rank puts in, and of all_gather all that it gets.
            num_calls: The same on every rank.
        """
        assert name in COLLECTIVES, name
        share = max(1, num_bytes // _VALUE_BYTES // self._world_size)
        whole = torch.ones(share * self._world_size, device=self._device)
        other = torch.empty_like(whole)
        part = torch.ones(share, device=self._device)
        group = self._group
        calls = {
            "all_to_all": lambda: dist.all_to_all_single(other, whole, group=group, async_op=True),
            "all_reduce": lambda: dist.all_reduce(whole, group=group, async_op=True),
            "reduce_scatter": lambda: dist.reduce_scatter_tensor(part, whole, group=group, async_op=True),
            "all_gather": lambda: dist.all_gather_into_tensor(whole, part, group=group, async_op=True),
        }
        call = calls[name]
        dist.barrier(group)
        self._synchronise()
        began = time.perf_counter()
        for _ in range(num_calls):
            call().wait()
        self._synchronise()
        return (time.perf_counter() - began) / num_calls

    def _synchronise(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
