"""Ranks: what the ranks of a job ask each other, over one process group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Ranks:
    """The ranks of a process group of all ranks. Its methods are collectives: called by all ranks or by none.

    Several threads may each have one, over groups of their own (`Runtime.open_side_group`); one group belongs to one
    thread at a time.

    Args:
        process_group: Of all ranks of the job, with a backend for CPU tensors.
        beat: Tells the watchdog that this rank moves; for the main thread's long work between two collectives.
    """

    def __init__(self, process_group: dist.ProcessGroup, *, beat: Callable[[str], None] = lambda _doing: None) -> None:
        self.beat = beat
        self.process_group = process_group
        self.rank = process_group.rank()
        self.world_size = process_group.size()

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over ranks of a CPU tensor, in place."""
        if self.world_size > 1:
            dist.all_reduce(values, group=self.process_group)
        return values

    def from_main(self, make: Callable[[], Any]) -> Any:
        """What rank 0's `make()` returns, on every rank; an exception there is raised on every rank."""
        box: list[Any] = [None, None]
        if self.is_main:
            try:
                box[0] = make()
            except Exception as error:
                box[1] = error
        if self.world_size > 1:
            dist.broadcast_object_list(box, src=0, group=self.process_group, device=torch.device("cpu"))
        if box[1] is not None:
            raise box[1]
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank, on every rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.process_group)
        return values

    def together(self, do: Callable[[], Any]) -> Any:
        """Runs `do()` on every rank; where any rank's raises, every rank raises the first one's error."""
        result, problem = None, None
        try:
            result = do()
        except Exception as error:
            problem = error
        for found in self.gather(problem):
            if found is not None:
                raise found
        return result

    def wait(self) -> None:
        """Returns once every rank has called it."""
        self.gather(None)
