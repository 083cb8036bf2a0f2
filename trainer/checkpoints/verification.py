"""Verification: every file of checkpoints against their manifests, and each difference named."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from configs.errors import CheckpointError
from trainer import storage
from trainer.checkpoints.manifest import MANIFEST_NAME, STATE_NAME, CheckpointManifest, read_manifest
from trainer.checkpoints.stored_checkpoint import newest_checkpoint, step_folders

Advance: TypeAlias = Callable[[int], None]  # told of the bytes that were read
_BLOCK_BYTES = 8 << 20


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was found of one checkpoint."""

    folder: str
    num_files: int = 0
    num_bytes: int = 0
    problems: tuple[str, ...] = ()  # sentences
    extra: tuple[str, ...] = ()  # files that the manifest does not name; they do no harm

    @property
    def is_whole(self) -> bool:
        """Whether all is as it was written."""
        return not self.problems


def checkpoints_in(folders: Sequence[str]) -> list[str]:
    """Each checkpoint's folder as it is; of a run's folder every checkpoint, the unfinished ones too.

    Raises:
        CheckpointError: a folder is neither.
    """
    found: list[str] = []
    for folder in folders:
        is_checkpoint = storage.is_file(storage.join(folder, MANIFEST_NAME))
        below = [] if is_checkpoint else step_folders(folder)
        found += below or [folder if is_unfinished(folder) else newest_checkpoint(folder)]
    return list(dict.fromkeys(found))


def is_unfinished(folder: str) -> bool:
    """Whether a folder is one of a checkpoint that has no manifest."""
    inside = storage.names(folder)
    return MANIFEST_NAME not in inside and STATE_NAME in inside


def total_bytes(folders: Sequence[str]) -> int:
    """Bytes that verifying will read."""
    total = 0
    for folder in folders:
        try:
            total += sum(proof["num_bytes"] for proof in read_manifest(folder).files.values())
        except CheckpointError:
            continue  # named by verify
    return total


def verify_checkpoint(folder: str, *, advance: Advance) -> Verdict:
    """Reads every file of a checkpoint.

    Args:
        folder: The checkpoint's.
        advance: Told of the bytes that were read.
    """
    try:
        manifest = read_manifest(folder)
    except CheckpointError as error:
        return Verdict(folder=folder, problems=(str(error),))
    problems = [problem for name in manifest.files if (problem := _problem(manifest, name, advance=advance))]
    return Verdict(
        folder=folder,
        num_files=len(manifest.files),
        num_bytes=sum(proof["num_bytes"] for proof in manifest.files.values()),
        problems=tuple(problems),
        extra=tuple(sorted(set(_files_below(folder)) - {*manifest.files, MANIFEST_NAME})),
    )


def refuse_damaged(folder: str, *, advance: Advance) -> None:
    """Raises unless the checkpoint is whole.

    Raises:
        CheckpointError: names the first file that is not as it was written.
    """
    verdict = verify_checkpoint(folder, advance=advance)
    if not verdict.is_whole:
        raise CheckpointError(f"{verdict.problems[0]}; take another checkpoint")


def _problem(manifest: CheckpointManifest, name: str, *, advance: Advance) -> str | None:
    path, written = storage.join(manifest.folder, name), manifest.files[name]
    if not storage.is_file(path):
        advance(written["num_bytes"])
        return f"{path} is missing"
    digest, num_bytes = hashlib.sha256(), 0
    try:
        with storage.open_stream(path) as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                num_bytes += len(block)
                advance(len(block))
    except OSError as error:
        return f"{path} cannot be read ({error.strerror or error})"
    if num_bytes != written["num_bytes"]:
        return f"{path} is damaged: {num_bytes:,} bytes, {written['num_bytes']:,} were written"
    return None if digest.hexdigest() == written["sha256"] else f"{path} is damaged: its bytes are not those written"


def _files_below(folder: str) -> Iterator[str]:
    for name in storage.names(folder):
        path = storage.join(folder, name)
        if storage.is_file(path):
            yield name
        else:
            yield from (storage.join(name, inner) for inner in storage.names(path))
