"""Gradients of replicated tables: added in rank order, whatever the bucket, beyond two ranks alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sharding.replicated_gradients import sum_in_rank_order


class Lookups(nn.Module):
    """A module with what a sharded collection keeps its lookups in."""

    def __init__(self, *lookups: nn.Module) -> None:
        super().__init__()
        self._lookups = lookups


def wrapped(hooks: list[Any]) -> DistributedDataParallel:
    """A replicated lookup that keeps the hook it is given."""
    made = DistributedDataParallel.__new__(DistributedDataParallel)
    nn.Module.__init__(made)
    made.weight = nn.Parameter(torch.zeros(3))
    made.register_comm_hook = lambda _state, hook: hooks.append(hook)  # type: ignore[method-assign]
    return made


def group_of(world_size: int) -> Any:
    return SimpleNamespace(size=lambda: world_size)


@pytest.mark.parametrize(("world_size", "num_hooks"), [(1, 0), (2, 0), (3, 1), (8, 1)])
def test_replicated_lookups_alone_are_hooked_beyond_two_ranks(world_size: int, num_hooks: int) -> None:
    hooks: list[Any] = []
    model = nn.Sequential(Lookups(wrapped(hooks), nn.Linear(2, 2)), nn.Linear(2, 2))
    sum_in_rank_order(model, process_group=group_of(world_size))
    assert len(hooks) == num_hooks


def test_the_sum_is_taken_in_rank_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, 1e8 + 1 - 1e8 depends on the order; each place in the bucket must get the same one."""
    of_rank = [torch.full((5,), value) for value in (1e8, 1.0, -1e8)]

    def all_gather(into: list[Tensor], mine: Tensor, *, group: Any) -> None:
        assert torch.equal(mine, of_rank[1])
        for target, source in zip(into, of_rank, strict=True):
            target.copy_(source)

    monkeypatch.setattr("sharding.replicated_gradients.dist.all_gather", all_gather)
    hooks: list[Any] = []
    sum_in_rank_order(Lookups(wrapped(hooks)), process_group=group_of(3))
    bucket = of_rank[1].clone()
    mean = hooks[0](group_of(3), SimpleNamespace(buffer=lambda: bucket)).wait()
    expected = (torch.tensor(1e8) + torch.tensor(1.0) + torch.tensor(-1e8)) / 3
    assert torch.equal(mean, expected.expand(5))
