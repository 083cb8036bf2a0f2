"""Which of the scored parts a checkpoint was trained on, as far as its own files still say."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from typing import Any

from configs.errors import ChorusError
from trainer import storage
from trainer.checkpoints.manifest import MANIFEST_NAME, RUN_NAME
from trainer.predictions.manifest import PredictionManifest


def trained_on(manifest: PredictionManifest, *, parts: Collection[str]) -> list[dict[str, Any]]:
    """Checkpoints that were trained on some of these parts: {checkpoint, parts}.

    A part is the same where its name is, and the data's root or the dictionary's hash. A checkpoint whose files cannot
    be read any more is passed over.

    Args:
        manifest: Of the predictions.
        parts: Those of the rows that are judged.
    """
    found = []
    for checkpoint in manifest.checkpoints:
        data = _run_of(checkpoint.folder).get("data", {})
        names = data.get("train", ()) if isinstance(data, Mapping) else ()
        seen = [name for name in names if name in parts] if isinstance(names, list) else []
        if seen and _is_same(checkpoint.folder, str(data.get("root", "")), manifest):
            found.append({"checkpoint": checkpoint.label or checkpoint.folder, "parts": seen})
    return found


def trained_note(one: Mapping[str, Any]) -> str:
    """The sentence on a checkpoint that `trained_on` found."""
    return (
        f"{one['checkpoint']} was trained on {', '.join(one['parts'])}: these rows were trained on; figures on them"
        " flatter."
    )


def _is_same(folder: str, root: str, manifest: PredictionManifest) -> bool:
    scored = str(manifest.data.get("root") or "")
    if root and scored and storage.same_place(root, scored):
        return True
    dictionary = _dictionary_of(folder)
    return bool(dictionary) and dictionary == manifest.data.get("dictionary")


def _run_of(folder: str) -> Mapping[str, Any]:
    try:
        return tomllib.loads(storage.read_text(storage.join(folder, RUN_NAME)))
    except (OSError, ValueError, ChorusError):  # moved, damaged, out of reach
        return {}


def _dictionary_of(folder: str) -> str:
    try:
        body = storage.read_json(storage.join(folder, MANIFEST_NAME))
        return str(body["model"]["dictionary"] or "")
    except (OSError, ValueError, KeyError, TypeError, ChorusError):
        return ""
