"""Prepared folders whose labels follow one id feature and one numeric feature; all others are noise."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.analysis import baselines
from trainer.data.criteo import NUM_DENSE, NUM_SPARSE, feature_specs
from trainer.data.manifest import DataManifest, Part, PartFile
from trainer.data.reading.batch import Rows

NUM_IDS = 12
PARTS = {"train": 3_000, "valid": 1_000}


def planted(
    root: Path,
    *,
    parts: Mapping[str, int] = PARTS,
    numerics: Literal["whole", "none"] = "whole",
    dictionary: str = "d",
) -> str:
    """Writes the folder and gives its path."""
    root.mkdir()
    draw = np.random.default_rng(4)
    features = feature_specs([NUM_IDS] * NUM_SPARSE)
    if numerics == "none":
        features = tuple(feature for feature in features if feature.kind == "id")
    DataManifest(
        features=features,
        parts=tuple(_part(root, name, num_rows=count, numerics=numerics, draw=draw) for name, count in parts.items()),
        dictionary_sha256=dictionary,
        provenance={},
    ).write(str(root))
    return str(root)


def _part(root: Path, name: str, *, num_rows: int, numerics: str, draw: np.random.Generator) -> Part:
    ids = draw.integers(0, NUM_IDS, (num_rows, NUM_SPARSE)).astype(np.int32)
    dense = np.log1p(draw.poisson(3.0, (num_rows, NUM_DENSE))).astype(np.float32)
    logits = (ids[:, 0] - 6) / 2 + (1.5 * (dense[:, 0] - 1.3) if numerics == "whole" else 0.0) - 1
    labels = (draw.random(num_rows) < 1 / (1 + np.exp(-logits))).astype(np.int32)
    arrays = {"sparse": ids, "labels": labels[:, None]} | ({"dense": dense} if numerics == "whole" else {})
    files = {}
    for role, array in arrays.items():
        path = root / f"{name}_{role}.npy"
        np.save(path, array)
        content = path.read_bytes()
        files[role] = PartFile(path=path.name, num_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    return Part(name=name, num_rows=num_rows, label_sum=int(labels.sum()), files=files)


def truth(rows: Rows) -> NDArray[np.float64]:
    """What the labels follow, [N]."""
    numeric = 1.5 * (rows.dense[:, 0] - 1.3) if rows.dense.shape[1] else 0.0
    return (rows.ids[:, 0] - 6) / 2 + numeric


def few_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The baselines' search over settings is the same with fewer of them."""
    monkeypatch.setattr(baselines, "_NUM_LEAVES", (4, 8))
    monkeypatch.setattr(baselines, "_MIN_LEAF_ROWS", (50,))
    monkeypatch.setattr(baselines, "_MAX_TREES", 80)
    monkeypatch.setattr(baselines, "_STRENGTHS", (0.05, 0.5))
