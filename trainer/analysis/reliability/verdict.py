"""Verdicts on a run that was killed: whether it ended as the one that nobody killed, and what it left behind."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from configs.errors import CheckpointError
from trainer import storage
from trainer.checkpoints.manifest import (
    MANIFEST_NAME,
    RUN_NAME,
    STEP_PREFIX,
    CheckpointManifest,
    read_manifest,
    verify_file,
)
from trainer.checkpoints.stored_checkpoint import CHECKPOINTS_NAME
from trainer.reporting import METRICS_NAME

# Depend on the machine's load, or on where attempts began.
_NOT_COMPARED = ("seconds", "train/rows_per_second")
_NOT_COMPARED_PREFIX = "time/"


def problems_of(folder: str, *, reference: str) -> list[str]:
    """What distinguishes a finished run from the reference; empty: nothing.

    Every checkpoint that is left must verify; the last one must have the same facts and, but for run.toml, which
    names the folder, the same files, byte for byte; and metrics.jsonl must tell the same figures for the same steps.
    """
    problems = []
    manifests = []
    for name in checkpoints(folder):
        try:
            manifest = read_manifest(checkpoint_path(folder, name))
            manifests.append(manifest)
            for file in manifest.files:
                verify_file(manifest, file)
        except CheckpointError as error:
            problems.append(str(error))
    if not manifests:
        return [*problems, f"{folder}: no checkpoint is left"]
    ours, theirs = manifests[-1], _newest(reference)
    problems += [
        f"{ours.folder}: {what} differs from {theirs.folder}"
        for what, value in _facts(ours).items()
        if value != _facts(theirs)[what]
    ]
    return problems + _other_metrics(folder, reference)


def checkpoints(folder: str, *, whole: bool = True) -> list[str]:
    """Names of the checkpoints of a run, the oldest first; or of the unfinished ones."""
    inside = storage.join(folder, CHECKPOINTS_NAME)
    found = [name for name in storage.names(inside) if name.startswith(STEP_PREFIX)] if storage.exists(inside) else []
    return [name for name in found if storage.is_file(storage.join(inside, name, MANIFEST_NAME)) == whole]


def checkpoint_path(folder: str, name: str) -> str:
    """The folder of a run's checkpoint."""
    return storage.join(folder, CHECKPOINTS_NAME, name)


def _newest(folder: str) -> CheckpointManifest:
    return read_manifest(checkpoint_path(folder, checkpoints(folder)[-1]))


def _facts(manifest: CheckpointManifest) -> dict[str, Any]:
    """Manifest fields and files by name, each with what must be equal."""
    fields = {field.name: getattr(manifest, field.name) for field in dataclasses.fields(manifest)}
    files = {name: proof for name, proof in fields.pop("files").items() if name != RUN_NAME}
    del fields["folder"]
    return fields | {"the list of files": sorted(files)} | files


def _other_metrics(folder: str, reference: str) -> list[str]:
    ours, theirs = _metrics(folder), _metrics(reference)
    if [line["step"] for line in ours] != [line["step"] for line in theirs]:
        return [f"{folder}/{METRICS_NAME}: lines of {len(ours)} steps where the reference has {len(theirs)}"]
    for mine, other in zip(ours, theirs, strict=True):
        different = [key for key in mine.keys() | other.keys() if mine.get(key) != other.get(key)]
        if different:
            return [f"{folder}/{METRICS_NAME}: {sorted(different)[0]} differs at step {mine['step']}"]
    return []


def _metrics(folder: str) -> list[dict[str, Any]]:
    lines = storage.read_text(storage.join(folder, METRICS_NAME)).splitlines()
    return [
        {
            key: value
            for key, value in json.loads(line).items()
            if key not in _NOT_COMPARED and not key.startswith(_NOT_COMPARED_PREFIX)
        }
        for line in lines
    ]
