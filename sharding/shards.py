"""A sharded model's tables as this rank holds them: local tensors with their place in the whole table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.distributed._shard.sharded_tensor import ShardedTensor

_TABLE_WEIGHT = re.compile(r"(?:^|\.)embedding_bags\.([^.]+)\.weight$")


@dataclass(frozen=True, kw_only=True)
class LocalShard:
    """A piece of a table; `tensor` is a live view."""

    tensor: Tensor
    first_row: int
    first_column: int


@dataclass(frozen=True, kw_only=True)
class TableShards:
    """One table: its whole size, and the pieces that this rank holds."""

    num_rows: int
    dim: int
    replicated: bool  # data-parallel: every rank holds all of it
    column_pieces: tuple[tuple[int, int], ...]  # (first column, columns) of each piece of a row, on whatever rank
    local: tuple[LocalShard, ...]


def table_name(key: str) -> str | None:
    """The table a state-dict or parameter key belongs to, None for a dense parameter."""
    match = _TABLE_WEIGHT.search(key)
    return match.group(1) if match else None


def table_shards(model_state: Mapping[str, Tensor]) -> dict[str, TableShards]:
    """Table name -> shards, for every table, those without a local piece included.

    Args:
        model_state: A sharded model's `state_dict()`.
    """
    tables = {}
    for key, value in model_state.items():
        table = table_name(key)
        if table is None:
            continue
        if isinstance(value, ShardedTensor):
            num_rows, dim = value.size()
            local = tuple(
                LocalShard(
                    tensor=shard.tensor,
                    first_row=shard.metadata.shard_offsets[0],
                    first_column=shard.metadata.shard_offsets[1],
                )
                for shard in value.local_shards()
            )
            places = [(shard.shard_offsets[1], shard.shard_sizes[1]) for shard in value.metadata().shards_metadata]
            pieces = tuple(sorted(set(places)))
            tables[table] = TableShards(num_rows=num_rows, dim=dim, replicated=False, column_pieces=pieces, local=local)
        else:
            num_rows, dim = value.shape
            piece = LocalShard(tensor=value.detach(), first_row=0, first_column=0)
            tables[table] = TableShards(
                num_rows=num_rows, dim=dim, replicated=True, column_pieces=((0, dim),), local=(piece,)
            )
    return tables
