"""A prepared folder while it is made: claimed, filled, finished by its manifest.

A folder being filled holds the folder `unfinished` with the plan of its preparation and all scratch files. It tells an
interrupted preparation, which goes on, from npy files that somebody else put there, which are never touched.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from configs.errors import DataError
from trainer import storage
from trainer.data.manifest import MANIFEST_NAME, DataManifest
from trainer.data.preparing.pieces import WRITTEN, PieceName

DICTIONARY_FOLDER = "dictionary"
QUARANTINE_NAME = "quarantine.jsonl"
UNFINISHED_FOLDER = "unfinished"
PLAN_NAME = "plan.json"
_OWN_NAME = re.compile(
    rf"{re.escape(MANIFEST_NAME)}(\.tmp)?|{re.escape(QUARANTINE_NAME)}|{DICTIONARY_FOLDER}|{UNFINISHED_FOLDER}"
    r"|checked\.json(\.tmp)?|[A-Za-z0-9_]+\.npy(\.tmp)?"
)


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """An input file as it was when it was prepared."""

    path: str
    num_bytes: int
    modified_ns: int

    @staticmethod
    def look(path: str) -> InputFile:
        """Looks at a file without reading it.

        Raises:
            DataError: there is no such file.
        """
        if not storage.is_file(path):
            raise DataError(f"{path}: {'is not a regular file' if storage.exists(path) else 'no such file'}")
        return InputFile(path=path, num_bytes=storage.num_bytes(path), modified_ns=storage.modified_ns(path))

    def as_dict(self) -> dict[str, Any]:
        """As a manifest keeps it."""
        return dataclasses.asdict(self)

    def is_same_as(self, kept: Mapping[str, Any]) -> bool:
        """Whether a manifest's entry is of this file: by name, size and time of change."""
        name = os.path.basename(self.path)
        return (name, self.num_bytes, self.modified_ns) == (
            os.path.basename(kept["path"]),
            kept["num_bytes"],
            kept["modified_ns"],
        )


def difference(key: str, kept: Any, wanted: Any) -> tuple[str, Any, Any]:
    """The innermost key in which two settings differ, with both of its values."""
    if isinstance(kept, Mapping) and isinstance(wanted, Mapping):
        for inner in sorted(kept.keys() | wanted.keys()):
            if kept.get(inner) != wanted.get(inner):
                return difference(f"{key}.{inner}", kept.get(inner), wanted.get(inner))
    return key, kept, wanted


@dataclass(kw_only=True)
class PreparedFolder:
    """The folder that a preparation writes.

    Args:
        root: The folder.
        settings: All that decides what comes out, as the manifest keeps it.
        inputs: The files, in order.
    """

    root: str
    settings: Mapping[str, Any]
    inputs: Sequence[InputFile]
    _lock: IO[Any] | None = field(default=None, init=False)

    @property
    def scratch(self) -> str:
        """Where scratch files lie."""
        return storage.join(self.root, UNFINISHED_FOLDER)

    def finished(self) -> DataManifest | None:
        """The manifest, if the folder is finished and was made from these inputs so; None if it is not finished.

        Raises:
            DataError: it was made from other inputs or with other settings, or a file of it is gone or cut.
        """
        if not storage.is_file(storage.join(self.root, MANIFEST_NAME)):
            return None
        manifest = DataManifest.read(self.root)
        remedy = "give --overwrite to replace them, or another output folder"
        self._refuse_other_settings(manifest.provenance, "holds data prepared with", remedy)
        kept_inputs = manifest.provenance.get("inputs", [])
        same = len(kept_inputs) == len(self.inputs) and all(
            entry.is_same_as(kept) for entry, kept in zip(self.inputs, kept_inputs, strict=True)
        )
        if not same:
            raise DataError(f"{self.root}: holds data prepared from other input files; {remedy}")
        self._refuse_incomplete(manifest)
        return manifest

    def _refuse_other_settings(self, kept: Mapping[str, Any], what: str, remedy: str) -> None:
        for key, value in self.settings.items():
            if kept.get(key) != value:
                named, before, now = difference(key, kept.get(key), value)
                raise DataError(f"{self.root}: {what} {named} {before!r}, not {now!r}; {remedy}")

    def _refuse_incomplete(self, manifest: DataManifest) -> None:
        for part in manifest.parts:
            for file in part.files.values():
                path = storage.join(self.root, file.path)
                if not storage.is_file(path) or file.num_bytes != storage.num_bytes(path):
                    raise DataError(
                        f"{path}: is gone or of another size than prepared; give --overwrite to prepare it again"
                    )

    def claim(self, *, overwrite: bool, shard: tuple[int, int]) -> None:
        """Makes the folder ours: new, or where an interrupted preparation of the same plan left it.

        Raises:
            DataError: it is a file, holds files that no preparation of ours left there, is unfinished with other
                settings, or another process prepares there right now.
        """
        if storage.is_file(self.root):
            raise DataError(f"{self.root}: is a file; choose a folder for the output")
        names = storage.names(self.root)
        foreign = [name for name in names if not _OWN_NAME.fullmatch(name)]
        if foreign:
            raise DataError(f"{self.root}: holds {foreign[0]!r}, which is not prepared data; choose an empty folder")
        if names and MANIFEST_NAME not in names and UNFINISHED_FOLDER not in names:
            raise DataError(
                f"{self.root}: holds {names[0]!r} with neither a manifest nor the mark of an interrupted preparation;"
                " choose an empty folder"
            )
        if overwrite and shard[1] > 1:
            raise DataError(f"{self.root}: --overwrite is not for one of several processes; delete the folder first")
        if MANIFEST_NAME in names and DataManifest.read(self.root).provenance.get("adopted"):
            raise DataError(
                f"{self.root}: holds adopted files, which no preparation of ours has made; choose another output folder"
            )
        storage.make_folder(self.scratch)
        self._take_lock(shard)
        if MANIFEST_NAME in names or (overwrite and names):
            self._empty()
        plan_path = storage.join(self.scratch, PLAN_NAME)
        with storage.open_file(storage.join(self.scratch, "plan.lock"), "w") as alone:
            fcntl.flock(alone.fileno(), fcntl.LOCK_EX)  # the processes of one preparation may start together
            if storage.is_file(plan_path):
                self._continue(storage.read_json(plan_path))
            storage.write_json(plan_path, {**self.settings, "inputs": [entry.as_dict() for entry in self.inputs]})

    def _take_lock(self, shard: tuple[int, int]) -> None:
        """Keeps others away that would do the same share, or that share the work otherwise."""
        index, count = shard
        self._lock = storage.open_file(storage.join(self.scratch, f"lock_{index}_of_{count}"), "w")
        try:
            fcntl.flock(self._lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            for name in storage.names(self.scratch):
                if name.startswith("lock_") and not name.endswith(f"_of_{count}"):
                    with storage.open_file(storage.join(self.scratch, name)) as other:
                        fcntl.flock(other.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(f"{self.root}: another process prepares there right now; wait for it or end it") from error

    def _empty(self) -> None:
        # The manifest goes first: from here on the folder is unfinished.
        for name in sorted(storage.names(self.root), key=lambda name: name != MANIFEST_NAME):
            path = storage.join(self.root, name)
            if name == DICTIONARY_FOLDER:
                storage.remove_tree(path)
            elif name != UNFINISHED_FOLDER:
                storage.remove_file(path)
        self._remove_scratch(lambda name: not name.startswith(("lock_", "plan.lock")))

    def _continue(self, plan: Mapping[str, Any]) -> None:
        """Keeps what was done if the plan is the same; what came from files that changed since is done again."""
        self._refuse_other_settings(
            plan,
            "holds an interrupted preparation with",
            "give the same settings to go on, --overwrite to begin anew, or another output folder",
        )
        kept = plan["inputs"]
        if [os.path.basename(entry["path"]) for entry in kept] != [os.path.basename(e.path) for e in self.inputs]:
            raise DataError(
                f"{self.root}: holds an interrupted preparation of other input files; give --overwrite to begin anew,"
                " or another output folder"
            )
        changed = [place for place, entry in enumerate(self.inputs) if not entry.is_same_as(kept[place])]
        if changed and any(name.endswith(WRITTEN) for name in storage.names(self.scratch)):
            # Rows that are in the parts are no longer in scratch.
            self._remove_scratch(lambda name: not name.startswith(("lock_", "plan.lock")))
        elif changed:
            gone = tuple(PieceName(file=place, piece=0).file_prefix for place in changed)
            self._remove_scratch(lambda name: name.startswith(gone) or not name.startswith(("f", "lock_", "plan.lock")))

    def _remove_scratch(self, wanted: Any) -> None:
        for name in storage.names(self.scratch):
            if wanted(name):
                storage.remove_file(storage.join(self.scratch, name))

    def finish(self, manifest: DataManifest) -> None:
        """Writes the manifest, and takes the scratch files away."""
        manifest.write(self.root)
        self.release()
        storage.remove_tree(self.scratch)

    def tidy(self) -> None:
        """Takes away the scratch files that a kill behind the manifest left."""
        if storage.exists(self.scratch):
            with contextlib.suppress(DataError):  # another process is about to
                self._take_lock((0, 1))
                self.release()
                storage.remove_tree(self.scratch)

    def release(self) -> None:
        """Lets others prepare here."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
