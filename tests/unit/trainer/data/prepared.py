"""Small prepared folders made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer import storage
from trainer.data.manifest import DataManifest, FeatureSpec, Part, PartFile

TABLE_ROWS = {"C1": 10, "C2": 100, "C3": 4}
DENSE_NAMES = ("I1", "I2")


@dataclass(frozen=True)
class PartArrays:
    """One part's arrays as they go into the files."""

    dense: NDArray[np.float32]
    sparse: NDArray[np.int32]
    labels: NDArray[np.int32]


def part_arrays(num_rows: int, *, seed: int = 0) -> PartArrays:
    """Random rows that fit the tables."""
    random = np.random.default_rng(seed)
    return PartArrays(
        dense=random.normal(size=(num_rows, len(DENSE_NAMES))).astype(np.float32),
        sparse=random.integers(0, list(TABLE_ROWS.values()), (num_rows, len(TABLE_ROWS))).astype(np.int32),
        labels=random.integers(0, 2, (num_rows, 1)).astype(np.int32),
    )


def prepared_folder(root: Path, parts: Mapping[str, PartArrays]) -> str:
    """Writes the npy files and the manifest; gives the folder."""
    root.mkdir(exist_ok=True)
    described = []
    for name, arrays in parts.items():
        files = {}
        for role in ("dense", "sparse", "labels"):
            path = root / f"{name}_{role}.npy"
            np.save(path, getattr(arrays, role))
            files[role] = PartFile(path=path.name, num_bytes=path.stat().st_size, sha256=storage.sha256(str(path)))
        described.append(Part(name=name, num_rows=len(arrays.labels), label_sum=int(arrays.labels.sum()), files=files))
    dense = [FeatureSpec(name=name, kind="dense", file="dense", column=i) for i, name in enumerate(DENSE_NAMES)]
    ids = [
        FeatureSpec(name=name, kind="id", file="sparse", column=i, rows=rows)
        for i, (name, rows) in enumerate(TABLE_ROWS.items())
    ]
    manifest = DataManifest(
        features=(*dense, *ids), parts=tuple(described), dictionary_sha256="d1", provenance={"command": "by hand"}
    )
    manifest.write(str(root))
    return str(root)
