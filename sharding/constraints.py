"""The config's wishes per table, as TorchRec ParameterConstraints."""

from __future__ import annotations

from collections.abc import Mapping

from torchrec.distributed.planner import ParameterConstraints
from torchrec.distributed.types import ShardingType

# What `auto` lets the planner choose from. Column-wise kinds are left out: under row-wise Adagrad
# they are another optimizer, since each column shard keeps its own state per row.
AUTO_SHARDING_TYPES = (ShardingType.DATA_PARALLEL, ShardingType.TABLE_WISE, ShardingType.ROW_WISE)


def table_constraints(placements: Mapping[str, str]) -> dict[str, ParameterConstraints]:
    """Table name -> placement (`auto` or a sharding type) to table name -> constraints."""
    return {
        table: ParameterConstraints(
            sharding_types=[kind.value for kind in AUTO_SHARDING_TYPES]
            if placement == "auto"
            else [ShardingType(placement).value]
        )
        for table, placement in placements.items()
    }
