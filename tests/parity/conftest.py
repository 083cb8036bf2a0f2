"""Rank pools for parity tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.ranks import RankPool


@pytest.fixture(scope="package")
def ranks() -> Iterator[Callable[[int], RankPool]]:
    """Gives the pool of a world size; each is started once, and ended with the tests of this folder.

    Four ranks take themselves to be on two hosts.
    """
    pools: dict[int, RankPool] = {}

    def of_size(world_size: int) -> RankPool:
        if world_size not in pools:
            pools[world_size] = RankPool(world_size, ranks_per_host=2 if world_size == 4 else world_size)
        return pools[world_size]

    yield of_size
    for pool in pools.values():
        pool.close()
