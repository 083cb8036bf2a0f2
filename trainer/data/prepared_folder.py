"""A prepared folder while it is made: claimed, filled part by part, finished by its manifest.

A folder being filled holds the mark `unfinished.json`. It tells an interrupted preparation, which is simply done again,
from npy files that somebody else put there, which are never touched.

Legend: N rows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from configs.errors import DataError
from trainer import storage
from trainer.data.criteo import DENSE_FILE, NUM_DENSE, NUM_SPARSE, SPARSE_FILE
from trainer.data.dictionary import Dictionary
from trainer.data.manifest import LABEL_FILE, MANIFEST_NAME, DataManifest, Part, PartFile

DICTIONARY_FOLDER = "dictionary"
UNFINISHED_NAME = "unfinished.json"
_OWN_NAME = re.compile(
    rf"{re.escape(MANIFEST_NAME)}(\.tmp)?|{re.escape(UNFINISHED_NAME)}(\.tmp)?|{DICTIONARY_FOLDER}"
    rf"|[A-Za-z0-9_]+_({DENSE_FILE}|{SPARSE_FILE}|{LABEL_FILE})\.npy"
)


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """A log file as it was when it was prepared."""

    path: str
    num_bytes: int
    modified_ns: int
    num_rows: int = 0
    sha256: str = ""

    @staticmethod
    def look(path: str) -> InputFile:
        """Looks at a file without reading it.

        Raises:
            DataError: there is no such file.
        """
        if not storage.is_file(path):
            raise DataError(f"{path}: {'is a folder, not a log file' if storage.exists(path) else 'no such file'}")
        modified_ns = os.stat(storage.local_path(path)).st_mtime_ns
        return InputFile(path=path, num_bytes=storage.num_bytes(path), modified_ns=modified_ns)

    def counted(self, *, num_rows: int, sha256: str) -> InputFile:
        """The same file after it was read once."""
        return dataclasses.replace(self, num_rows=num_rows, sha256=sha256)

    def as_dict(self) -> dict[str, Any]:
        """As a manifest keeps it."""
        return dataclasses.asdict(self)

    def is_same_as(self, kept: Mapping[str, Any]) -> bool:
        """Whether a manifest's entry is of the same bytes; they are hashed only where path or time differ."""
        if self.num_bytes != kept["num_bytes"]:
            return False
        if (self.path, self.modified_ns) == (kept["path"], kept["modified_ns"]):
            return True
        return bool(storage.sha256(self.path) == kept["sha256"])


@dataclass(frozen=True, kw_only=True)
class PreparedRows:
    """Rows as they are written."""

    dense: np.ndarray  # float32 [N, 13]
    ids: np.ndarray  # int32 [N, 26]
    labels: np.ndarray  # int32 [N]

    def __len__(self) -> int:
        return len(self.labels)

    def cut(self, num_rows: int) -> tuple[PreparedRows, PreparedRows]:
        """The first rows, `num_rows` at most, and the rest."""
        return self._pick(slice(num_rows)), self._pick(slice(num_rows, None))

    def _pick(self, rows: slice) -> PreparedRows:
        return PreparedRows(dense=self.dense[rows], ids=self.ids[rows], labels=self.labels[rows])


class _NpyWriter:
    """One npy file of known length, appended to and hashed on the way."""

    def __init__(self, root: str, name: str, *, shape: tuple[int, int], dtype: type[np.generic]) -> None:
        self._name = name
        self._dtype = dtype
        self._digest = hashlib.sha256()
        self._num_bytes = 0
        self._file = storage.open_file(storage.join(root, name), "wb")
        descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self, header)

    def append(self, rows: np.ndarray) -> None:
        self.write(np.ascontiguousarray(rows, self._dtype).tobytes())

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._num_bytes += len(data)

    def close(self) -> None:
        self._file.close()

    def part_file(self) -> PartFile:
        return PartFile(path=self._name, num_bytes=self._num_bytes, sha256=self._digest.hexdigest())


class PartWriter:
    """Writes one part's npy triple; a context manager that closes the files."""

    def __init__(self, root: str, name: str, *, num_rows: int) -> None:
        self.num_rows_left = num_rows
        self._name = name
        self._num_rows = num_rows
        self._label_sum = 0

        def writer(role: str, width: int, dtype: type[np.generic]) -> _NpyWriter:
            return _NpyWriter(root, f"{name}_{role}.npy", shape=(num_rows, width), dtype=dtype)

        self._writers = {
            DENSE_FILE: writer(DENSE_FILE, NUM_DENSE, np.float32),
            SPARSE_FILE: writer(SPARSE_FILE, NUM_SPARSE, np.int32),
            LABEL_FILE: writer(LABEL_FILE, 1, np.int32),
        }

    def append(self, rows: PreparedRows) -> None:
        """Writes the next rows; never more than `num_rows_left`."""
        assert len(rows) <= self.num_rows_left, "more rows than the header says"
        self._writers[DENSE_FILE].append(rows.dense)
        self._writers[SPARSE_FILE].append(rows.ids)
        self._writers[LABEL_FILE].append(rows.labels)
        self._label_sum += int(rows.labels.sum())
        self.num_rows_left -= len(rows)

    def part(self) -> Part:
        """The written part, once it is whole and closed."""
        assert not self.num_rows_left, "fewer rows than the header says"
        files = {role: writer.part_file() for role, writer in self._writers.items()}
        return Part(name=self._name, num_rows=self._num_rows, label_sum=self._label_sum, files=files)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._writers.values():
            writer.close()


@dataclass(frozen=True)
class PreparedFolder:
    """The folder that a preparation writes."""

    root: str

    def same_as(self, provenance: Mapping[str, Any], inputs: Sequence[InputFile]) -> DataManifest | None:
        """The manifest, if the folder is finished and was made from these inputs so; None if it is not finished.

        Raises:
            DataError: it was made from other inputs or with other settings, or a file of it is gone or cut.
        """
        if not storage.is_file(storage.join(self.root, MANIFEST_NAME)):
            return None
        manifest = DataManifest.read(self.root)
        remedy = "give --overwrite to replace them, or another output folder"
        for key, value in provenance.items():
            kept = manifest.provenance.get(key)
            if kept != value:
                raise DataError(f"{self.root}: holds data prepared with {key} {kept!r}, not {value!r}; {remedy}")
        kept_inputs = manifest.provenance.get("inputs", [])
        same = len(kept_inputs) == len(inputs) and all(
            entry.is_same_as(kept) for entry, kept in zip(inputs, kept_inputs, strict=True)
        )
        if not same:
            raise DataError(f"{self.root}: holds data prepared from other input files or other bytes; {remedy}")
        self._refuse_incomplete(manifest)
        return manifest

    def _refuse_incomplete(self, manifest: DataManifest) -> None:
        sizes = {file.path: file.num_bytes for part in manifest.parts for file in part.files.values()}
        sizes |= {f"{DICTIONARY_FOLDER}/{feature.name}.parquet": -1 for feature in manifest.id_features}
        for name, num_bytes in sizes.items():
            path = storage.join(self.root, name)
            if not storage.is_file(path) or num_bytes not in (-1, storage.num_bytes(path)):
                raise DataError(
                    f"{path}: is gone or of another size than prepared; give --overwrite to prepare it again"
                )

    def claim(self, *, overwrite: bool) -> None:
        """Makes the folder ours and empty, and marks it unfinished.

        Raises:
            DataError: it is a file, or holds files that no preparation of ours left there.
        """
        if storage.is_file(self.root):
            raise DataError(f"{self.root}: is a file; choose a folder for the output")
        names = storage.names(self.root)
        foreign = [name for name in names if not _OWN_NAME.fullmatch(name)]
        if foreign:
            raise DataError(f"{self.root}: holds {foreign[0]!r}, which is not prepared data; choose an empty folder")
        finished = MANIFEST_NAME in names
        if names and not finished and UNFINISHED_NAME not in names:
            raise DataError(
                f"{self.root}: holds {names[0]!r} with neither a manifest nor the mark of an interrupted preparation;"
                " choose an empty folder"
            )
        assert overwrite or not finished, "a finished folder is compared first"
        storage.make_folder(self.root)
        note = {"note": "a preparation writes here or was interrupted; run it again, it begins anew"}
        storage.write_json(storage.join(self.root, UNFINISHED_NAME), note)
        # The manifest goes first: from here on the folder is unfinished.
        for name in sorted(storage.names(self.root), key=lambda name: name != MANIFEST_NAME):
            path = storage.join(self.root, name)
            if name == DICTIONARY_FOLDER:
                storage.remove_tree(path)
            elif name != UNFINISHED_NAME:
                storage.remove_file(path)

    def write_dictionaries(self, dictionaries: Mapping[str, Dictionary]) -> None:
        """Writes one Parquet file for each feature."""
        folder = storage.join(self.root, DICTIONARY_FOLDER)
        storage.make_folder(folder)
        for name, dictionary in dictionaries.items():
            dictionary.write(storage.join(folder, f"{name}.parquet"))

    def finish(self, manifest: DataManifest) -> None:
        """Writes the manifest, last of all."""
        manifest.write(self.root)
        storage.remove_file(storage.join(self.root, UNFINISHED_NAME))
