"""Shards: table names in keys, and the local pieces of every kind of placement."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from configs.ensemble_schema import COLUMN_PLACEMENTS
from modules.tables import FIRST_ORDER_DIM
from sharding.shards import table_name, table_shards
from tests.unit.sharding.world_of_one import shard_for_one, two_member_specs, two_member_task


@pytest.mark.parametrize(
    ("key", "table"),
    [
        ("ensemble.tables.embedding_bags.shared/C1.weight", "shared/C1"),
        ("embedding_bags.deep+first_order/C2.weight", "deep+first_order/C2"),
        ("ensemble.bank.members.deep.mlp.layers.0.weight", None),
        ("ensemble.tables.embedding_bags.shared/C1.bias", None),
        ("not_embedding_bags.shared/C1.weight", None),
    ],
)
def test_a_key_names_its_table(key: str, table: str | None) -> None:
    assert table_name(key) == table


def test_every_table_is_found_with_its_pieces(group: dist.ProcessGroup) -> None:
    specs = two_member_specs()
    kinds = ["data_parallel", "table_wise", "row_wise"]
    placements = {table.name: kinds[index % 3] for index, table in enumerate(specs)}
    state = shard_for_one(two_member_task(specs), placements, group=group).state_dict()
    found = table_shards(state)
    assert set(found) == set(placements)
    for table in specs:
        shards = found[table.name]
        assert (shards.num_rows, shards.dim) == (table.num_rows, table.dim)
        assert shards.replicated == (placements[table.name] == "data_parallel")
        (piece,) = shards.local
        assert (piece.first_row, piece.first_column) == (0, 0)
        assert tuple(piece.tensor.shape) == (table.num_rows, table.dim)


def test_a_piece_is_a_live_view(group: dist.ProcessGroup) -> None:
    specs = two_member_specs()
    placements = {table.name: ["data_parallel", "row_wise"][index % 2] for index, table in enumerate(specs)}
    model = shard_for_one(two_member_task(specs), placements, group=group)
    for shards in table_shards(model.state_dict()).values():
        shards.local[0].tensor.fill_(3.0)
    for shards in table_shards(model.state_dict()).values():
        assert torch.equal(shards.local[0].tensor, torch.full_like(shards.local[0].tensor, 3.0))


@pytest.mark.parametrize("placement", COLUMN_PLACEMENTS)
def test_the_pieces_of_a_row_are_told_apart(placement: str, group: dist.ProcessGroup) -> None:
    specs = [table for table in two_member_specs() if table.dim > FIRST_ORDER_DIM]
    placements = {table.name: placement for table in specs}
    task = two_member_task(two_member_specs())
    rest = {table.name: "table_wise" for table in two_member_specs() if table.name not in placements}
    found = table_shards(shard_for_one(task, placements | rest, group=group).state_dict())
    for table in specs:
        pieces = found[table.name].local
        assert sorted((piece.first_row, piece.first_column, *piece.tensor.shape) for piece in pieces) == [
            (0, 0, table.num_rows, 4),
            (0, 4, table.num_rows, 4),
        ]
