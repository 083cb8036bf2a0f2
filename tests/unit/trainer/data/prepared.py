"""Small prepared folders made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    dense = [FeatureSpec(name=name, kind="dense", file="dense", column=i) for i, name in enumerate(DENSE_NAMES)]
    ids = [
        FeatureSpec(name=name, kind="id", file="sparse", column=i, rows=rows)
        for i, (name, rows) in enumerate(TABLE_ROWS.items())
    ]
    arrays = {
        name: {role: getattr(part, role) for role in ("dense", "sparse", "labels")} for name, part in parts.items()
    }
    return folder_of(root, arrays, features=(*dense, *ids))


def folder_of(
    root: Path, parts: Mapping[str, Mapping[str, NDArray]], *, features: Sequence[FeatureSpec], archived: str = ""
) -> str:
    """A prepared folder of any features; parts without the role labels have none.

    Args:
        root: The folder.
        parts: Part -> role -> array.
        features: In order.
        archived: A role that is stored as member "0" of an npz archive.
    """
    root.mkdir(exist_ok=True)
    described = []
    for name, arrays in parts.items():
        files = {}
        for role, array in arrays.items():
            path = root / f"{name}_{role}.{'npz' if role == archived else 'npy'}"
            if role == archived:
                np.savez(path, **{"1": array[:0], "0": array})
            else:
                np.save(path, array)
            files[role] = PartFile(
                path=path.name,
                num_bytes=path.stat().st_size,
                sha256=storage.sha256(str(path)),
                member="0" if role == archived else None,
            )
        labels = arrays.get("labels")
        num_rows = max(len(array) for role, array in arrays.items() if not role.endswith(("_values", "_offsets")))
        label_sum = None if labels is None else int(labels.sum())
        described.append(Part(name=name, num_rows=num_rows, label_sum=label_sum, files=files))
    manifest = DataManifest(
        features=tuple(features), parts=tuple(described), dictionary_sha256="d1", provenance={"command": "by hand"}
    )
    manifest.write(str(root))
    return str(root)


MIXED_FEATURES = (
    FeatureSpec(name="I1", kind="dense", file="dense", column=0),
    FeatureSpec(name="C1", kind="id", file="sparse", column=1, rows=20),
    FeatureSpec(name="genres", kind="bag", file="genres", column=0, rows=50),
    FeatureSpec(name="E1", kind="bag", file="sparse", column=0, rows=1_000, bag_size=4),
    FeatureSpec(name="N1", kind="id", file="numeric_ids", column=0, rows=9),
    FeatureSpec(name="M1", kind="bag", file="M1", column=0, rows=30, bag_size=3),
    FeatureSpec(name="weight", kind="weight", file="weights", column=0),
)


def mixed_arrays(num_rows: int, *, seed: int) -> dict[str, NDArray]:
    """Random rows of every kind of feature; a third of the jagged bags is empty."""
    random = np.random.default_rng(seed)
    lengths = np.maximum(random.integers(-2, 4, num_rows), 0)
    return {
        "dense": random.normal(size=(num_rows, 1)).astype(np.float32),
        "sparse": random.integers(0, [1_000, 20], (num_rows, 2)).astype(np.int32),
        "numeric_ids": random.integers(0, 9, (num_rows, 1)).astype(np.int32),
        "genres_values": random.integers(0, 50, int(lengths.sum())).astype(np.int32),
        "genres_offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "M1": random.integers(0, 30, (num_rows, 3)).astype(np.int32),
        "weights": random.uniform(0, 3, (num_rows, 1)).astype(np.float32),
        "labels": random.integers(0, 2, (num_rows, 1)).astype(np.int32),
    }


def mixed_folder(root: Path, parts: Mapping[str, Mapping[str, NDArray]]) -> str:
    """A folder of `mixed_arrays`; M1 lies in an archive."""
    return folder_of(root, parts, features=MIXED_FEATURES, archived="M1")
