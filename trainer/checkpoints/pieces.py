"""Pieces: the parts of a tensor that this rank holds, in the form torch.distributed.checkpoint saves and loads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """Parts of one tensor: live views, or copies of them. Parts of several ranks together are the whole.

    It has the methods by which torch.distributed.checkpoint asks an object for its parts, so a part
    needs no process group and no ShardedTensor around it.
    """

    shape: tuple[int, ...]
    parts: Mapping[tuple[int, ...], Tensor]  # offsets -> the part

    def size(self) -> torch.Size:
        """Of the whole tensor."""
        return torch.Size(self.shape)

    def __create_write_items__(self, key: str, _: Any) -> list[WriteItem]:  # noqa: PLW3201
        return [
            WriteItem(
                index=MetadataIndex(key, torch.Size(offsets)),
                type=WriteItemType.SHARD,
                tensor_data=TensorWriteData(
                    chunk=_chunk(offsets, part),
                    properties=TensorProperties.create_from_tensor(part),
                    size=self.size(),
                ),
            )
            for offsets, part in self.parts.items()
        ]

    def __create_chunk_list__(self) -> list[ChunkStorageMetadata]:  # noqa: PLW3201
        return [_chunk(offsets, part) for offsets, part in self.parts.items()]


State: TypeAlias = Mapping[str, Pieces | Tensor]


def _chunk(offsets: Iterable[int], part: Tensor) -> ChunkStorageMetadata:
    return ChunkStorageMetadata(offsets=torch.Size(offsets), sizes=part.size())


def pieces_of(value: Tensor) -> Pieces | Tensor:
    """The local parts of a sharded tensor as live views; a tensor that every rank holds whole is given as it is."""
    if not isinstance(value, ShardedTensor):
        return value.detach()
    parts = {tuple(shard.metadata.shard_offsets): shard.tensor.detach() for shard in value.local_shards()}
    return Pieces(shape=tuple(value.size()), parts={offsets: part for offsets, part in parts.items() if part.numel()})


class SavePlanner(DefaultSavePlanner):
    """DCP's planner, taught to find a part."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def lookup_object(self, index: MetadataIndex) -> Any:
        """The tensor to write."""
        return _find(self.state_dict, index)


class LoadPlanner(DefaultLoadPlanner):
    """DCP's planner, taught to find a part."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def set_up_planner(self, state_dict: Any, metadata: Metadata | None = None, is_coordinator: bool = False) -> None:
        """DCP's own would take the objects apart, in search of tensors on the meta device."""
        self.original_state_dict = self.state_dict = state_dict
        self.metadata = metadata
        self.is_coordinator = is_coordinator

    def lookup_tensor(self, index: MetadataIndex) -> Tensor:
        """The tensor to read into."""
        return _find(self.state_dict, index)


def _find(state: Mapping[str, Any], index: MetadataIndex) -> Tensor:
    value: Pieces | Tensor = state[index.fqn]
    return value.parts[tuple(index.offset or ())] if isinstance(value, Pieces) else value
