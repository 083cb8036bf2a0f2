"""The process group of the tests of sharding."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch.distributed as dist

from tests.unit.sharding.world_of_one import world_of_one


@pytest.fixture
def group() -> Iterator[dist.ProcessGroup]:
    """A process group of one rank."""
    with world_of_one() as opened:
        yield opened
