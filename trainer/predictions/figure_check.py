"""Whether the figures in a prediction manifest are those of the columns as written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from trainer.predictions.figures import Form, prediction_figures
from trainer.predictions.reading import Predictions

_RELATIVE = 1e-12
_MEMORY_BYTES = 1 << 30
_MOST_NAMED = 5


def wrong_figures(predictions: Predictions, *, say: Callable[[str], None] = lambda _line: None) -> list[str]:
    """Sentences for figures that differ from those computed anew, in the form they were computed in; a few are named.

    Args:
        predictions: A finished folder.
        say: Told how far it is where it takes long.

    Raises:
        DataError: a file cannot be read.
    """
    manifest = predictions.manifest
    streaming = any("auc_lower" in figures for figures in manifest.metrics.values())
    form: Form = "streaming" if streaming else "exact"
    found = prediction_figures(predictions, memory_bytes=_MEMORY_BYTES, form=form, say=say)
    if found.metrics and not manifest.metrics:
        return ["manifest.json: has no figures, though all rows have labels"]
    told = [
        *_different("metrics", manifest.metrics, found.metrics),
        *_different("metrics_by_part", manifest.metrics_by_part, found.by_part),
        *_different("calibration_curves", manifest.calibration_curves, found.curves),
    ]
    more = len(told) - _MOST_NAMED
    return told[:_MOST_NAMED] + ([f"manifest.json: and {more:,} more figures are not of the files"] if more > 0 else [])


def _different(key: str, said: Any, found: Any) -> list[str]:
    if isinstance(said, Mapping) and isinstance(found, Mapping):
        return [
            line for name in {**found, **said} for line in _different(f"{key}.{name}", said.get(name), found.get(name))
        ]
    if isinstance(said, (list, tuple)) and isinstance(found, (list, tuple)) and len(said) == len(found):
        return [
            line
            for place, (mine, its) in enumerate(zip(said, found, strict=True))
            for line in _different(f"{key}[{place}]", mine, its)
        ]
    if isinstance(said, (int, float)) and isinstance(found, (int, float)):
        if math.isclose(said, found, rel_tol=_RELATIVE):
            return []
        return [f"manifest.json: {key} is {said!r}, of the files {found!r}"]
    if said == found:
        return []
    return [f"manifest.json: {key} is {_told(said)}, of the files {_told(found)}"]


def _told(value: Any) -> str:
    if isinstance(value, (list, tuple, Mapping)):
        return f"{len(value):,} values"
    return "not there" if value is None else repr(value)
