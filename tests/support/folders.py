"""Prepared folders of given arrays, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from trainer.data.manifest import DataManifest, FeatureSpec, Part, PartFile


def write_folder(
    root: Path,
    *,
    features: Sequence[FeatureSpec],
    parts: Mapping[str, Mapping[str, np.ndarray]],
    num_rows: Mapping[str, int],
) -> DataManifest:
    """Writes each part's arrays by role, and the manifest last."""
    root.mkdir(parents=True, exist_ok=True)
    made = []
    for name, arrays in parts.items():
        files = {}
        for role, array in arrays.items():
            path = root / f"{name}_{role}.npy"
            np.save(path, array)
            files[role] = PartFile(path=path.name, num_bytes=path.stat().st_size, sha256="not read here")
        labels = arrays.get("labels")
        label_sum = None if labels is None else int(labels.sum())
        made.append(Part(name=name, num_rows=num_rows[name], label_sum=label_sum, files=files))
    manifest = DataManifest(features=tuple(features), parts=tuple(made), dictionary_sha256="none")
    manifest.write(str(root))
    return manifest
