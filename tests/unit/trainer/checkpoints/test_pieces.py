"""Pieces: what a rank holds of a sharded tensor, as live views."""

from __future__ import annotations

import pytest
import torch
from torch.distributed._shard.metadata import ShardMetadata
from torch.distributed._shard.sharded_tensor import Shard, ShardedTensor, init_from_local_shards
from torch.distributed.checkpoint.metadata import MetadataIndex

from trainer.checkpoints.pieces import LoadPlanner, Pieces, SavePlanner, pieces_of
from trainer.runtime import Runtime


def sharded(*shards: tuple[list[int], torch.Tensor]) -> ShardedTensor:
    made = [
        Shard(tensor, ShardMetadata(shard_offsets=at, shard_sizes=list(tensor.shape), placement="rank:0/cpu"))
        for at, tensor in shards
    ]
    return init_from_local_shards(made, 6, 8)


def test_the_parts_of_a_sharded_tensor_are_live_views(runtime: Runtime) -> None:
    left, right = (torch.zeros(6, 4, requires_grad=True) for _ in range(2))
    pieces = pieces_of(sharded(([0, 0], left), ([0, 4], right)))
    assert isinstance(pieces, Pieces)
    assert (pieces.shape, pieces.size()) == ((6, 8), torch.Size([6, 8]))
    assert list(pieces.parts) == [(0, 0), (0, 4)]
    assert not any(part.requires_grad for part in pieces.parts.values())
    with torch.no_grad():
        left[1, 2] = 5.0
    assert pieces.parts[0, 0][1, 2] == 5.0
    pieces.parts[0, 4][3, 3] = 7.0  # what loading does
    assert right[3, 3] == 7.0


def test_an_empty_part_is_left_out(runtime: Runtime) -> None:
    pieces = pieces_of(sharded(([0, 0], torch.zeros(6, 8)), ([6, 0], torch.zeros(0, 8))))
    assert isinstance(pieces, Pieces)
    assert list(pieces.parts) == [(0, 0)]


def test_a_tensor_that_is_whole_here_stays_one() -> None:
    value = torch.zeros(3, requires_grad=True)
    found = pieces_of(value)
    assert isinstance(found, torch.Tensor) and not found.requires_grad
    assert found.data_ptr() == value.data_ptr()


@pytest.mark.parametrize("at", [(0, 0), (0, 4)])
def test_the_planners_find_the_part_that_is_meant(at: tuple[int, int]) -> None:
    parts = {(0, 0): torch.zeros(6, 4), (0, 4): torch.ones(6, 4)}
    state = {"model/a": Pieces(shape=(6, 8), parts=parts), "model/b": torch.tensor(2.0)}
    save, load = SavePlanner(), LoadPlanner()
    save.state_dict, load.state_dict = state, state
    index = MetadataIndex("model/a", torch.Size(at))
    assert save.lookup_object(index) is parts[at]
    assert load.lookup_tensor(index) is parts[at]
    assert save.lookup_object(MetadataIndex("model/b")) is state["model/b"]
