"""Plan to JSON, with a fingerprint of what it was made for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torchrec.distributed.types import EnumerableShardingSpec, ShardingPlan

FORMAT_VERSION = 1


def plan_tables_json(plan: ShardingPlan) -> dict[str, Any]:
    """Table name -> {sharding_type, kernel, ranks, shards: [{offsets, sizes, rank}]}."""
    tables: dict[str, Any] = {}
    for module_plan in plan.plan.values():
        for table, sharding in module_plan.items():
            spec = sharding.sharding_spec
            shards = [
                {"offsets": list(s.shard_offsets), "sizes": list(s.shard_sizes), "rank": s.placement.rank()}
                for s in (spec.shards if isinstance(spec, EnumerableShardingSpec) else [])
            ]
            tables[table] = {
                "sharding_type": sharding.sharding_type,
                "kernel": sharding.compute_kernel,
                "ranks": list(sharding.ranks or []),
                "shards": shards,
            }
    return dict(sorted(tables.items()))


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Hex sha256 of what a plan was made for: tables, batch size, world, constraints."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def plan_json(plan: ShardingPlan, *, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The plan with what it was made for."""
    return {
        "format": "chorus-plan",
        "format_version": FORMAT_VERSION,
        "fingerprint": fingerprint(facts),
        "made_for": dict(facts),
        "tables": plan_tables_json(plan),
    }
