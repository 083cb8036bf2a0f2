"""PlanReport: what a plan costs each rank, as a table and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_BYTES_PER_VALUE = 4


@dataclass(frozen=True, kw_only=True)
class PlanReport:
    """Weight bytes of tables per rank, and how many tables have which placement."""

    table_bytes_per_rank: tuple[int, ...]
    tables_per_sharding_type: Mapping[str, int]

    @property
    def imbalance(self) -> float:
        """The fullest rank's bytes over the mean; 1.0 is even."""
        mean = sum(self.table_bytes_per_rank) / len(self.table_bytes_per_rank)
        return max(self.table_bytes_per_rank) / mean if mean else 1.0

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "table_bytes_per_rank": list(self.table_bytes_per_rank),
            "imbalance": self.imbalance,
            "tables_per_sharding_type": dict(self.tables_per_sharding_type),
        }

    def sentence(self) -> str:
        """One line for the log."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.tables_per_sharding_type.items()))
        fullest = max(self.table_bytes_per_rank) / 2**20
        return f"plan: {kinds} tables; {fullest:.1f} MiB on the fullest rank, {self.imbalance:.2f} x the mean"


def report_plan(
    tables: Mapping[str, Mapping[str, Any]], *, sizes: Mapping[str, tuple[int, int]], world_size: int
) -> PlanReport:
    """Reads a plan as `plan_tables_json` gives it.

    Args:
        tables: Table name -> its plan.
        sizes: Table name -> (rows, dim).
        world_size: Number of ranks.
    """
    per_rank = [0] * world_size
    for table, placed in tables.items():
        rows, dim = sizes[table]
        if placed["shards"]:
            for shard in placed["shards"]:
                per_rank[shard["rank"]] += shard["sizes"][0] * shard["sizes"][1] * _BYTES_PER_VALUE
        else:
            for rank in range(world_size):
                per_rank[rank] += rows * dim * _BYTES_PER_VALUE
    kinds = Counter(placed["sharding_type"] for placed in tables.values())
    return PlanReport(table_bytes_per_rank=tuple(per_rank), tables_per_sharding_type=dict(kinds))
