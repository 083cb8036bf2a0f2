"""A benchmark's baselines: logistic regression and gradient boosting on the rows that its members are trained on.

Legend: N judged rows of a window.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
import zipfile
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from configs.benchmark_schema import Benchmark, Window
from configs.errors import DataError
from trainer import storage
from trainer.analysis.baselines import FITS, read_rows, search_settings
from trainer.clock import clock
from trainer.data.reading.batch import Rows

BASELINES_NAME = "baselines"


def baseline_logits(
    benchmark: Benchmark, *, data: Mapping[str, str], folder: str, say: Callable[[str], None]
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Baseline -> window -> logits [N] of the judged rows, in the order of the test parts.

    Each is fitted on the window's training parts alone, kept in FOLDER/baselines, and not fitted again.

    Args:
        benchmark: Only with `baselines = "fitted"` there are any.
        data: Window -> prepared folder.
        folder: Of the benchmark.
        say: Told what is being done.

    Raises:
        DataError: a prepared folder or a kept file is damaged, or its features are bags.
    """
    if benchmark.baselines == "none":
        return {}
    found: dict[str, dict[str, NDArray[np.float64]]] = {name: {} for name in FITS}
    for window_name, window in benchmark.data.windows.items():
        paths = {name: _path(name, window_name, window=window, data=data[window_name], folder=folder) for name in FITS}
        missing = [name for name, path in paths.items() if not storage.is_file(path)]
        if missing:
            storage.make_folder(storage.join(folder, BASELINES_NAME))
            say(f"baselines of window {window_name}")
            train = read_rows(data[window_name], window.train)
            judged = read_rows(data[window_name], window.test)
            for name in missing:
                _fit(name, train, judged, path=paths[name], say=say)
        for name, path in paths.items():
            found[name][window_name] = _read(path)
    return found


def _path(name: str, window_name: str, *, window: Window, data: str, folder: str) -> str:
    """As a job's, the key holds what the result depends on, wherever the benchmark's folder lies."""
    parts = [name, storage.base_name(data), window.train, window.test, search_settings()]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:10]
    return storage.join(folder, BASELINES_NAME, f"{window_name}.{name.replace(' ', '_')}-{key}.npz")


def _fit(name: str, train: Rows, judged: Rows, *, path: str, say: Callable[[str], None]) -> None:
    began, done = time.monotonic(), 0
    say(f"{name}: fitting on {len(train):,} rows")

    def tell(left: int) -> None:
        nonlocal done
        done += 1
        seconds = time.monotonic() - began
        say(f"{name}: {done}/{done + left} fits  ETA {clock(seconds / done * left)}")

    fitted = FITS[name](train, judged, tell)
    say(f"{name}: {fitted.settings}")
    content = io.BytesIO()
    np.savez(content, logits=fitted.logits, settings=np.array(fitted.settings))
    storage.write_bytes(path, content.getvalue())


def _read(path: str) -> NDArray[np.float64]:
    try:
        with storage.open_file(path, "rb") as file, np.load(io.BytesIO(file.read()), allow_pickle=False) as kept:
            return np.asarray(kept["logits"], dtype=np.float64)
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: damaged ({error}); remove it, and it is fitted again") from error
