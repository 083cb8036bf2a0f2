"""Preparations of small logs in this process, and what came out of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.preparing.criteo_format import CriteoFormat
from trainer.data.preparing.dictionary import IdRule
from trainer.data.preparing.preparation_settings import PreparationSettings, VocabularyChoice
from trainer.data.preparing.splits import Split

HASHED = VocabularyChoice(kind="hash", hash_rows=100)
MLPERF_RULE = IdRule(order="first_row", min_count=1, max_rows=40_000_000)


def settings_for(inputs: Sequence[str], output: Path | str, **changed: Any) -> PreparationSettings:
    """Settings with a part for each file, unless told otherwise."""
    usual: dict[str, Any] = {"input_format": CriteoFormat(), "memory_gb": 2.0}
    if "split" not in changed:
        usual["split"] = Split.by_file(inputs)
    return PreparationSettings(inputs=tuple(inputs), output=str(output), **{**usual, **changed})


def arrays_of(root: Path | str, part: str) -> dict[str, np.ndarray]:
    """Role -> array of a part."""
    return {path.stem.removeprefix(f"{part}_"): np.load(path) for path in sorted(Path(root).glob(f"{part}_*.npy"))}


def contents(root: Path | str) -> dict[str, str]:
    """Every file of a folder and the hash of its bytes."""
    found = {}
    for path in sorted(Path(root).rglob("*")):
        if path.is_file():
            found[str(path.relative_to(root))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def rows_and_ids(root: Path | str) -> dict[str, str]:
    """`contents` without what names the inputs: the manifest and the quarantine."""
    return {name: digest for name, digest in contents(root).items() if name.endswith((".npy", ".parquet"))}


def quarantine(root: Path | str) -> list[dict[str, Any]]:
    """The quarantined lines."""
    path = Path(root) / "quarantine.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def interrupt_in(stage: str, *, after_calls: int = 1) -> Any:
    """A progress listener that breaks off in a stage."""
    calls = 0

    def listen(now: Any) -> None:
        nonlocal calls
        if now.stage == stage:
            calls += 1
            if calls >= after_calls:
                raise KeyboardInterrupt

    return listen
