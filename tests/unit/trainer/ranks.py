"""One rank: this process as a runtime of its own, or a stand-in for one of several."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from configs.schema import Run
from trainer.runtime import Runtime


@contextlib.contextmanager
def one_rank(run: Run) -> Iterator[Runtime]:
    """An open runtime; its process group and signal handlers are gone afterwards."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    threads = torch.get_num_threads()
    try:
        with Runtime(run) as opened:
            yield opened
    finally:
        torch.set_num_threads(threads)
        for number, handler in handlers.items():
            signal.signal(number, handler)


class OneOfMany:
    """Rank `rank` of `world_size`; `sum` is what the test says it is.

    Args:
        rank: This rank.
        world_size: Number of ranks.
        summed: This rank's tensor to the sum over ranks.
    """

    def __init__(
        self, *, rank: int = 0, world_size: int = 1, summed: Callable[[Tensor], Tensor] = lambda mine: mine
    ) -> None:
        self.rank, self.world_size = rank, world_size
        self.device = torch.device("cpu")
        self.stop_requested = False
        self.sum = summed
        self.said: list[str] = []

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def say(self, text: str) -> None:
        self.said.append(text)

    def from_main(self, make: Callable[[], Any]) -> Any:
        return make()

    def beat(self, doing: str) -> None:
        pass

    @contextlib.contextmanager
    def patience(self, doing: str) -> Iterator[None]:
        yield
