"""The manifest of a checkpoint: what it holds, and the size and hash of every file; it is written last.

A folder is a checkpoint exactly when its manifest.json is there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from configs.errors import CheckpointError
from trainer import storage
from trainer.data.reading.source import SourceFeatures
from trainer.progress import Progress
from trainer.row_progress import RowProgress
from trainer.votes import Ranks

FORMAT = "chorus-checkpoint"
FORMAT_VERSION = 3
CHECKPOINTS_NAME = "checkpoints"  # in a run's folder
MANIFEST_NAME = "manifest.json"
RUN_NAME = "run.toml"
PLAN_NAME = "plan.json"
STATE_NAME = "state"
STEP_PREFIX = "step_"
_STEP_NAME = re.compile(rf"{STEP_PREFIX}(\d{{10}})")


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a checkpoint's model must have in common with the model it is loaded into."""

    members: Mapping[str, str]  # name -> a description of its architecture
    inputs: Mapping[str, Mapping[str, Any]]  # name -> which features it reads, and as what
    groups: Mapping[str, str]  # name of a member -> its table group
    tables: Mapping[str, tuple[int, int]]  # name -> (rows, dim)
    table_rules: Mapping[str, str]  # name -> update rule
    features: SourceFeatures

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "members": dict(self.members),
            "inputs": {name: dict(fields) for name, fields in self.inputs.items()},
            "groups": dict(self.groups),
            "tables": {name: list(size) for name, size in self.tables.items()},
            "table_rules": dict(self.table_rules),
            "dense_features": list(self.features.dense_names),
            "table_rows": dict(self.features.table_rows),
            "dictionary": self.features.dictionary,
            "numeric_ids": dict(self.features.numeric_ids),
        }


@dataclass(frozen=True, kw_only=True)
class CheckpointManifest:
    """The manifest of a whole checkpoint."""

    folder: str
    step: int
    world_size: int
    progress: Mapping[str, Any]
    model: Mapping[str, Any]
    data: Mapping[str, Any]  # what the row order depends on
    learning: Mapping[str, Any]  # where schedule and watch stand
    quality: float | None  # the watched figure, higher is better; None without an evaluation
    column_pieces: Mapping[str, Sequence[Sequence[int]]]  # table -> [first column, columns] of each state's piece
    files: Mapping[str, Mapping[str, Any]]  # path below the folder -> {num_bytes, sha256}
    averaged: Mapping[str, Any] = field(default_factory=dict)  # how and of what, where it is a mean; it has no state
    watched: str = ""  # which figure quality is, as merged/auc


class OtherVersionError(CheckpointError):
    """A manifest of another version of Chorus, as it was written."""


def step_names(folder: str) -> list[str]:
    """Names in a folder that checkpoints of a run have, oldest first, finished or not."""
    return [name for name in storage.names(folder) if _STEP_NAME.fullmatch(name)]


def read_manifest(folder: str) -> CheckpointManifest:
    """The manifest of a checkpoint folder.

    Raises:
        CheckpointError: no such folder, unfinished, not ours, or of another format version.
    """
    path = storage.join(folder, MANIFEST_NAME)
    if not storage.exists(folder) or storage.is_file(folder):
        raise CheckpointError(f"no checkpoint folder {folder!r}; name one, as runs/NAME/TIME/checkpoints/step_...")
    if not storage.is_file(path):
        for place, called in ((folder, "it"), (storage.join(folder, CHECKPOINTS_NAME), f"its {CHECKPOINTS_NAME}")):
            if inside := step_names(place):
                held = f"{called} hold{'s' if called == 'it' else ''} {', '.join(inside)}"
                raise CheckpointError(f"{folder}: no {MANIFEST_NAME} in it; {held}: give one of those")
        raise CheckpointError(f"{folder}: no {MANIFEST_NAME} in it, so it was not finished; take another")
    try:
        body = storage.read_json(path)
        if body["format"] != FORMAT:
            raise ValueError(f"format {body['format']!r}")
        is_as_written = body.pop("sha256", None) == _own_hash(body)
        if body["format_version"] != FORMAT_VERSION:
            raise (OtherVersionError if is_as_written else CheckpointError)(
                f"{path}: format version {body['format_version']}, this program reads {FORMAT_VERSION};"
                " read it with the version of Chorus that wrote it"
            )
        if not is_as_written:
            raise ValueError("its own hash differs")
        facts = {field.name: body[field.name] for field in dataclasses.fields(CheckpointManifest) if field.name in body}
        Progress(**facts["progress"])
        named = _STEP_NAME.fullmatch(storage.base_name(folder))
        if named is not None and int(named[1]) != facts["step"]:
            raise ValueError(f"it is of step {facts['step']}")
        return CheckpointManifest(folder=folder, **facts)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a checkpoint's manifest ({error!r}); take another checkpoint") from error


def write_manifest(manifest: CheckpointManifest) -> None:
    """Writes it into its folder, which is a checkpoint from then on."""
    body: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION} | dataclasses.asdict(manifest)
    del body["folder"]
    body["files"] = dict(sorted(manifest.files.items()))
    path = storage.join(manifest.folder, MANIFEST_NAME)
    # As it will be read: JSON makes lists of tuples.
    storage.write_json(path, body | {"sha256": _own_hash(json.loads(json.dumps(body)))})


def _own_hash(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def verify_file(manifest: CheckpointManifest, name: str) -> None:
    """Compares one file with the manifest.

    Raises:
        CheckpointError: it is missing or its bytes differ.
    """
    path = storage.join(manifest.folder, name)
    if not storage.is_file(path):
        raise CheckpointError(f"{path} is missing; take another checkpoint")
    if proof_of(path) != manifest.files.get(name):
        raise CheckpointError(f"{path} is damaged: its bytes are not those written; take another checkpoint")


def verify(manifest: CheckpointManifest, *, ranks: Ranks) -> None:
    """Compares every file with the manifest, the ranks sharing the work; rank 0 tells how far its share is.

    Raises:
        CheckpointError: a file is missing or its bytes differ; on every rank.
    """
    mine = list(manifest.files)[ranks.rank :: ranks.world_size]
    progress = RowProgress("verifying", sum(manifest.files[name]["num_bytes"] for name in mine), unit="MiB")

    def check() -> None:
        for name in mine:
            ranks.beat(f"verifying {manifest.folder}")
            verify_file(manifest, name)
            if ranks.is_main:
                progress.add(manifest.files[name]["num_bytes"])

    ranks.together(check)


def proof_of(path: str) -> dict[str, Any]:
    """A file's size and hash, as the manifest has them."""
    return {"num_bytes": storage.num_bytes(path), "sha256": storage.sha256(path)}
