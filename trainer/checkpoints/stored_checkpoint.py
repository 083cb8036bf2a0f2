"""StoredCheckpoint: a checkpoint on disk, read tensor by tensor and block by block; needs no ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from configs.errors import CheckpointError
from sharding.shards import table_name
from trainer import storage
from trainer.checkpoints.manifest import (
    CHECKPOINTS_NAME,
    MANIFEST_NAME,
    STATE_NAME,
    CheckpointManifest,
    read_manifest,
    step_names,
)
from trainer.checkpoints.state_files import StoredTensor, read_index, row_blocks

WEIGHTS = "model/"
TABLE_STATE = "optimizer/tables/"
DENSE_STATE = "optimizer/dense/"
MEMBER_WEIGHTS = "model/ensemble.bank.members."


@dataclass(frozen=True, kw_only=True)
class StoredCheckpoint:
    """A checkpoint with its manifest and the index of its tensors."""

    manifest: CheckpointManifest
    index: dict[str, StoredTensor]

    @staticmethod
    def open(folder: str) -> StoredCheckpoint:
        """A checkpoint's folder, or the newest of a run's folder.

        Raises:
            CheckpointError: there is none, or its manifest or index cannot be read.
        """
        manifest = read_manifest(newest_checkpoint(folder))
        state = storage.join(manifest.folder, STATE_NAME)
        try:
            return StoredCheckpoint(manifest=manifest, index=read_index(state))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{state}: its index cannot be read ({error!r}); take another checkpoint") from error

    @property
    def folder(self) -> str:
        """Where it lies."""
        return self.manifest.folder

    @property
    def weights(self) -> list[str]:
        """Keys of tables and dense parameters."""
        return [key for key in self.index if key.startswith(WEIGHTS)]

    def table_weights(self) -> dict[str, str]:
        """Table -> the key of its weights."""
        return {table: key for key in self.weights if (table := table_name(key)) is not None}

    def table_states(self, table: str) -> dict[str, str]:
        """State of a table's optimizer, such as sum -> its key."""
        prefix = f"{TABLE_STATE}{table}/"
        return {key.removeprefix(prefix): key for key in self.index if key.startswith(prefix)}

    def member_weights(self, member: str) -> dict[str, str]:
        """Dense parameter of a member, named as in its module -> its key."""
        prefix = f"{MEMBER_WEIGHTS}{member}."
        return {key.removeprefix(prefix): key for key in self.weights if key.startswith(prefix)}

    def num_values(self, key: str) -> int:
        """Values of one tensor."""
        return torch.Size(self.index[key].shape).numel()

    def num_bytes(self, keys: Sequence[str]) -> int:
        """Bytes of tensors."""
        return sum(self.num_values(key) * self.index[key].dtype.itemsize for key in keys)

    def blocks(self, key: str, *, rows: range | None = None) -> Iterator[Tensor]:
        """A tensor's rows in order, all or those asked for, in blocks of a few MiB.

        Raises:
            CheckpointError: they cannot be read.
        """
        state = storage.join(self.folder, STATE_NAME)
        try:
            yield from row_blocks(state, key, index=self.index, rows=rows)
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{self.folder}: {key} cannot be read ({error}); what is damaged is named by"
                " tools/inspect_checkpoint.py verify"
            ) from error


def newest_checkpoint(folder: str) -> str:
    """The folder itself where it is a checkpoint, else the newest finished one of a run's folder.

    Raises:
        CheckpointError: there is none.
    """
    if storage.is_file(storage.join(folder, MANIFEST_NAME)):
        return folder
    found = finished(folder)
    if found:
        return found[-1]
    unfinished = step_folders(folder)
    if unfinished:
        raise CheckpointError(f"{folder}: none of its {len(unfinished)} checkpoints was finished; take another run")
    raise CheckpointError(
        f"no checkpoint in {folder!r}; name a checkpoint's folder, as runs/NAME/TIME/checkpoints/step_..., or a run's"
    )


def step_folders(folder: str) -> list[str]:
    """Folders of checkpoints in a run's folder, finished or not, the oldest first."""
    for place in (storage.join(folder, CHECKPOINTS_NAME), folder):
        names = step_names(place)
        if names:
            return [storage.join(place, name) for name in names]
    return []


def finished(folder: str) -> list[str]:
    """The finished ones among them."""
    return [step for step in step_folders(folder) if storage.is_file(storage.join(step, MANIFEST_NAME))]
