"""Tensor files: what is written is what safetensors' own library reads."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from trainer.checkpoints.tensor_files import DTYPES, write_tensors


def test_safetensors_reads_every_type_and_shape(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    tensors = {name: (torch.arange(12).reshape(4, 3) % 2).to(dtype) for name, dtype in DTYPES.items()}
    tensors |= {"scalar": torch.tensor(2.5), "empty": torch.empty(0, 3), "turned": torch.randn(5, 4).T}
    shapes = {name: (value.dtype, tuple(value.shape)) for name, value in tensors.items()}
    written = write_tensors(str(path), shapes, tensors.values(), metadata={"note": "größe"})
    with safe_open(str(path), framework="pt") as file:
        assert file.metadata() == {"note": "größe"}
        assert set(file.keys()) == set(tensors)
        for name, value in tensors.items():
            found = file.get_tensor(name)
            assert found.dtype == value.dtype and torch.equal(found, value), name
    content = path.read_bytes()
    assert written.proof == {"num_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    at = written.first_bytes["turned"]
    assert content[at : at + 80] == tensors["turned"].contiguous().numpy().tobytes()


def test_blocks_make_a_tensor(tmp_path: Path) -> None:
    path, whole = tmp_path / "file.safetensors", torch.randn(7, 2)
    write_tensors(str(path), {"a": (whole.dtype, (7, 2))}, [whole[:3], whole[3:4], whole[4:]])
    with safe_open(str(path), framework="pt") as file:
        assert torch.equal(file.get_tensor("a"), whole)


def test_blocks_that_are_no_whole_are_our_mistake(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="announced"):
        write_tensors(str(tmp_path / "file"), {"a": (torch.float32, (7, 2))}, [torch.zeros(6, 2)])
