"""Adoption: a manifest for npy and npz folders that TorchRec's and MLPerf's tools have written, which stay as they are.

Each part has PART_dense.npy float32 [N, D], PART_labels.npy int32 [N, 1] (all -1: it has no labels), and one of

    PART_sparse*.npy   int32 [N, F]   one id a feature; int64, as newer tools write, is copied into int32 beside it
    PART_sparse*.npz   "0" .. "F-1", each int32 [N, bag size], uncompressed: MLPerf's materialised bags
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from trainer import storage
from trainer.data.criteo import DENSE_NAMES, SPARSE_NAMES
from trainer.data.manifest import (
    DENSE_FILE,
    LABEL_FILE,
    MANIFEST_NAME,
    SPARSE_FILE,
    DataManifest,
    FeatureSpec,
    Part,
    PartFile,
)
from trainer.data.preparing.part_writing import write_npy_header
from trainer.data.reading.array_files import ArrayFile, ArrayShape, open_array

_NAME = re.compile(r"(?P<part>[A-Za-z0-9_]+?)_(?P<role>dense|labels|sparse)[A-Za-z0-9_]*\.(npy|npz)")
_COPY_SUFFIX = "_int32.npy"
_BLOCK_ROWS = 1 << 16
_NO_LABEL = -1

Tell = Callable[[int], None]  # rows looked at since the last call


@dataclass(frozen=True, kw_only=True)
class _FoundPart:
    """A part's files by role, and the bag size of each feature (1: no bag)."""

    name: str
    paths: Mapping[str, str]
    bag_sizes: tuple[int, ...]
    packed: bool  # ids lie in an npz archive, one member a feature


def num_rows_to_look_at(root: str) -> int:
    """Rows that `adopt` will tell of.

    Raises:
        DataError: as `adopt`.
    """
    parts = [_look(root, name, files) for name, files in _find(root).items()]
    rows = [
        len(open_array(storage.join(root, part.paths[LABEL_FILE]), member=None, shape=_LABELS).array) for part in parts
    ]
    return sum(number * (len(part.bag_sizes) if part.packed else 1) for number, part in zip(rows, parts, strict=True))


def adopt(
    root: str,
    *,
    table_rows: Sequence[int] | None = None,
    last_in_halves: bool = False,
    tell: Tell = lambda rows: None,
) -> DataManifest:
    """Writes manifest.json into a folder of arrays.

    Args:
        root: The folder.
        last_in_halves: Whether the last part becomes PART_val, its first half, rounded up, and PART_test.
        table_rows: Rows of each feature's table; None: the largest id of all parts and one.
        tell: Called as rows are looked at; an archive's once for each of its features.

    Raises:
        DataError: there is a manifest already, a file is missing or not of its shape, parts differ in their features,
            or an id is outside its table.
    """
    if storage.is_file(storage.join(root, MANIFEST_NAME)):
        raise DataError(f"{root}: has a {MANIFEST_NAME} already; delete it to adopt the folder anew")
    parts = [_look(root, name, files) for name, files in _find(root).items()]
    bag_sizes = parts[0].bag_sizes
    for part in parts:
        if part.bag_sizes != bag_sizes:
            raise DataError(
                f"{root}: part {part.name} has bags of {list(part.bag_sizes)}, {parts[0].name} of {list(bag_sizes)};"
                " adopt them in folders of their own"
            )
    if table_rows is not None and len(table_rows) != len(bag_sizes):
        raise DataError(f"table_rows: {len(table_rows)} numbers for {len(bag_sizes)} features; give one for each")
    largest = np.zeros(len(bag_sizes), np.int64)
    described = []
    for part in parts:
        largest = np.maximum(largest, _largest_ids(root, part, table_rows, tell))
        described.append(_describe(root, part))
    if last_in_halves:
        described[-1:] = _halves(root, described[-1])
    rows = list(table_rows) if table_rows is not None else (largest + 1).tolist()
    num_dense = open_array(storage.join(root, parts[0].paths[DENSE_FILE]), member=None, shape=_DENSE).array.shape[1]
    features = _features(num_dense, rows, bag_sizes, packed=parts[0].packed)
    known_by = json.dumps([rows, [file.sha256 for part in described for file in part.files.values()]])
    manifest = DataManifest(
        features=features,
        parts=tuple(described),
        # Who gave the ids is not known: this folder's agree with no other's.
        dictionary_sha256=hashlib.sha256(known_by.encode()).hexdigest(),
        provenance={"adopted": True},
    )
    manifest.write(root)
    return manifest


_DENSE = ArrayShape(dtype=np.float32, num_columns=1)
_LABELS = ArrayShape(dtype=np.int32, num_columns=1, more_columns="refused")
_IDS = ArrayShape(dtype=np.int32, num_columns=1)


def _id_names(number: int) -> tuple[str, ...]:
    """Criteo's names where there are as many features."""
    return SPARSE_NAMES if number == len(SPARSE_NAMES) else tuple(f"C{place}" for place in range(1, number + 1))


def _features(
    num_dense: int, rows: Sequence[int], bag_sizes: Sequence[int], *, packed: bool
) -> tuple[FeatureSpec, ...]:
    dense_names = DENSE_NAMES if num_dense == len(DENSE_NAMES) else [f"I{place}" for place in range(1, num_dense + 1)]
    found = [
        FeatureSpec(name=name, kind="dense", file=DENSE_FILE, column=column) for column, name in enumerate(dense_names)
    ]
    for column, (name, size, limit) in enumerate(zip(_id_names(len(rows)), bag_sizes, rows, strict=True)):
        if packed:
            found.append(FeatureSpec(name=name, kind="bag", file=name, column=0, rows=limit, bag_size=size))
        else:
            found.append(FeatureSpec(name=name, kind="id", file=SPARSE_FILE, column=column, rows=limit))
    return tuple(found)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in re.split(r"(\d+)", name)]


def _find(root: str) -> dict[str, dict[str, str]]:
    """Part -> role -> file name, parts sorted by the numbers in their names."""
    found: dict[str, dict[str, str]] = {}
    for name in storage.names(root):
        match = _NAME.fullmatch(name)
        if match is None or name.endswith(_COPY_SUFFIX):
            continue
        roles = found.setdefault(match["part"], {})
        if match["role"] in roles:
            raise DataError(
                f"{root}: {roles[match['role']]} and {name} are both the {match['role']} file of part {match['part']};"
                " keep one of them there"
            )
        roles[match["role"]] = name
    if not found:
        raise DataError(f"{root}: no PART_dense.npy, PART_sparse*.npy or .npz and PART_labels.npy; name such a folder")
    for part, roles in found.items():
        for role in (DENSE_FILE, SPARSE_FILE, LABEL_FILE):
            if role not in roles:
                raise DataError(f"{root}: part {part} has no {role} file; fetch {part}_{role}.npy, or remove the part")
    return {part: found[part] for part in sorted(found, key=_natural)}


def _look(root: str, part: str, files: Mapping[str, str]) -> _FoundPart:
    path = storage.join(root, files[SPARSE_FILE])
    if not path.endswith(".npz"):
        files = {**files, SPARSE_FILE: _as_int32(root, files[SPARSE_FILE])}
        width = open_array(storage.join(root, files[SPARSE_FILE]), member=None, shape=_IDS).array.shape[1]
        return _FoundPart(name=part, paths=files, bag_sizes=(1,) * width, packed=False)
    try:
        with zipfile.ZipFile(storage.local_path(path)) as archive:
            members = {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a whole npz archive ({error}); fetch it again") from error
    if members != {str(number) for number in range(len(members))}:
        raise DataError(f"{path}: its members are not '0' to '{len(members) - 1}'; this is not MLPerf's layout")
    arrays = (open_array(path, member=str(number), shape=_IDS).array for number in range(len(members)))
    return _FoundPart(name=part, paths=files, bag_sizes=tuple(array.shape[1] for array in arrays), packed=True)


def _as_int32(root: str, name: str) -> str:
    """The name of the file with ids of 32 bits: the file itself, or a copy of one with 64."""
    path = storage.join(root, name)
    try:
        ids = np.load(path, mmap_mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: not a whole npy file ({error}); fetch it again") from error
    if ids.dtype != np.int64:
        return name
    copy = name.removesuffix(".npy") + _COPY_SUFFIX
    temporary = storage.join(root, copy + ".tmp")
    with storage.naming(temporary), storage.open_file(temporary, "wb") as file:
        write_npy_header(file, shape=ids.shape, dtype="<i4")
        _write_narrow(ids, file, path=path)
    storage.rename(temporary, storage.join(root, copy))
    return copy


def _write_narrow(ids: NDArray[np.int64], file: IO[bytes], *, path: str) -> None:
    for start in range(0, len(ids), _BLOCK_ROWS):
        block = ids[start : start + _BLOCK_ROWS]
        if block.size and (block.min() < 0 or block.max() >= 2**31):
            row, column = np.argwhere((block < 0) | (block >= 2**31))[0]
            raise DataError(
                f"{path}: row {start + row}, column {column}: id {block[row, column]} is not one of 31 bits; the file"
                " holds raw values, map them to ids first"
            )
        file.write(block.astype(np.int32).data)


def _largest_ids(root: str, part: _FoundPart, table_rows: Sequence[int] | None, tell: Tell) -> NDArray[np.int64]:
    """The largest id of each feature.

    Raises:
        DataError: an id is outside its table.
    """
    path = storage.join(root, part.paths[SPARSE_FILE])
    if part.packed:
        low, high = np.empty(len(part.bag_sizes), np.int64), np.empty(len(part.bag_sizes), np.int64)
        for number in range(len(part.bag_sizes)):
            least_ones, most_ones = _column_range(open_array(path, member=str(number), shape=_IDS), tell=tell)
            low[number], high[number] = least_ones.min(), most_ones.max()
    else:
        low, high = _column_range(open_array(path, member=None, shape=_IDS), tell=tell)
    names = _id_names(len(low))
    for column, (least, most) in enumerate(zip(low, high, strict=True)):
        limit = 2**31 if table_rows is None else table_rows[column]
        if least < 0 or most >= limit:
            raise DataError(
                f"{path}: feature {names[column]}: ids run from {least} to {most}, outside its table of {limit} rows;"
                " give the sizes the data were made for"
            )
    return np.asarray(high, np.int64)


def _column_range(file: ArrayFile, *, tell: Tell) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The least and the largest number of each column."""
    low = np.zeros(file.array.shape[1], np.int64)
    high = np.zeros(file.array.shape[1], np.int64)
    for start in range(0, len(file.array), _BLOCK_ROWS):
        block = file.array[start : start + _BLOCK_ROWS]
        low = np.minimum(low, block.min(axis=0))
        high = np.maximum(high, block.max(axis=0))
        tell(len(block))
    return low, high


def _describe(root: str, part: _FoundPart) -> Part:
    labels = open_array(storage.join(root, part.paths[LABEL_FILE]), member=None, shape=_LABELS).array
    unlabelled = bool(len(labels)) and bool((labels == _NO_LABEL).all())
    roles = [DENSE_FILE, SPARSE_FILE] + [LABEL_FILE] * (not unlabelled)
    sealed = {}
    for role in roles:
        path = storage.join(root, part.paths[role])
        sealed[role] = PartFile(path=part.paths[role], num_bytes=storage.num_bytes(path), sha256=storage.sha256(path))
    files = {role: file for role, file in sealed.items() if role != SPARSE_FILE or not part.packed}
    if part.packed:
        archive = sealed[SPARSE_FILE]
        files |= {
            name: PartFile(path=archive.path, num_bytes=archive.num_bytes, sha256=archive.sha256, member=str(number))
            for number, name in enumerate(_id_names(len(part.bag_sizes)))
        }
    label_sum = None if unlabelled else int(labels.sum(dtype=np.int64))
    return Part(name=part.name, num_rows=len(labels), label_sum=label_sum, files=files)


def _halves(root: str, part: Part) -> list[Part]:
    """Two parts on the same files."""
    num_first = -(-part.num_rows // 2)
    labels = None
    if LABEL_FILE in part.files:
        labels = open_array(storage.join(root, part.files[LABEL_FILE].path), member=None, shape=_LABELS).array
    halves = []
    for name, start, stop in (("val", 0, num_first), ("test", num_first, part.num_rows)):
        files = {
            role: dataclasses.replace(file, first_row=start, file_rows=part.num_rows)
            for role, file in part.files.items()
        }
        label_sum = None if labels is None else int(labels[start:stop].sum(dtype=np.int64))
        halves.append(Part(name=f"{part.name}_{name}", num_rows=stop - start, label_sum=label_sum, files=files))
    return halves
