"""Waits for collectives, told as they begin and end to whoever measures where a step's time goes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch.distributed as dist


@contextlib.contextmanager
def told_waits(*, begin: Callable[[], None], end: Callable[[], None]) -> Iterator[None]:
    """A block in which each wait for a collective, of whatever thread, calls `begin` before and `end` after it.

    Torch tells of a collective's time on nccl alone (`_register_on_completion_hook`), and TorchRec waits in the middle
    of its own forward and backward passes; so the wait itself is replaced for the block. Waits inside torch's C++, as
    DistributedDataParallel's for data-parallel tables, are not told.
    """
    plain = dist.Work.wait

    def wait(work: dist.Work, *arguments: Any, **keys: Any) -> Any:
        begin()
        try:
            return plain(work, *arguments, **keys)
        finally:
            end()

    dist.Work.wait = wait  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        dist.Work.wait = plain  # type: ignore[method-assign]
