"""ShardStorage: the planner counts what the report counts."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from torch import nn
from torchrec.distributed.planner.enumerators import EmbeddingEnumerator

from modules.tables import build_tables
from sharding.constraints import TableWish, table_constraints
from sharding.hardware import Hardware
from sharding.ledger import HOST_KIND, PlannedJob, PlannedTable
from sharding.report import report_plan
from sharding.shard_storage import ShardStorage
from sharding.sharders import TableSharder
from tests.unit.modules.small import spec

GIB = 2**30
TABLE = PlannedTable(rows=16, dim=16, optimizer="adagrad", mean_bag_length=2.0)
JOB = PlannedJob(device="cuda", world_size=4, ranks_per_host=2, rows_per_rank=10)


def options(job: PlannedJob, **wish: Any) -> tuple[list[Any], ShardStorage]:
    hardware = Hardware(device=job.device, world_size=4, local_world_size=2, hbm_bytes=GIB, ddr_bytes=GIB)  # type: ignore[arg-type]
    wished = TableWish(key="tables.a", num_rows=16, dim=16, optimizer="adagrad", mean_ids=2.0, **wish)
    constraints = table_constraints({"a/C1": wished}, device=hardware.device)
    storage = ShardStorage({"a/C1": TABLE}, job=job)
    enumerator = EmbeddingEnumerator(
        topology=hardware.topology(), batch_size=10, constraints=constraints, estimator=[storage]
    )
    module = nn.Sequential(build_tables([spec("a", "C1", num_rows=16, dim=16)], device="meta"))
    return enumerator.enumerate(module, [TableSharder()]), storage


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("purpose", ["train", "score"])
@pytest.mark.parametrize("keeps_best", [True, False])
def test_a_plan_takes_what_its_report_says(device: str, purpose: Any, keeps_best: bool) -> None:
    job = dataclasses.replace(JOB, device=device, purpose=purpose, keeps_best=keeps_best)
    found, storage = options(job)
    assert {option.sharding_type for option in found} == {"data_parallel", "table_wise", "row_wise"}
    for option in found:
        ranks = range(len(option.shards))  # the placement that the planner would choose
        placed = {
            "sharding_type": option.sharding_type,
            "kernel": option.compute_kernel,
            "shards": [
                {"offsets": [0, 0], "sizes": shard.size, "rank": rank}
                for shard, rank in zip(option.shards, ranks, strict=True)
            ],
        }
        report = report_plan({"a/C1": placed}, tables={"a/C1": TABLE}, job=job)
        of_rank_0, first = report.held[0], option.shards[0].storage
        lengths = 4 * 10 * (len(option.shards) - 1) if option.sharding_type == "row_wise" else 0
        here = first.hbm if device == "cuda" else first.ddr - report.bytes_per_rank[HOST_KIND][0]
        assert here + storage.bytes_everywhere() + lengths == of_rank_0, option
        if device == "cuda":
            assert first.ddr == report.bytes_per_rank[HOST_KIND][0]
            assert (first.ddr > 0) == option.compute_kernel.startswith("fused_uvm")
