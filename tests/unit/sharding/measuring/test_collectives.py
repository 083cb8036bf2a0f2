"""Collectives: the bytes that a rank sends to others are those that the plan's report counts."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from sharding.measuring.collectives import Collectives
from sharding.report import PlannedJob, PlannedTable, report_plan


class OfSize:
    """A group, as far as its size goes."""

    def __init__(self, size: int) -> None:
        self._size = size

    def size(self) -> int:
        return self._size


@pytest.mark.parametrize("world_size", [2, 8])
def test_sent_bytes_are_those_of_the_report(world_size: int) -> None:
    rows_per_rank, rows, dim = 64, world_size * 10, 16
    job = PlannedJob(device="cuda", world_size=world_size, ranks_per_host=world_size, rows_per_rank=rows_per_rank)
    shards = [{"offsets": (10 * rank, 0), "sizes": (10, dim), "rank": rank} for rank in range(world_size)]
    placed = {
        "a": {"sharding_type": "row_wise", "kernel": "fused", "shards": shards},
        "b": {"sharding_type": "data_parallel", "kernel": "dense"},
        "c": {
            "sharding_type": "table_wise",
            "kernel": "fused",
            "shards": [{"offsets": (0, 0), "sizes": (rows, dim), "rank": 0}],
        },
    }
    tables = {name: PlannedTable(rows=rows, dim=dim, optimizer="sgd") for name in placed}
    sent = report_plan(placed, tables=tables, job=job).sent_bytes_per_rank
    collectives = Collectives(cast(Any, OfSize(world_size)), device=torch.device("cpu"))
    partial_sums = 4 * world_size * rows_per_rank * dim  # of the whole batch, in a rank that holds some rows
    for kind, name, num_bytes in (
        ("reduce_scatter", "reduce_scatter", partial_sums),
        ("gradients_all_gather", "all_gather", partial_sums),
        ("data_parallel_all_reduce", "all_reduce", 4 * rows * dim),
        ("pooled_all_to_all", "all_to_all", partial_sums),
    ):
        assert sent[kind][0] == pytest.approx(collectives.sent_bytes(name, num_bytes=num_bytes))
