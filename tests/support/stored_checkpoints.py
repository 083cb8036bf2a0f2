"""Checkpoints written by hand, value by value, cut into pieces as a plan of several ranks would."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from configs.loader import dump_run
from tests.support.runs import small_run
from trainer.checkpoints.manifest import CheckpointManifest, proof_of, write_manifest
from trainer.checkpoints.state_files import StoredPart, StoredTensor, write_index
from trainer.checkpoints.tensor_files import write_tensors

ROWS = {"C1": 10, "C2": 6}
TABLE = "model/ensemble.tables.embedding_bags.{}.weight"
DENSE = "model/ensemble.bank.members.{}"
TEXT = """
[members.deep]
arch = { kind = "mlp", hidden = [4] }
[members.solo]
tables = "own"
arch = { kind = "deepfm", hidden = [3] }
[tables.shared]
dim = 8
optimizer = "adagrad"
[tables.own]
dim = 4
optimizer = "sgd"
"""
GROUPS = {"shared": (8, "adagrad"), "solo": (4, "sgd"), "solo+first_order": (4, "sgd")}


def state(seed: int = 0) -> dict[str, Tensor]:
    """Weights and some optimizer state of two members on two features and one number."""
    draw = torch.Generator().manual_seed(seed)

    def some(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    tensors = {}
    for group, (dim, rule) in GROUPS.items():
        for feature, rows in ROWS.items():
            tensors[TABLE.format(f"{group}/{feature}")] = some(rows, dim)
            if rule == "adagrad":
                tensors[f"optimizer/tables/{group}/{feature}/sum"] = some(rows, dim).square()
    dense = {
        "deep.mlp.layers.0.weight": some(4, 1 + 2 * 8),
        "deep.mlp.layers.0.bias": some(4),
        "deep.mlp.layers.2.weight": some(1, 4),
        "deep.mlp.layers.2.bias": some(1),
        "solo.dense_linear.weight": some(1, 1),
        "solo.dense_linear.bias": some(1),
        "solo.deep.layers.0.weight": some(3, 1 + 2 * 4),
        "solo.deep.layers.0.bias": some(3),
        "solo.deep.layers.2.weight": some(1, 3),
        "solo.deep.layers.2.bias": some(1),
    }
    for name, value in dense.items():
        tensors[DENSE.format(name)] = value
        tensors[f"optimizer/dense/ensemble.bank.members.{name}/step"] = torch.tensor(5.0)
    return tensors


def model_facts(**changes: Any) -> dict[str, Any]:
    """The manifest's `model` of that state."""
    config = small_run(text=TEXT)
    facts = {
        "members": {name: json.dumps(dataclasses.asdict(member.arch)) for name, member in config.members.items()},
        "inputs": {
            name: {"numeric": "dense", "num_dense": 1, "features": list(ROWS), "embedded": True}
            for name in config.members
        },
        "groups": {"deep": "shared", "solo": "solo"},
        "tables": {f"{group}/{name}": [rows, dim] for group, (dim, _) in GROUPS.items() for name, rows in ROWS.items()},
        "table_rules": {f"{group}/{name}": rule for group, (_, rule) in GROUPS.items() for name in ROWS},
        "dense_features": ["I1"],
        "table_rows": ROWS,
        "dictionary": "d1",
        "numeric_ids": {},
    }
    return facts | changes


def store(
    folder: Path,
    tensors: Mapping[str, Tensor],
    *,
    step: int = 7,
    pieces: tuple[int, int] = (1, 1),
    model: Mapping[str, Any] | None = None,
    run: str = TEXT,
) -> Path:
    """A whole checkpoint; every matrix is cut into pieces of rows and columns, and a file holds a piece of each."""
    (folder / "state").mkdir(parents=True)
    cut = {key: _cut(value, pieces) for key, value in tensors.items()}
    parts: dict[str, list[StoredPart]] = {key: [] for key in tensors}
    files = {}
    for rank in range(max(map(len, cut.values()))):
        name, held = f"rank_{rank}_0.safetensors", {key: of[rank] for key, of in cut.items() if rank < len(of)}
        shapes = {key: (piece.dtype, tuple(piece.shape)) for key, (_, piece) in held.items()}
        written = write_tensors(str(folder / "state" / name), shapes, [piece for _, piece in held.values()])
        files[f"state/{name}"] = written.proof
        for key, (at, piece) in held.items():
            place = StoredPart(file=name, first_byte=written.first_bytes[key], offsets=at, sizes=tuple(piece.shape))
            parts[key].insert(0, place)  # in another order than that of the rows
    index = {
        key: StoredTensor(dtype=value.dtype, shape=tuple(value.shape), parts=tuple(parts[key]))
        for key, value in tensors.items()
    }
    files["state/index.json"] = write_index(str(folder / "state"), index)
    plan = {name: {"sharding_type": "row_wise"} for name in (model or model_facts())["tables"]}
    (folder / "run.toml").write_text(dump_run(small_run(text=run)))
    (folder / "plan.json").write_text(json.dumps({"fingerprint": "f1", "made_for": {"world_size": 4}, "tables": plan}))
    files |= {name: proof_of(str(folder / name)) for name in ("run.toml", "plan.json")}
    manifest = CheckpointManifest(
        folder=str(folder),
        step=step,
        world_size=4,
        progress={"step": step, "epoch": 1, "row": 3, "rows_total": 103},
        model=model or model_facts(),
        data={"dense_optimizer": {"deep": "adam", "solo": "adam"}},
        learning={},
        quality=-0.5,
        column_pieces={},
        files=files,
    )
    write_manifest(manifest)
    return folder


def _cut(value: Tensor, pieces: tuple[int, int]) -> list[tuple[tuple[int, ...], Tensor]]:
    if value.dim() != 2:
        return [((0,) * value.dim(), value)]
    rows, columns = (
        list(itertools.accumulate([len(part) for part in torch.arange(size).tensor_split(count)], initial=0))
        for size, count in zip(value.shape, pieces, strict=True)
    )
    return [
        ((top, left), value[top:bottom, left:right])
        for top, bottom in itertools.pairwise(rows)
        for left, right in itertools.pairwise(columns)
        if bottom > top and right > left
    ]


def flip(path: Path, at: int = -1) -> None:
    """Changes one bit of a byte of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


def quiet(_num_bytes: int) -> None:
    """No progress."""
