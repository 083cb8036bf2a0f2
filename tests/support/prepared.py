"""Prepared folders made of the planted teacher's rows, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from trainer import storage
from trainer.data.criteo import feature_specs
from trainer.data.manifest import DataManifest, Part, PartFile
from trainer.data.synthetic.teacher import Teacher


def write_prepared(root: Path, *, parts: Mapping[str, int], max_table_rows: int = 60, seed: int = 7) -> DataManifest:
    """A prepared folder whose parts hold the teacher's rows one after the other."""
    root.mkdir(parents=True, exist_ok=True)
    teacher = Teacher(seed=seed, max_table_rows=max_table_rows)
    first, made = 0, []
    for name, num_rows in parts.items():
        rows = teacher.rows(np.arange(first, first + num_rows))
        first += num_rows
        arrays = {
            "dense": rows.dense.astype(np.float32),
            "sparse": rows.ids.astype(np.int32),
            "labels": rows.label.astype(np.int32).reshape(-1, 1),
        }
        files = {}
        for role, array in arrays.items():
            path = root / f"{name}_{role}.npy"
            np.save(path, np.ascontiguousarray(array))
            files[role] = PartFile(path=path.name, num_bytes=path.stat().st_size, sha256=storage.sha256(str(path)))
        made.append(Part(name=name, num_rows=num_rows, label_sum=int(rows.label.sum()), files=files))
    manifest = DataManifest(
        features=tuple(feature_specs(teacher.table_rows)), parts=tuple(made), dictionary_sha256=f"teacher {seed}"
    )
    manifest.write(str(root))
    return manifest
