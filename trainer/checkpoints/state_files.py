"""State files: weights and optimizer state as safetensors with a JSON index, behind torch.distributed.checkpoint.

DCP plans who writes and who reads what; these two classes are its storage. Its own storage keeps the
index as a pickle, which runs code when it is read; here reading is JSON and numbers. A file is
hashed while it is written, and of a file that is read only the wanted rows are fetched, also from
s3://.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, cast

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from trainer import storage
from trainer.checkpoints.tensor_files import BLOCK_BYTES, DTYPE_NAMES, DTYPES, write_tensors

INDEX_NAME = "index.json"
INDEX_FORMAT = "chorus-state"
INDEX_VERSION = 1
MOST_FILE_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class StoredPart:
    """Where a part of a tensor lies."""

    file: str
    first_byte: int
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A tensor of a checkpoint."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    parts: tuple[StoredPart, ...]


def read_index(folder: str) -> dict[str, StoredTensor]:
    """Key -> tensor, of a folder that `StateWriter` wrote.

    Raises:
        ValueError: it is of another format or version, or some tensor's parts are not all of it.
    """
    body = storage.read_json(storage.join(folder, INDEX_NAME))
    if (body["format"], body["format_version"]) != (INDEX_FORMAT, INDEX_VERSION):
        raise ValueError(f"{body['format']!r} of version {body['format_version']!r}")
    tensors = {
        key: StoredTensor(
            dtype=DTYPES[tensor["dtype"]],
            shape=tuple(tensor["shape"]),
            parts=tuple(
                StoredPart(
                    file=part["file"],
                    first_byte=part["first_byte"],
                    offsets=tuple(part["offsets"]),
                    sizes=tuple(part["sizes"]),
                )
                for part in tensor["parts"]
            ),
        )
        for key, tensor in body["tensors"].items()
    }
    for key, tensor in tensors.items():
        num_values = sum(math.prod(part.sizes) for part in tensor.parts)
        if num_values != math.prod(tensor.shape):
            raise ValueError(f"{key} has {math.prod(tensor.shape):,} values, its parts {num_values:,}")
    return tensors


def write_index(folder: str, tensors: Mapping[str, StoredTensor]) -> dict[str, Any]:
    """Writes the index that `read_index` reads; gives its {num_bytes, sha256}."""
    body = {
        "format": INDEX_FORMAT,
        "format_version": INDEX_VERSION,
        "tensors": {
            key: dataclasses.asdict(tensor) | {"dtype": DTYPE_NAMES[tensor.dtype]}
            for key, tensor in sorted(tensors.items())
        },
    }
    text = json.dumps(body, indent=1).encode()
    storage.write_bytes(storage.join(folder, INDEX_NAME), text)
    return {"num_bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}


class StateWriter(StorageWriter):
    """Writes every rank's parts as rank_R_N.safetensors; the coordinator writes the index.

    After saving, `files` of the coordinator maps each file's name to its {num_bytes, sha256}.
    """

    def __init__(
        self, folder: str, *, most_file_bytes: int = MOST_FILE_BYTES, on_block: Callable[[], None] = lambda: None
    ) -> None:
        self._folder = folder
        self._on_block = on_block
        self._most_file_bytes = most_file_bytes
        self.files: dict[str, dict[str, Any]] = {}

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """DCP begins."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """The folder is there already."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """As DCP planned it."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Every rank learns its number, which names its files."""
        return [dataclasses.replace(plan, storage_data=rank) for rank, plan in enumerate(plans)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Writes this rank's parts."""
        results: list[WriteResult] = []
        for number, items in enumerate(_files_of(plan.items, most_bytes=self._most_file_bytes)):
            results += self._write_file(f"rank_{plan.storage_data}_{number}.safetensors", items, planner)
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def _write_file(self, name: str, items: Sequence[WriteItem], planner: SavePlanner) -> list[WriteResult]:
        shapes = {}
        for item in items:
            data = item.tensor_data
            assert data is not None
            shapes[_part_name(item)] = (data.properties.dtype, tuple(data.chunk.sizes))
        written = write_tensors(storage.join(self._folder, name), shapes, self._blocks(items, planner))
        return [
            WriteResult(
                index=item.index,
                size_in_bytes=_num_bytes(item),
                storage_data=(name, written.first_bytes[_part_name(item)], written.proof),
            )
            for item in items
        ]

    def _blocks(self, items: Sequence[WriteItem], planner: SavePlanner) -> Iterator[Tensor]:
        for item in items:
            yield cast(Tensor, planner.resolve_data(item))
            self._on_block()

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Writes the index; on the coordinator alone."""
        tensors: dict[str, StoredTensor] = {}
        places = {result.index: result.storage_data for of_rank in results for result in of_rank}
        for key, tensor in metadata.state_dict_metadata.items():
            assert isinstance(tensor, TensorStorageMetadata), f"{key} is not a tensor"
            parts = []
            for chunk in tensor.chunks:
                file, first_byte, _ = places[MetadataIndex(key, chunk.offsets)]
                offsets, sizes = tuple(chunk.offsets), tuple(chunk.sizes)
                parts.append(StoredPart(file=file, first_byte=first_byte, offsets=offsets, sizes=sizes))
            dtype = tensor.properties.dtype
            tensors[key] = StoredTensor(dtype=dtype, shape=tuple(tensor.size), parts=tuple(parts))
        self.files = {name: proof for name, _, proof in places.values()}
        self.files[INDEX_NAME] = write_index(self._folder, tensors)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Any folder."""
        return True


class StateReader(StorageReader):
    """Reads what `StateWriter` wrote, of every file only the rows that are wanted."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._parts: dict[MetadataIndex, StoredPart] = {}
        self._dtypes: dict[str, torch.dtype] = {}

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """DCP begins."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The index, in DCP's words."""
        tensors = {}
        for key, tensor in read_index(self._folder).items():
            chunks = []
            for part in tensor.parts:
                chunk = ChunkStorageMetadata(offsets=torch.Size(part.offsets), sizes=torch.Size(part.sizes))
                chunks.append(chunk)
                self._parts[MetadataIndex(key, chunk.offsets)] = part
            self._dtypes[key] = tensor.dtype
            properties = TensorProperties(dtype=tensor.dtype)
            tensors[key] = TensorStorageMetadata(properties=properties, size=torch.Size(tensor.shape), chunks=chunks)
        return Metadata(state_dict_metadata=tensors)  # type: ignore[arg-type]

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Nothing to set up."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """As DCP planned it."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """As DCP planned it."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Reads this rank's parts in place."""
        by_file: dict[str, list[tuple[StoredPart, Any]]] = {}
        for item in plan.items:
            part = self._parts[item.storage_index]
            by_file.setdefault(part.file, []).append((part, item))
        for name, wanted in by_file.items():
            path = storage.join(self._folder, name)
            with storage.open_stream(path) as file:
                for part, item in sorted(wanted, key=lambda pair: pair[0].first_byte):
                    key, target = item.storage_index.fqn, planner.resolve_tensor(item).detach()
                    first = tuple(item.storage_offsets)
                    try:
                        _read_region(file, part, dtype=self._dtypes[key], first=first, target=target)
                    except ValueError as error:
                        raise ValueError(f"{key}: {error}") from error
                    planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Any folder."""
        return True


def read_tensor(folder: str, key: str, *, index: Mapping[str, StoredTensor]) -> Tensor:
    """One tensor, whole, on this machine; needs no process group."""
    stored = index[key]
    whole = torch.empty(stored.shape, dtype=stored.dtype)
    for part in stored.parts:
        target = whole[tuple(slice(o, o + s) for o, s in zip(part.offsets, part.sizes, strict=True))]
        with storage.open_stream(storage.join(folder, part.file)) as file:
            _read_region(file, part, dtype=stored.dtype, first=(0,) * target.dim(), target=target)
    return whole


def _read_region(
    file: IO[bytes], part: StoredPart, *, dtype: torch.dtype, first: tuple[int, ...], target: Tensor
) -> None:
    """Copies the region of a part of this type that begins at `first` and has the target's shape.

    Raises:
        ValueError: the target's type cannot hold its values exactly.
    """
    lengths = tuple(target.shape)
    if not lengths:
        file.seek(part.first_byte)
        target.copy_(_exactly(_read_block(file, dtype.itemsize, dtype).view(()), target.dtype))
        return
    row_shape = part.sizes[1:]
    row_bytes = torch.Size(row_shape).numel() * dtype.itemsize
    rows_at_once = max(1, BLOCK_BYTES // max(row_bytes, 1))
    columns = tuple(slice(f, f + n) for f, n in zip(first[1:], lengths[1:], strict=True))
    file.seek(part.first_byte + first[0] * row_bytes)
    for start in range(0, lengths[0], rows_at_once):
        count = min(rows_at_once, lengths[0] - start)
        rows = _read_block(file, count * row_bytes, dtype).view(count, *row_shape)[(slice(None), *columns)]
        target[start : start + count].copy_(_exactly(rows, target.dtype))


def _exactly(values: Tensor, dtype: torch.dtype) -> Tensor:
    """The values in another type, where it can hold them: a count of steps is an integer under one placement only."""
    if values.dtype == dtype:
        return values
    converted = values.to(dtype)
    if not torch.equal(converted.to(values.dtype), values):
        raise ValueError(f"saved as {values.dtype}, whose values {dtype} cannot hold exactly")
    return converted


def _read_block(file: IO[bytes], num_bytes: int, dtype: torch.dtype) -> Tensor:
    content = bytearray(file.read(num_bytes))
    if len(content) != num_bytes:
        raise OSError(f"{getattr(file, 'name', 'a state file')} ends {num_bytes - len(content)} bytes early")
    return torch.frombuffer(content, dtype=dtype) if num_bytes else torch.empty(0, dtype=dtype)


def _files_of(items: Sequence[WriteItem], *, most_bytes: int) -> Iterator[list[WriteItem]]:
    """Items in order, cut into files of about `most_bytes`."""
    bucket: list[WriteItem] = []
    size = 0
    for item in items:
        if bucket and size + _num_bytes(item) > most_bytes:
            yield bucket
            bucket, size = [], 0
        bucket.append(item)
        size += _num_bytes(item)
    if bucket:
        yield bucket


def _num_bytes(item: WriteItem) -> int:
    assert item.tensor_data is not None, f"{item.index.fqn} is not a tensor"
    return item.tensor_data.chunk.sizes.numel() * int(item.tensor_data.properties.dtype.itemsize)


def _part_name(item: WriteItem) -> str:
    """The key, and where in the whole tensor the part begins, unless it is the whole."""
    data = item.tensor_data
    assert data is not None
    whole = data.chunk.sizes == data.size
    return item.index.fqn if whole else f"{item.index.fqn}@{','.join(map(str, data.chunk.offsets))}"


def row_blocks(
    folder: str, key: str, *, index: Mapping[str, StoredTensor], rows: range | None = None
) -> Iterator[Tensor]:
    """A tensor's rows in order, in blocks of about 8 MiB of whole rows; one of no dimension is one block.

    The same rows of tensors of one shape and type come in the same blocks, however they were cut when they were saved.

    Args:
        folder: Of the state files.
        key: The tensor's.
        index: Of the folder.
        rows: The rows wanted, going up by one; None: all.

    Raises:
        ValueError: some of the values are in no file.
    """
    stored = index[key]
    if not stored.shape:
        yield read_tensor(folder, key, index=index)
        return
    wanted = range(stored.shape[0]) if rows is None else rows
    row_shape = stored.shape[1:]
    rows_at_once = max(1, BLOCK_BYTES // max(torch.Size(row_shape).numel() * stored.dtype.itemsize, 1))
    for start in range(wanted.start, wanted.stop, rows_at_once):
        stop = min(start + rows_at_once, wanted.stop)
        block, num_read = torch.empty(stop - start, *row_shape, dtype=stored.dtype), 0
        for part in stored.parts:
            first, last = max(start, part.offsets[0]), min(stop, part.offsets[0] + part.sizes[0])
            if first >= last:
                continue
            columns = (slice(o, o + s) for o, s in zip(part.offsets[1:], part.sizes[1:], strict=True))
            target = block[(slice(first - start, last - start), *columns)]
            with storage.open_stream(storage.join(folder, part.file)) as file:
                region = (first - part.offsets[0], *[0] * len(row_shape))
                _read_region(file, part, dtype=stored.dtype, first=region, target=target)
            num_read += target.numel()
        if num_read != block.numel():
            raise ValueError(f"{key}: {block.numel() - num_read} values of rows {start} to {stop} are in no file")
        yield block
