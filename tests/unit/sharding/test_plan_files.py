"""Plan files: what a plan's JSON says, and a fingerprint that every fact changes."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

import pytest

from sharding.constraints import table_constraints
from sharding.plan_files import fingerprint, plan_json
from sharding.planner import plan_tables
from tests.unit.sharding.world_of_one import cpu_hosts, two_member_specs, two_member_task

FACTS: dict[str, Any] = {
    "hardware": {"device": "cpu", "world_size": 2, "hbm_bytes": 0},
    "tables": {"a/C1": [100, 16], "a/C2": [7, 16]},
    "placements": {"a/C1": "auto", "a/C2": "row_wise"},
    "rows_per_rank": 512,
}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inner = [leaf for key, child in children for leaf in leaves(child, (*path, key))]
    return inner or [path]


@pytest.mark.parametrize("path", leaves(FACTS), ids=str)
def test_every_fact_changes_the_fingerprint(path: tuple[Any, ...]) -> None:
    changed = copy.deepcopy(FACTS)
    at: Any = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = f"{at[path[-1]]}!" if isinstance(at[path[-1]], str) else at[path[-1]] + 1
    assert fingerprint(changed) != fingerprint(FACTS)


def test_more_tables_change_it_and_the_order_of_keys_does_not() -> None:
    more = {**FACTS, "tables": {**FACTS["tables"], "b/C1": [1, 4]}}
    assert fingerprint(more) != fingerprint(FACTS)
    assert fingerprint(dict(reversed(FACTS.items()))) == fingerprint(FACTS)
    assert fingerprint({"b": 1, "a": 2}) == hashlib.sha256(b'{"a": 2, "b": 1}').hexdigest()


def test_the_file_says_where_everything_lies() -> None:
    specs = two_member_specs()
    kinds = ["data_parallel", "table_wise", "row_wise"]
    placements = {table.name: kinds[index % 3] for index, table in enumerate(specs)}
    plan = plan_tables(
        two_member_task(specs), hardware=cpu_hosts(2), constraints=table_constraints(placements), rows_per_rank=8
    )
    found = plan_json(plan, facts=FACTS)
    assert json.loads(json.dumps(found)) == found
    assert (found["format"], found["format_version"], found["made_for"]) == ("chorus-plan", 1, FACTS)
    assert found["fingerprint"] == fingerprint(FACTS)
    assert list(found["tables"]) == sorted(table.name for table in specs)
    for table in specs:
        placed = found["tables"][table.name]
        assert placed["sharding_type"] == placements[table.name]
        if placed["sharding_type"] == "data_parallel":
            assert placed["kernel"] == "dense"
            assert (placed["ranks"], placed["shards"]) == ([0, 1], [])
            continue
        assert placed["kernel"] == "fused"
        covered = [
            row
            for shard in placed["shards"]
            for row in range(shard["offsets"][0], shard["offsets"][0] + shard["sizes"][0])
        ]
        assert sorted(covered) == list(range(table.num_rows))
        assert all(shard["sizes"][1] == table.dim and shard["offsets"][1] == 0 for shard in placed["shards"])
        assert all(shard["rank"] in placed["ranks"] for shard in placed["shards"])
