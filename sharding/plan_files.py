"""Plan files: a sharding plan as JSON, with what it was made for and a fingerprint of both.

A fingerprint speaks of tables, ranks, hosts and rows, never of this machine's memory, so that equal jobs on
machines of their own write equal files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torchrec.distributed.types import CacheParams, EnumerableShardingSpec, ParameterSharding, ShardingPlan

from configs.errors import ConfigError
from sharding.hardware import Hardware

FORMAT = "chorus-plan"
FORMAT_VERSION = 2

# Settings of a table that no plan of ours has, so that no file needs them.
_UNUSED_SETTINGS = ("enforce_hbm", "stochastic_rounding", "bounds_check_mode", "output_dtype", "key_value_params")
_GOOD_COPY = "take an unchanged plan.json of a run's folder or checkpoint, or leave run.plan empty to plan anew"


@dataclass(frozen=True, kw_only=True)
class PlanFile:
    """A plan file as read: well formed, not yet held against a job."""

    path: str
    made_for: Mapping[str, Any]  # as made_for() gives it
    tables: Mapping[str, Mapping[str, Any]]  # as plan_tables_json() gives it


def plan_tables_json(plan: ShardingPlan) -> dict[str, Any]:
    """Table name -> {sharding_type, kernel, ranks, shards: [{offsets, sizes, rank}]}, and cache_load_factor if set."""
    placed = {table: _table_json(table, of) for tables in plan.plan.values() for table, of in tables.items()}
    return dict(sorted(placed.items()))


def _table_json(table: str, sharding: ParameterSharding) -> dict[str, Any]:
    lost = [name for name in _UNUSED_SETTINGS if getattr(sharding, name) is not None]
    assert not lost, f"{table}: a plan file has no place for {lost}"
    spec = sharding.sharding_spec
    shards = [
        {"offsets": list(s.shard_offsets), "sizes": list(s.shard_sizes), "rank": s.placement.rank()}
        for s in (spec.shards if isinstance(spec, EnumerableShardingSpec) else [])
    ]
    written: dict[str, Any] = {
        "sharding_type": sharding.sharding_type,
        "kernel": sharding.compute_kernel,
        "ranks": list(sharding.ranks or []),
        "shards": shards,
    }
    if sharding.cache_params is not None:
        factor = sharding.cache_params.load_factor
        assert sharding.cache_params == CacheParams(load_factor=factor), f"{table}: a plan file has no place for more"
        written["cache_load_factor"] = factor
    return written


def made_for(tables: Mapping[str, tuple[int, int]], *, hardware: Hardware, rows_per_rank: int) -> dict[str, Any]:
    """What a plan depends on, as plain values.

    Args:
        tables: Table name -> (rows, dim).
        hardware: The machine; its memory is left out.
        rows_per_rank: Rows of a rank's batch.
    """
    return {
        "device": hardware.device,
        "world_size": hardware.world_size,
        "ranks_per_host": hardware.local_world_size,
        "rows_per_rank": rows_per_rank,
        "tables": {name: list(size) for name, size in sorted(tables.items())},
    }


def fingerprint(*, facts: Mapping[str, Any], tables: Mapping[str, Any]) -> str:
    """Hex sha256 of what a plan was made for and of where it puts everything."""
    contents = {"format_version": FORMAT_VERSION, "made_for": facts, "tables": tables}
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def plan_json(plan: ShardingPlan, *, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The plan with what it was made for, as `made_for` gives it."""
    tables = plan_tables_json(plan)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "fingerprint": fingerprint(facts=facts, tables=tables),
        "made_for": dict(facts),
        "tables": tables,
    }


def read_plan(text: str | bytes, *, path: str) -> PlanFile:
    """Reads what `plan_json` gave; a file without a fingerprint is one that a person edited, and is welcome.

    Args:
        text: The file's content.
        path: Its name, for the sentences.

    Raises:
        ConfigError: not a plan, of another format version, malformed, or changed under its fingerprint.
    """
    try:
        body = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"run.plan: {path} is not JSON ({error}); {_GOOD_COPY}") from error
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise ConfigError(f"run.plan: {path} is not a plan (it has no format = {FORMAT!r}); {_GOOD_COPY}")
    if body.get("format_version") != FORMAT_VERSION:
        raise ConfigError(
            f"run.plan: {path} has plan format version {body.get('format_version')!r}, this Chorus reads"
            f" {FORMAT_VERSION}; leave run.plan empty to plan anew"
        )
    wrong = _malformed(body)
    if wrong is not None:
        raise ConfigError(f"run.plan: {path} is damaged: {wrong}; {_GOOD_COPY}")
    if "fingerprint" in body:
        found = fingerprint(facts=body["made_for"], tables=body["tables"])
        if body["fingerprint"] != found:
            raise ConfigError(
                f"run.plan: {path} was changed after it was written: its fingerprint is"
                f" {str(body['fingerprint'])[:12]}..., its contents give {found[:12]}...; if you edited it on purpose,"
                ' remove its "fingerprint" line, else take an unchanged copy'
            )
    return PlanFile(path=path, made_for=body["made_for"], tables=body["tables"])


def _malformed(body: Mapping[str, Any]) -> str | None:
    facts, tables = body.get("made_for"), body.get("tables")
    if not isinstance(facts, dict):
        return "it has no made_for"
    if not isinstance(tables, dict):
        return "it has no tables"
    counts = ("world_size", "ranks_per_host", "rows_per_rank")
    problems = [_unless(_is_count(facts.get(key)), f"made_for.{key}", facts.get(key), "a count") for key in counts]
    problems.append(_unless(isinstance(facts.get("device"), str), "made_for.device", facts.get("device"), "a name"))
    sizes = facts.get("tables")
    problems.append(_unless(isinstance(sizes, dict), "made_for.tables", sizes, "a mapping"))
    if isinstance(sizes, dict):
        problems += [_unless(_is_pair(s), f"made_for.tables.{t}", s, "[rows, dim]") for t, s in sizes.items()]
    problems += [_malformed_table(name, placed) for name, placed in tables.items()]
    return next((problem for problem in problems if problem is not None), None)


def _malformed_table(name: str, placed: Any) -> str | None:
    where = f"tables.{name}"
    if not isinstance(placed, dict):
        return _unless(False, where, placed, "a mapping")
    factor, ranks, shards = placed.get("cache_load_factor", 1.0), placed.get("ranks"), placed.get("shards")
    problems = [
        _unless(isinstance(placed.get(key), str), f"{where}.{key}", placed.get(key), "a name")
        for key in ("sharding_type", "kernel")
    ]
    problems += [
        _unless(
            isinstance(factor, float) and 0 < factor <= 1, f"{where}.cache_load_factor", factor, "above 0 and to 1"
        ),
        _unless(isinstance(ranks, list) and all(map(_is_count, ranks)), f"{where}.ranks", ranks, "a list of ranks"),
        _unless(isinstance(shards, list), f"{where}.shards", shards, "a list"),
    ]
    for index, shard in enumerate(shards if isinstance(shards, list) else []):
        whole = isinstance(shard, dict) and _is_pair(shard.get("offsets")) and _is_pair(shard.get("sizes"))
        problems.append(
            _unless(
                whole and _is_count(shard.get("rank")),
                f"{where}.shards[{index}]",
                shard,
                "{offsets = [row, column], sizes = [rows, columns], rank}",
            )
        )
    return next((problem for problem in problems if problem is not None), None)


def _unless(good: bool, where: str, value: Any, wanted: str) -> str | None:
    return None if good else f"{where} is {json.dumps(value)[:80]}, not {wanted}"


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_count, value))
