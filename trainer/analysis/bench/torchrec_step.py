"""TorchRec's first preparation step, from text to three npy files, as what ours is compared with."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torchrec.datasets.criteo import BinaryCriteoUtils

_NAMES = ("dense", "sparse", "labels")


def step_seconds(path: str, folder: str) -> float:
    """Seconds of `BinaryCriteoUtils.tsv_to_npys` of a plain log; its three files are put into the folder."""
    outputs = _outputs(folder)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Local function is not supported by pickle")
        started = time.perf_counter()
        BinaryCriteoUtils.tsv_to_npys(path, *outputs)
        return time.perf_counter() - started


def step_arrays(folder: str) -> tuple[NDArray, NDArray, NDArray]:
    """What it has written: dense float32 [N, 13], sparse int64 [N, 26], labels int32 [N, 1]."""
    dense, sparse, labels = (np.load(path) for path in _outputs(folder))
    return dense, sparse, labels


def _outputs(folder: str) -> list[str]:
    return [str(Path(folder, f"torchrec_{name}.npy")) for name in _NAMES]
