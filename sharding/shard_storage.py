"""ShardStorage: what TorchRec's planner takes a shard to hold, by the same arithmetic as the plan's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torchrec.distributed.planner.types import ShardEstimator, ShardingOption, Storage
from torchrec.distributed.types import ShardingType

from sharding.ledger import HOST_KIND, PlannedJob, PlannedTable, bytes_everywhere, replica_bytes, shard_bytes


class ShardStorage(ShardEstimator):
    """Fills in the storage of every shard that the planner may choose.

    TorchRec's own estimate leaves out the gradients of data-parallel tables and of pooled embeddings and the copies of
    early stop, and needs optimizers declared on the module.

    Args:
        tables: Table name -> what it is.
        job: The job around them.
    """

    def __init__(self, tables: Mapping[str, PlannedTable], *, job: PlannedJob) -> None:
        self._tables, self._job = tables, job

    def estimate(self, sharding_options: Sequence[ShardingOption], sharder_data_map: Any) -> None:
        """As the planner calls it."""
        for option in sharding_options:
            for shard in option.shards:
                here, host = self._bytes(option, *shard.size)
                if self._job.device == "cuda":
                    shard.storage = Storage(hbm=here, ddr=host, ssd=0)
                else:
                    shard.storage = Storage(hbm=0, ddr=here + host, ssd=0)

    def bytes_everywhere(self) -> int:
        """What each rank holds for all tables wherever they lie."""
        return round(sum(sum(bytes_everywhere(table, job=self._job).values()) for table in self._tables.values()))

    def _bytes(self, option: ShardingOption, rows: int, columns: int) -> tuple[int, int]:
        """Where the rank computes, and in a GPU's host."""
        table, plan = self._tables[option.name], {"kernel": option.compute_kernel}
        if option.sharding_type == ShardingType.DATA_PARALLEL.value:
            kinds = replica_bytes(table, job=self._job)
        else:
            kinds = shard_bytes(table, job=self._job, plan=plan, rows=rows, columns=columns)
        if self._job.keeps_best:
            kinds = {**kinds, "best_weights": kinds.get("table_weights", 0)}
        host = kinds.pop(HOST_KIND, 0)
        return round(sum(kinds.values())), round(host)
