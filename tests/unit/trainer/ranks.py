"""Stand-ins for one rank of several, where what is tested needs no other process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


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
