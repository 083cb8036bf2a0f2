"""Plan files: what the JSON says, and that a file which is damaged, old or changed is refused in one sentence."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from torchrec.distributed.types import (
    CacheParams,
    EmbeddingModuleShardingPlan,
    ParameterSharding,
    ShardingPlan,
)

from configs.errors import EXIT_REFUSED, ConfigError
from sharding.hardware import Hardware
from sharding.plan_files import FORMAT_VERSION, PlanFile, fingerprint, made_for, plan_json, plan_tables_json, read_plan
from tests.unit.sharding.world_of_one import (
    GIB,
    constraints_of,
    cpu_hosts,
    planned,
    two_member_specs,
    two_member_task,
)

FACTS: dict[str, Any] = {
    "device": "cpu",
    "world_size": 2,
    "ranks_per_host": 2,
    "rows_per_rank": 512,
    "tables": {"a/C1": [100, 16], "a/C2": [7, 16]},
}
TABLES: dict[str, Any] = {
    "a/C1": {
        "sharding_type": "row_wise",
        "kernel": "fused",
        "ranks": [0, 1],
        "shards": [
            {"offsets": [0, 0], "sizes": [50, 16], "rank": 0},
            {"offsets": [50, 0], "sizes": [50, 16], "rank": 1},
        ],
    },
    "a/C2": {"sharding_type": "data_parallel", "kernel": "dense", "ranks": [0, 1], "shards": []},
}
BODY: dict[str, Any] = {
    "format": "chorus-plan",
    "format_version": FORMAT_VERSION,
    "fingerprint": fingerprint(facts=FACTS, tables=TABLES),
    "made_for": FACTS,
    "tables": TABLES,
    "report": {"imbalance": {"held": 1.0}},
}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inner = [leaf for key, child in children for leaf in leaves(child, (*path, key))]
    return inner or [path]


def edited(path: tuple[Any, ...], change: Callable[[Any], Any]) -> dict[str, Any]:
    body = copy.deepcopy(BODY)
    at: Any = body
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = change(at[path[-1]])
    return body


def refusal(body: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        read_plan(body if isinstance(body, str | bytes) else json.dumps(body), path="p.json")
    assert refused.value.exit_code == EXIT_REFUSED
    sentence = str(refused.value)
    assert sentence.startswith("run.plan: p.json ") and "\n" not in sentence
    return sentence


def another(value: Any) -> Any:
    return f"{value}!" if isinstance(value, str) else [3] if isinstance(value, list) else value + 1


EVERYTHING = [
    (part, *path)
    for part in ("made_for", "tables")
    for path in leaves(BODY[part])
    if path != ("a/C2", "shards")  # a list of shards; its own case
]


@pytest.mark.parametrize("path", EVERYTHING, ids=str)
def test_whatever_is_changed_by_hand_is_noticed(path: tuple[Any, ...]) -> None:
    assert re.fullmatch(
        r"run\.plan: p\.json was changed after it was written: its fingerprint is [0-9a-f]{12}\.\.\., its contents give"
        r' [0-9a-f]{12}\.\.\.; if you edited it on purpose, remove its "fingerprint" line, else take an unchanged copy',
        refusal(edited(path, another)),
    )


def test_a_file_without_fingerprint_is_an_edited_one_and_is_read() -> None:
    body = edited(("tables", "a/C1", "ranks"), lambda ranks: ranks[::-1])
    del body["fingerprint"]
    read = read_plan(json.dumps(body), path="p.json")
    assert read == PlanFile(path="p.json", made_for=FACTS, tables=body["tables"])
    assert read.tables["a/C1"]["ranks"] == [1, 0]


def test_what_was_written_is_read_whatever_the_order_of_its_keys() -> None:
    read = PlanFile(path="p.json", made_for=FACTS, tables=TABLES)
    assert read_plan(json.dumps(BODY), path="p.json") == read
    assert read_plan(json.dumps(dict(reversed(BODY.items())), indent=4).encode(), path="p.json") == read


def test_the_fingerprint_is_that_of_the_contents_and_the_format() -> None:
    assert (
        fingerprint(facts={"b": 1, "a": 2}, tables={})
        == hashlib.sha256(b'{"format_version": 2, "made_for": {"a": 2, "b": 1}, "tables": {}}').hexdigest()
    )


ANEW = "take an unchanged plan.json of a run's folder or checkpoint, or leave run.plan empty to plan anew"


def test_what_is_no_plan_is_refused() -> None:
    whole = json.dumps(BODY)
    assert refusal(whole[:100]) == f"run.plan: p.json is not JSON ({problem(whole[:100])}); {ANEW}"
    assert refusal("").startswith("run.plan: p.json is not JSON (Expecting value: line 1 column 1 (char 0)); ")
    assert refusal(b"\xff\xfe\x00\x01\x80").startswith("run.plan: p.json is not JSON (")
    no_plan = f"run.plan: p.json is not a plan (it has no format = 'chorus-plan'); {ANEW}"
    assert refusal([1]) == refusal({}) == refusal(edited(("format",), another)) == no_plan


def problem(text: str) -> str:
    with pytest.raises(ValueError) as damaged:
        json.loads(text)
    return str(damaged.value)


@pytest.mark.parametrize("version", [1, FORMAT_VERSION + 1, None, "2"])
def test_another_format_version_is_named(version: Any) -> None:
    assert refusal(edited(("format_version",), lambda _: version)) == (
        f"run.plan: p.json has plan format version {version!r}, this Chorus reads {FORMAT_VERSION};"
        " leave run.plan empty to plan anew"
    )


SHARD = "{offsets = [row, column], sizes = [rows, columns], rank}"


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        (("made_for",), None, "it has no made_for"),
        (("tables",), [], "it has no tables"),
        (("made_for", "world_size"), "2", 'made_for.world_size is "2", not a count'),
        (("made_for", "rows_per_rank"), True, "made_for.rows_per_rank is true, not a count"),
        (("made_for", "device"), 7, "made_for.device is 7, not a name"),
        (("made_for", "tables"), [], "made_for.tables is [], not a mapping"),
        (("made_for", "tables", "a/C1"), [100], "made_for.tables.a/C1 is [100], not [rows, dim]"),
        (("tables", "a/C1"), 3, "tables.a/C1 is 3, not a mapping"),
        (("tables", "a/C1", "sharding_type"), None, "tables.a/C1.sharding_type is null, not a name"),
        (("tables", "a/C1", "ranks"), [0, -1], "tables.a/C1.ranks is [0, -1], not a list of ranks"),
        (("tables", "a/C1", "shards"), {}, "tables.a/C1.shards is {}, not a list"),
        (("tables", "a/C1", "shards", 1), 5, f"tables.a/C1.shards[1] is 5, not {SHARD}"),
        (
            ("tables", "a/C1", "shards", 0, "sizes"),
            [50, 1.5],
            f'tables.a/C1.shards[0] is {{"offsets": [0, 0], "sizes": [50, 1.5], "rank": 0}}, not {SHARD}',
        ),
    ],
)
def test_what_is_malformed_is_named(path: tuple[Any, ...], value: Any, found: str) -> None:
    assert refusal(edited(path, lambda _: value)) == f"run.plan: p.json is damaged: {found}; {ANEW}"


@pytest.mark.parametrize("factor", [0.0, 1.5, "0.2", 1])
def test_a_cache_load_factor_is_a_part_of_the_table(factor: Any) -> None:
    body = edited(("tables", "a/C1"), lambda table: table | {"cache_load_factor": factor})
    assert "tables.a/C1.cache_load_factor is " in refusal(body)


def test_memory_is_not_what_a_plan_is_made_for() -> None:
    def facts(hardware: Hardware) -> dict[str, Any]:
        return made_for({"b/C1": (5, 4), "a/C1": (3, 8)}, hardware=hardware, rows_per_rank=8)

    small, large = cpu_hosts(4), cpu_hosts(4, ddr_bytes=64 * GIB)
    assert facts(small) == facts(large)
    assert facts(small) == {
        "device": "cpu",
        "world_size": 4,
        "ranks_per_host": 4,
        "rows_per_rank": 8,
        "tables": {"a/C1": [3, 8], "b/C1": [5, 4]},
    }


def test_the_file_says_where_everything_lies() -> None:
    specs = two_member_specs()
    kinds = ["data_parallel", "table_wise", "row_wise"]
    placements = {table.name: kinds[index % 3] for index, table in enumerate(specs)}
    task = two_member_task(specs)
    constraints = constraints_of(task, placements)
    plan = planned(task, hardware=cpu_hosts(2), constraints=constraints)
    found = plan_json(plan, facts=FACTS)
    assert json.loads(json.dumps(found)) == found
    assert (found["format"], found["format_version"], found["made_for"]) == ("chorus-plan", FORMAT_VERSION, FACTS)
    assert found["fingerprint"] == fingerprint(facts=FACTS, tables=found["tables"])
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


def test_nothing_of_a_plan_is_left_out_silently() -> None:
    def written(sharding: ParameterSharding) -> dict[str, Any]:
        return plan_tables_json(ShardingPlan({"t": EmbeddingModuleShardingPlan({"a/C1": sharding})}))

    cached = ParameterSharding("table_wise", "fused_uvm_caching", cache_params=CacheParams(load_factor=0.3))
    assert written(cached)["a/C1"]["cache_load_factor"] == 0.3
    with pytest.raises(AssertionError, match="a/C1: a plan file has no place for more"):
        written(
            ParameterSharding("table_wise", "fused", cache_params=CacheParams(load_factor=0.3, reserved_memory=1.0))
        )
    with pytest.raises(AssertionError, match=r"a/C1: a plan file has no place for \['enforce_hbm'\]"):
        written(ParameterSharding("table_wise", "fused", enforce_hbm=True))
