"""Checkpoints: model, optimizer state, progress, run.toml and plan.json; the manifest is written last.

A folder is a checkpoint exactly when its manifest.json is there. Weights and optimizer state are
saved with torch.distributed.checkpoint under keys that no plan or world size changes, so they load
into any of either.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from configs.errors import CheckpointError, ChorusError, DataError
from trainer import storage
from trainer.data.reading.source import SourceFeatures
from trainer.runtime import Runtime

FORMAT = "chorus-checkpoint"
FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
RUN_NAME = "run.toml"
PLAN_NAME = "plan.json"
STATE_NAME = "state"
_STEP_PREFIX = "step_"


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a checkpoint's model must have in common with the model it is loaded into."""

    members: Mapping[str, str]  # name -> a description of its architecture
    tables: Mapping[str, tuple[int, int]]  # name -> (rows, dim)
    table_rules: Mapping[str, str]  # name -> update rule
    features: SourceFeatures

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "members": dict(self.members),
            "tables": {name: list(size) for name, size in self.tables.items()},
            "table_rules": dict(self.table_rules),
            "dense_features": list(self.features.dense_names),
            "table_rows": dict(self.features.table_rows),
            "dictionary": self.features.dictionary,
        }


@dataclass(frozen=True, kw_only=True)
class CheckpointManifest:
    """The manifest of a whole checkpoint."""

    folder: str
    step: int
    progress: Mapping[str, int]
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]  # path below the folder -> {num_bytes, sha256}


def read_manifest(folder: str) -> CheckpointManifest:
    """The manifest of a checkpoint folder.

    Raises:
        CheckpointError: no such folder, unfinished, not ours, or of another format version.
    """
    path = storage.join(folder, MANIFEST_NAME)
    if not storage.exists(folder) or storage.is_file(folder):
        raise CheckpointError(f"no checkpoint folder {folder!r}; name one, as runs/NAME/TIME/checkpoints/step_...")
    if not storage.is_file(path):
        inside = [name for name in storage.names(folder) if name.startswith(_STEP_PREFIX)]
        hint = (
            f"; it holds {', '.join(inside)}: give one of those" if inside else ", so it was not finished; take another"
        )
        raise CheckpointError(f"{folder}: no {MANIFEST_NAME} in it{hint}")
    try:
        body = storage.read_json(path)
        if body["format"] != FORMAT:
            raise ValueError(f"format {body['format']!r}")
        if body["format_version"] != FORMAT_VERSION:
            raise CheckpointError(
                f"{path}: format version {body['format_version']}, this program reads {FORMAT_VERSION}"
            )
        return CheckpointManifest(
            folder=folder,
            step=body["step"],
            progress=body["progress"],
            model=body["model"],
            data=body["data"],
            files=body["files"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a checkpoint's manifest ({error!r}); take another checkpoint") from error


def check_same_features(manifest: CheckpointManifest, features: SourceFeatures, *, root: str) -> None:
    """Refuses data that were prepared with other features, table sizes or dictionary than the checkpoint's.

    Raises:
        DataError: names the first features that differ.
    """
    saved = manifest.model["table_rows"]
    ours = dict(features.table_rows)
    different = [name for name in {**saved, **ours} if saved.get(name) != ours.get(name)]
    if different:
        shown = ", ".join(f"{name} has {ours.get(name)} rows, not {saved.get(name)}" for name in different[:3])
        more = f" and {len(different) - 3} more" if len(different) > 3 else ""
        raise DataError(
            f"data.root: {root!r} was prepared with other table sizes than the data of {manifest.folder}:"
            f" {shown}{more}; prepare it with that dictionary"
        )
    if list(features.dense_names) != list(manifest.model["dense_features"]):
        raise DataError(
            f"data.root: {root!r} has dense features {', '.join(features.dense_names)}; the checkpoint"
            f" {manifest.folder} was trained on {', '.join(manifest.model['dense_features'])}"
        )
    if features.dictionary != manifest.model["dictionary"]:
        raise DataError(
            f"data.root: {root!r} was prepared with another dictionary than the data of {manifest.folder}, so its ids"
            " mean other values; prepare it with that dictionary"
        )


def check_same_model(manifest: CheckpointManifest, facts: ModelFacts) -> None:
    """Refuses a checkpoint of another model, naming every member, table and feature that differs.

    Raises:
        CheckpointError: something differs.
    """
    ours, theirs = facts.as_json(), manifest.model
    problems = []
    for what in ("members", "tables", "table_rules", "table_rows"):
        for name in sorted(set(ours[what]) | set(theirs[what])):
            mine, saved = ours[what].get(name), theirs[what].get(name)
            if mine != saved:
                problems.append(f"{what}.{name}: {_told(saved)} in the checkpoint, {_told(mine)} in this run")
    for what in ("dense_features", "dictionary"):
        if ours[what] != theirs[what]:
            problems.append(f"{what}: {theirs[what]} in the checkpoint, {ours[what]} in this run's data")
    if problems:
        shown = problems[:8] + ([f"and {len(problems) - 8} more"] if len(problems) > 8 else [])
        raise CheckpointError(
            f"{manifest.folder} is a checkpoint of another model; use its own run.toml and data, or another folder:\n  "
            + "\n  ".join(shown)
        )


def _told(value: Any) -> str:
    return "absent" if value is None else str(value)


class Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: The run's checkpoint folder.
        keep_last: Whole checkpoints to keep.
        runtime: This process.
    """

    def __init__(self, *, folder: str, keep_last: int, runtime: Runtime) -> None:
        self._folder = folder
        self._keep_last = keep_last
        self._runtime = runtime

    def save(
        self,
        tensors: Mapping[str, Tensor],
        *,
        progress: Mapping[str, int],
        facts: ModelFacts,
        data: Mapping[str, Any],
        texts: Mapping[str, str],
    ) -> str:
        """Writes a checkpoint and gives its folder. A collective.

        Args:
            tensors: Key -> this rank's live tensor, sharded or replicated.
            progress: Where training stands; has `step`.
            facts: What the model is.
            data: What the row order depends on.
            texts: File name -> text, as run.toml and plan.json.
        """
        runtime = self._runtime
        folder = storage.join(self._folder, _name(progress["step"]))
        state = storage.join(folder, STATE_NAME)
        runtime.from_main(lambda: self._start(folder))
        try:
            _collective("save", folder, lambda: dcp.save(dict(tensors), checkpoint_id=state))
        except CheckpointError as error:  # nothing was refused: the disk or a rank failed
            raise ChorusError(f"{error}{storage.room(self._folder)}") from error

        def hashes() -> dict[str, dict[str, Any]]:
            mine = [name for i, name in enumerate(storage.names(state)) if i % runtime.world_size == runtime.rank]
            return {storage.join(STATE_NAME, name): _proof(storage.join(state, name)) for name in mine}

        files: dict[str, Any] = {}
        for found in runtime.gather(runtime.together(hashes)):
            files |= found

        def finish() -> None:
            for name, text in texts.items():
                storage.write_text(storage.join(folder, name), text)
                files[name] = _proof(storage.join(folder, name))
            manifest = {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "step": progress["step"],
                "progress": dict(progress),
                "world_size": runtime.world_size,
                "model": facts.as_json(),
                "data": dict(data),
                "files": dict(sorted(files.items())),
            }
            storage.write_json(storage.join(folder, MANIFEST_NAME), manifest)
            self._forget_others(progress["step"])

        runtime.from_main(finish)
        return folder

    def _start(self, folder: str) -> None:
        if storage.exists(folder):  # left unfinished, or the run was taken back to an earlier step
            storage.remove_tree(folder)
        storage.make_folder(storage.join(folder, STATE_NAME))

    def _forget_others(self, step: int) -> None:
        """Keeps the newest up to `step`; later ones were passed over as damaged, unfinished ones nobody can use."""
        newest = _name(step)
        kept = [name for name in self.whole() if name <= newest][-self._keep_last :]
        for name in storage.names(self._folder):
            if name.startswith(_STEP_PREFIX) and name not in kept:
                storage.remove_tree(storage.join(self._folder, name))

    def whole(self) -> list[str]:
        """Names of the checkpoints that have a manifest, oldest first."""
        return [
            name
            for name in storage.names(self._folder)
            if name.startswith(_STEP_PREFIX) and storage.is_file(storage.join(self._folder, name, MANIFEST_NAME))
        ]

    def newest(self) -> CheckpointManifest | None:
        """The newest checkpoint whose files are as written; damaged ones are named and passed over. A collective.

        Raises:
            CheckpointError: there are checkpoints, and all are damaged.
        """
        runtime = self._runtime
        whole: list[str] = runtime.from_main(self.whole)
        for name in reversed(whole):
            folder = storage.join(self._folder, name)
            try:
                manifest: CheckpointManifest = runtime.from_main(functools.partial(read_manifest, folder))
                verify(manifest, runtime=runtime)
                return manifest
            except CheckpointError as error:
                runtime.say(f"passing over a checkpoint: {error}")
        if whole:
            raise CheckpointError(
                f"{self._folder}: all {len(whole)} checkpoints are damaged; give another run.folder to start anew"
            )
        return None


def verify_file(manifest: CheckpointManifest, name: str) -> None:
    """Compares one file with the manifest.

    Raises:
        CheckpointError: it is missing or its bytes differ.
    """
    path = storage.join(manifest.folder, name)
    if not storage.is_file(path):
        raise CheckpointError(f"{path} is missing; take another checkpoint")
    if _proof(path) != manifest.files.get(name):
        raise CheckpointError(f"{path} is damaged: its bytes are not those written; take another checkpoint")


def verify(manifest: CheckpointManifest, *, runtime: Runtime) -> None:
    """Compares every file with the manifest, the ranks sharing the work.

    Raises:
        CheckpointError: a file is missing or its bytes differ; on every rank.
    """

    def check() -> None:
        for index, name in enumerate(manifest.files):
            if index % runtime.world_size == runtime.rank:
                verify_file(manifest, name)

    runtime.together(check)


def load(manifest: CheckpointManifest, tensors: dict[str, Tensor]) -> None:
    """Loads into live tensors, whatever plan and world size they were saved under. All ranks must call this."""
    state = storage.join(manifest.folder, STATE_NAME)
    _collective("load", manifest.folder, lambda: dcp.load(tensors, checkpoint_id=state))


def _name(step: int) -> str:
    return f"{_STEP_PREFIX}{step:010d}"


def _proof(path: str) -> dict[str, Any]:
    return {"num_bytes": storage.num_bytes(path), "sha256": storage.sha256(path)}


def _collective(what: str, folder: str, do: Callable[[], Any]) -> None:
    try:
        do()
    except CheckpointException as error:  # not an Exception
        rank, (cause, _) = next(iter(error.failures.items()))
        raise CheckpointError(f"cannot {what} {folder}: rank {rank}: {_one_line(cause)}") from error
    except Exception as error:
        raise CheckpointError(f"cannot {what} {folder}: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[-300:]
