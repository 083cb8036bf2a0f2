"""The sharder: every placement on every device, and the kernels that a device has."""

from __future__ import annotations

import pytest
from torchrec.distributed.types import ShardingType

from sharding.sharders import TableSharder


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_placement_is_offered_once(device: str) -> None:
    kinds = TableSharder().sharding_types(device)
    assert sorted(kinds) == sorted(kind.value for kind in ShardingType)


@pytest.mark.parametrize("kind", [kind.value for kind in ShardingType])
def test_a_gpu_has_three_kernels_for_what_updates_in_the_backward_pass(kind: str) -> None:
    sharder = TableSharder()
    if kind == "data_parallel":
        assert sharder.compute_kernels(kind, "cpu") == sharder.compute_kernels(kind, "cuda") == ["dense"]
    else:
        assert sharder.compute_kernels(kind, "cpu") == ["fused"]
        assert sharder.compute_kernels(kind, "cuda") == ["fused", "fused_uvm", "fused_uvm_caching"]
