"""The sharder: row-wise on CPU too, one kernel a kind of placement."""

from __future__ import annotations

import pytest

from sharding.sharders import TableSharder


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_placement_of_ours_is_offered_once(device: str) -> None:
    kinds = TableSharder().sharding_types(device)
    assert {"data_parallel", "table_wise", "row_wise"} <= set(kinds)
    assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_placement_has_one_kernel(device: str) -> None:
    sharder = TableSharder()
    assert sharder.compute_kernels("data_parallel", device) == ["dense"]
    assert sharder.compute_kernels("table_wise", device) == ["fused"]
    assert sharder.compute_kernels("row_wise", device) == ["fused"]
