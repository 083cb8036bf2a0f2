"""Tensor files: safetensors written tensor by tensor or block by block, hashed on the way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import torch
from torch import Tensor

from trainer import storage

BLOCK_BYTES = 8 << 20
# safetensors' names of the types that parameters and optimizer states have.
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}
DTYPES |= {"I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True, kw_only=True)
class WrittenFile:
    """A file as it was written."""

    first_bytes: Mapping[str, int]  # tensor -> the byte of the file where its values begin
    proof: dict[str, Any]  # num_bytes and sha256, as a manifest has them


def write_tensors(
    path: str,
    shapes: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    blocks: Iterable[Tensor],
    *,
    metadata: Mapping[str, str] | None = None,
) -> WrittenFile:
    """Writes one safetensors file.

    Args:
        path: The file.
        shapes: Tensor -> its type and shape.
        blocks: The tensors' values in that order, each whole or as several blocks of rows.
        metadata: Text kept in the file's header.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, (dtype, shape) in shapes.items():
        size = torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format wants the data aligned
    first_byte = 8 + len(text)
    with storage.naming(path), storage.open_file(path, "wb") as file:
        hashed = _HashedFile(file)
        hashed.write(len(text).to_bytes(8, "little") + text)
        for tensor in blocks:
            for block in _bytes_of(tensor):
                hashed.write(block)
        storage.settle(file)
    assert hashed.num_bytes == first_byte + at, f"{path}: {hashed.num_bytes} bytes, {first_byte + at} announced"
    return WrittenFile(
        first_bytes={name: first_byte + header[name]["data_offsets"][0] for name in shapes}, proof=hashed.proof()
    )


class _HashedFile:
    """A file being written, with the hash of what was."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.num_bytes = 0

    def write(self, block: bytes | memoryview) -> None:
        self._file.write(block)
        self._digest.update(block)
        self.num_bytes += len(block)

    def proof(self) -> dict[str, Any]:
        return {"num_bytes": self.num_bytes, "sha256": self._digest.hexdigest()}


def _bytes_of(tensor: Any) -> Iterator[memoryview]:
    """A tensor's bytes in row order, in blocks; one that is not contiguous is copied block by block."""
    flat_rows = tensor.detach().unsqueeze(0) if tensor.dim() == 0 else tensor.detach()
    row_bytes = max(1, flat_rows[:1].numel() * flat_rows.element_size())
    rows_at_once = max(1, BLOCK_BYTES // row_bytes)
    for start in range(0, len(flat_rows), rows_at_once):
        rows = flat_rows[start : start + rows_at_once].cpu().contiguous()
        yield memoryview(rows.reshape(-1).view(torch.uint8).numpy())
