"""given_plan(): the sharding plan of a plan file, once it is shown to fit the job in every point.

What the config allows for a table is what it allows the planner: the same constraints hold for both, so a file can
choose within the config's wishes and never against them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torchrec.distributed.planner import ParameterConstraints
from torchrec.distributed.sharding_plan import calculate_shard_sizes_and_offsets, placement
from torchrec.distributed.types import (
    CacheParams,
    EmbeddingModuleShardingPlan,
    EnumerableShardingSpec,
    ParameterSharding,
    ShardingPlan,
    ShardingType,
    ShardMetadata,
)
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from configs.errors import ConfigError
from sharding.hardware import Hardware
from sharding.plan_files import PlanFile, made_for
from sharding.sharders import TableSharder

_PLAN_ANEW = "or leave run.plan empty to plan anew"
_NUM_NAMED = 3
# Fact of made_for -> what it says, and how a person meets it.
_FACTS: Mapping[str, tuple[str, str]] = {
    "device": ("a device of kind {}", "set run.device to it"),
    "world_size": ("{} rank(s)", "start as many"),
    "ranks_per_host": ("{} rank(s) per host", "start as many on each host"),
    "rows_per_rank": (
        "{} rows per rank and step",
        "set train.batch_size to fit, or say that it serves this one too by writing the new number into its"
        ' made_for.rows_per_rank and removing its "fingerprint" line',
    ),
}


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One table's size and the ranks it is laid over."""

    rows: int
    dim: int
    world_size: int
    ranks_per_host: int
    piece_columns: int | None  # of the column-wise kinds; None: as the file has it


def given_plan(
    file: PlanFile,
    *,
    module: nn.Module,
    hardware: Hardware,
    constraints: Mapping[str, ParameterConstraints],
    rows_per_rank: int,
) -> ShardingPlan:
    """The file's plan for this job, equal to the one that the file was written from. Pure: every rank may call it.

    Args:
        file: The plan file.
        module: Holds the embedding bag collections, which may be on the meta device.
        hardware: The machine that the job runs on.
        constraints: Table name -> what the planner could have chosen, as `plan_tables` takes it.
        rows_per_rank: Rows of a rank's batch.

    Raises:
        ConfigError: the file is of another job, or what it says cannot be carried out; says what differs.
    """
    collections = {path: child for path, child in module.named_modules() if isinstance(child, EmbeddingBagCollection)}
    sizes = {
        table.name: (table.num_embeddings, table.embedding_dim)
        for collection in collections.values()
        for table in collection.embedding_bag_configs()
    }
    _check_made_for(file, ours=made_for(sizes, hardware=hardware, rows_per_rank=rows_per_rank))
    _check_names(f"{file.path} places other tables than this run has", given=file.tables, ours=sizes)
    for table, (rows, dim) in sizes.items():
        job = _Job(
            rows=rows,
            dim=dim,
            world_size=hardware.world_size,
            ranks_per_host=hardware.local_world_size,
            piece_columns=constraints[table].min_partition,
        )
        wrong = _not_allowed(file.tables[table], constraints=constraints[table], device=hardware.device)
        wrong = wrong or _wrong_ranks(file.tables[table], job=job) or _wrong_shards(file.tables[table], job=job)
        if wrong is not None:
            raise ConfigError(f"run.plan: {file.path}: tables.{table}.{wrong}, {_PLAN_ANEW}")
    return ShardingPlan(
        {
            path: EmbeddingModuleShardingPlan(
                {
                    table.name: _parameter_sharding(file.tables[table.name], hardware=hardware)
                    for table in collection.embedding_bag_configs()
                }
            )
            for path, collection in collections.items()
        }
    )


def _parameter_sharding(placed: Mapping[str, Any], *, hardware: Hardware) -> ParameterSharding:
    shards = [
        ShardMetadata(
            shard_offsets=list(shard["offsets"]),
            shard_sizes=list(shard["sizes"]),
            placement=placement(hardware.device, shard["rank"], hardware.local_world_size),
        )
        for shard in placed["shards"]
    ]
    factor = placed.get("cache_load_factor")
    return ParameterSharding(
        sharding_type=placed["sharding_type"],
        compute_kernel=placed["kernel"],
        ranks=list(placed["ranks"]),
        sharding_spec=EnumerableShardingSpec(shards) if shards else None,
        cache_params=None if factor is None else CacheParams(load_factor=factor),
    )


def _check_made_for(file: PlanFile, *, ours: Mapping[str, Any]) -> None:
    for fact, (what, remedy) in _FACTS.items():
        theirs = file.made_for[fact]
        if theirs != ours[fact]:
            raise ConfigError(
                f"run.plan: {file.path} was made for {what.format(theirs)}, this job has {ours[fact]};"
                f" {remedy}, {_PLAN_ANEW}"
            )
    _check_names(f"{file.path} was made for other tables", given=file.made_for["tables"], ours=ours["tables"])
    other = [name for name, size in ours["tables"].items() if file.made_for["tables"][name] != size]
    if other:
        theirs, mine = file.made_for["tables"][other[0]], ours["tables"][other[0]]
        raise ConfigError(
            f"run.plan: {file.path} was made for tables of other sizes than this run's: {other[0]} has"
            f" {theirs[0]:,} rows x {theirs[1]} there and {mine[0]:,} x {mine[1]} here"
            f"{f' (and so on for {len(other) - 1} more)' if other[1:] else ''};"
            f" take the plan of the same data and dims, {_PLAN_ANEW}"
        )


def _check_names(what: str, *, given: Iterable[str], ours: Iterable[str]) -> None:
    missing, foreign = sorted(set(ours) - set(given)), sorted(set(given) - set(ours))
    if missing or foreign:
        lacks = f"it lacks {_some(missing)}" if missing else None
        has = f"it has {_some(foreign)} too much" if foreign else None
        raise ConfigError(
            f"run.plan: {what}: {' and '.join(filter(None, (lacks, has)))};"
            f" take the plan of the same members and data, {_PLAN_ANEW}"
        )


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NUM_NAMED
    return ", ".join(names[:_NUM_NAMED]) + (f" and {more} more" if more > 0 else "")


def _not_allowed(placed: Mapping[str, Any], *, constraints: ParameterConstraints, device: str) -> str | None:
    kind, kernel = placed["sharding_type"], placed["kernel"]
    known = [kind.value for kind in ShardingType]
    if kind not in known:
        return f"sharding_type: there is no {kind!r}; choose one of {', '.join(known)}"
    sharder = TableSharder()
    possible = sharder.sharding_types(device)
    if kind not in possible:
        return f"sharding_type: {kind!r} does not run on {device}; choose one of {', '.join(possible)}"
    wished = constraints.sharding_types or possible
    if kind not in wished:
        return (
            f"sharding_type: {kind!r} is not what the config allows for this table, {' or '.join(wished)};"
            " set the table's placement in the config to it"
        )
    kernels = sharder.compute_kernels(kind, device)
    if constraints.compute_kernels:
        kernels = [name for name in kernels if name in constraints.compute_kernels]
    if kernel not in kernels:
        return f"kernel: {kernel!r} is not what {kind} on {device} can have here; choose {' or '.join(kernels)}"
    return None


def _wrong_ranks(placed: Mapping[str, Any], *, job: _Job) -> str | None:
    kind, ranks, shards = placed["sharding_type"], placed["ranks"], placed["shards"]
    everyone = list(range(job.world_size))
    outside = [rank for rank in [*ranks, *(shard["rank"] for shard in shards)] if rank >= job.world_size]
    if outside:
        return f"ranks: there is no rank {outside[0]}, this job has 0 to {everyone[-1]}; name one of those"
    if kind == ShardingType.DATA_PARALLEL.value:
        return None if ranks == everyone and not shards else "ranks: data_parallel is on all ranks and has no shards"
    if not shards:
        return f"shards: none, but {kind} needs them; write them"
    if ranks != [shard["rank"] for shard in shards]:
        return f"ranks: {_short(ranks)} are not those of its shards; write the rank of each shard, in order"
    if kind == ShardingType.ROW_WISE.value and ranks != everyone:
        return f"ranks: {_short(ranks)}, but row_wise goes over all ranks in order; take {_short(everyone)}"
    host = [rank // job.ranks_per_host for rank in ranks]
    if kind == ShardingType.TABLE_COLUMN_WISE.value and len(set(host)) > 1:
        return f"ranks: {_short(ranks)} are of more than one host, but table_column_wise stays on one; take one host's"
    if kind in (ShardingType.TABLE_ROW_WISE.value, ShardingType.GRID_SHARD.value):
        size = job.ranks_per_host
        whole = [first for start in range(0, len(ranks), size) for first in _of_host(host[start], size=size)]
        if ranks != whole:
            return f"ranks: {_short(ranks)}, but {kind} goes over all {size} ranks of a host in order; take them so"
    return None


def _of_host(host: int, *, size: int) -> range:
    return range(host * size, (host + 1) * size)


def _short(ranks: Sequence[int]) -> str:
    return str(list(ranks)) if len(ranks) <= 8 else f"[{', '.join(map(str, ranks[:7]))}, ...]"


def _wrong_shards(placed: Mapping[str, Any], *, job: _Job) -> str | None:
    kind, shards = placed["sharding_type"], placed["shards"]
    if kind == ShardingType.DATA_PARALLEL.value:
        return None
    table = f"{job.rows:,} rows x {job.dim}"
    for index, shard in enumerate(shards):
        ends = [offset + size for offset, size in zip(shard["offsets"], shard["sizes"], strict=True)]
        if ends[0] > job.rows or ends[1] > job.dim:
            return f"shards[{index}]: ends at row {ends[0]:,} and column {ends[1]}, outside of {table}; cut it there"
    full = [shard for shard in shards if shard["sizes"][0] and shard["sizes"][1]]
    try:
        EnumerableShardingSpec([ShardMetadata(shard["offsets"], shard["sizes"]) for shard in full])
    except ValueError:
        return "shards: two of them overlap, or there is none; give each row and column to one shard"
    covered = sum(shard["sizes"][0] * shard["sizes"][1] for shard in full)
    if covered != job.rows * job.dim:
        return f"shards: they cover {covered:,} of the {job.rows * job.dim:,} values of {table}; cover all of them"
    # Ids find their rank by arithmetic over even blocks, so a table cut otherwise would be read wrongly.
    sizes, offsets = calculate_shard_sizes_and_offsets(
        torch.empty(job.rows, job.dim, device="meta"),
        job.world_size,
        job.ranks_per_host,
        kind,
        col_wise_shard_dim=job.piece_columns or shards[0]["sizes"][1],
    )
    wanted = list(zip(offsets, sizes, strict=True))
    for index, (shard, cut) in enumerate(zip(shards, wanted, strict=False)):
        if (shard["offsets"], shard["sizes"]) != cut:
            return f"shards[{index}]: {kind} cuts it at offsets {cut[0]} with sizes {cut[1]}; write these"
    return None if len(shards) == len(wanted) else f"shards: {len(shards)}, but {kind} has {len(wanted)}; write as many"
