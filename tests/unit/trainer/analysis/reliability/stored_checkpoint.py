"""Writes small checkpoints by hand, as a run would have left them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.checkpoints.manifest import STATE_NAME, CheckpointManifest, proof_of, write_manifest
from trainer.checkpoints.state_files import INDEX_FORMAT, INDEX_NAME, INDEX_VERSION
from trainer.checkpoints.tensor_files import DTYPE_NAMES, write_tensors


def write_checkpoint(folder: Path, tensors: Mapping[str, Tensor], *, step: int = 4, **facts: Any) -> str:
    """One file of state with its index, a run.toml and a manifest; gives the folder."""
    state = folder / STATE_NAME
    state.mkdir(parents=True)
    shapes = {key: (tensor.dtype, tuple(tensor.shape)) for key, tensor in tensors.items()}
    written = write_tensors(str(state / "rank_0_0.safetensors"), shapes, tensors.values())
    body: dict[str, Any] = {"format": INDEX_FORMAT, "format_version": INDEX_VERSION, "tensors": {}}
    for key, (dtype, shape) in shapes.items():
        place = {"file": "rank_0_0.safetensors", "first_byte": written.first_bytes[key]}
        part = place | {"offsets": [0] * len(shape), "sizes": list(shape)}
        body["tensors"][key] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "parts": [part]}
    (state / INDEX_NAME).write_text(json.dumps(body))
    (folder / "run.toml").write_text(f"# {folder}\n")
    names = (f"{STATE_NAME}/rank_0_0.safetensors", f"{STATE_NAME}/{INDEX_NAME}", "run.toml")
    fields = {"progress": {"step": step}, "model": {}, "data": {}, "learning": {}, "quality": None} | facts
    write_manifest(
        CheckpointManifest(
            folder=str(folder),
            step=step,
            world_size=1,
            column_pieces=fields.pop("column_pieces", {}),
            files={name: proof_of(str(folder / name)) for name in names},
            **fields,
        )
    )
    return str(folder)


def trained_state() -> dict[str, Tensor]:
    """Weights and sums of one table, and a dense weight."""
    return {
        "model/bags.g/f.weight": torch.arange(12.0).reshape(3, 4),
        "model/dense.weight": torch.tensor([0.5, 0.25]),
        "optimizer/tables/g/f/sum": torch.tensor([1.0, 2.0, 3.0]),
    }
