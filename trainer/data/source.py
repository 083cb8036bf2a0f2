"""Row sources: prepared folders and the synthetic stream, read by row number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from configs.errors import ConfigError, DataError
from configs.schema import Data, Synthetic
from trainer import storage
from trainer.data.batch import Rows
from trainer.data.criteo import DENSE_NAMES, SPARSE_NAMES
from trainer.data.manifest import DataManifest, FeatureSpec
from trainer.data.teacher import Teacher

# The prepared format's; other types would be cast on reading, and an id cut to 32 bits is another id.
_DTYPES: Mapping[str, type[np.generic]] = {"dense": np.float32, "sparse": np.int32, "labels": np.int32}


@dataclass(frozen=True, kw_only=True)
class SourceFeatures:
    """What the rows of a source hold; two sources that differ in it do not serve the same model."""

    dense_names: tuple[str, ...]
    table_rows: Mapping[str, int]  # id feature -> rows of its table, in column order
    dictionary: str  # names the mapping from raw values to ids


@dataclass(frozen=True, kw_only=True)
class SourcePart:
    """A named run of rows."""

    name: str
    num_rows: int
    files: Mapping[str, str]  # role (dense, sparse, labels) -> where it lies, for messages


class RowSource(Protocol):
    """Rows by number: the parts' rows one after the other, from 0."""

    @property
    def features(self) -> SourceFeatures:
        """What the rows hold."""
        ...

    @property
    def parts(self) -> tuple[SourcePart, ...]:
        """The runs of rows, in order."""
        ...

    @property
    def num_rows(self) -> int:
        """Rows of all parts."""
        ...

    def read(self, rows: NDArray[np.int64]) -> Rows:
        """The rows of these numbers, in this order."""
        ...


class PreparedSource:
    """Parts of a prepared folder, mapped into memory.

    Args:
        root: The folder.
        parts: Names of its parts.

    Raises:
        DataError: a part or file is missing, or a file is not what the manifest says.
    """

    def __init__(self, *, root: str, parts: Sequence[str]) -> None:
        manifest = DataManifest.read(root)
        id_features, dense_features = manifest.id_features, manifest.dense_features
        self.features = SourceFeatures(
            dense_names=tuple(feature.name for feature in dense_features),
            table_rows={feature.name: feature.rows or 0 for feature in id_features},
            dictionary=manifest.dictionary_sha256,
        )
        for feature in manifest.features:
            _refuse_not_yet(feature, root=root)
        self._id_columns = [feature.column for feature in id_features]
        self._dense_columns = [feature.column for feature in dense_features]
        chosen = [manifest.part(name) for name in parts]
        self.parts = tuple(
            SourcePart(
                name=part.name,
                num_rows=part.num_rows,
                files={role: storage.join(root, part.files[role].path) for role in _DTYPES},
            )
            for part in chosen
        )
        columns = {"dense": self._dense_columns, "sparse": self._id_columns, "labels": [0]}
        widths = {role: max(of_role, default=-1) + 1 for role, of_role in columns.items()}
        self._arrays = [
            {
                role: _mapped(path, num_rows=part.num_rows, num_columns=widths[role], dtype=_DTYPES[role])
                for role, path in part.files.items()
            }
            for part in self.parts
        ]
        self._ends = np.cumsum([part.num_rows for part in chosen])

    @property
    def num_rows(self) -> int:
        """Rows of all parts."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, rows: NDArray[np.int64]) -> Rows:
        """The rows of these numbers, in this order.

        Raises:
            DataError: an id is outside its table, which the lookup kernels would read as row 0.
        """
        part = np.searchsorted(self._ends, rows, side="right").astype(np.int32)
        starts = self._ends - [p.num_rows for p in self.parts]
        row = rows - starts[part]
        dense = np.empty((len(rows), len(self._dense_columns)), dtype=np.float32)
        ids = np.empty((len(rows), len(self._id_columns)), dtype=np.int32)
        labels = np.empty(len(rows), dtype=np.float32)
        for index in np.unique(part):
            where = part == index
            arrays, at = self._arrays[index], row[where]
            dense[where] = arrays["dense"][at][:, self._dense_columns]
            ids[where] = arrays["sparse"][at][:, self._id_columns]
            labels[where] = arrays["labels"][at][:, 0]
        found = Rows(dense=dense, ids=ids, labels=labels, part=part, row=row)
        check_rows(found, source=self)
        return found


def _refuse_not_yet(feature: FeatureSpec, *, root: str) -> None:
    file_of_kind = {"dense": "dense", "id": "sparse"}.get(feature.kind)
    if file_of_kind is None:
        raise DataError(f"{root}: feature {feature.name} is of kind {feature.kind!r}, which is not implemented yet")
    if feature.file != file_of_kind:
        raise DataError(
            f"{root}: feature {feature.name} lies in file {feature.file!r}; {feature.kind} features are read from"
            f" {file_of_kind!r} alone so far"
        )


def _mapped(path: str, *, num_rows: int, num_columns: int, dtype: type[np.generic]) -> NDArray:
    if not storage.is_file(path):
        raise DataError(f"{path}: the manifest names this file, but it is not there; prepare the folder again")
    try:
        array = np.load(storage.local_path(path), mmap_mode="r" if num_rows else None)
        if not isinstance(array, np.ndarray):
            raise ValueError("an archive of several arrays")
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: not a whole npy file ({error}); prepare the folder again") from error
    if array.dtype != dtype or array.ndim != 2 or array.shape[1] < num_columns:
        raise DataError(
            f"{path}: holds {array.dtype} {list(array.shape)}, not {np.dtype(dtype)} of {num_columns} columns;"
            " prepare the folder again"
        )
    if len(array) != num_rows:
        raise DataError(f"{path}: {len(array)} rows, but the manifest says {num_rows}; prepare the folder again")
    return array


class SyntheticSource:
    """A run of rows of the planted teacher, made on the fly.

    Args:
        teacher: Makes row i from (seed, i) alone.
        name: The part's name.
        first_row: Where the run begins in the teacher's endless stream.
        num_rows: Its length.
    """

    def __init__(self, *, teacher: Teacher, name: str, first_row: int, num_rows: int) -> None:
        self.teacher = teacher
        self.features = SourceFeatures(
            dense_names=DENSE_NAMES,
            table_rows=dict(zip(SPARSE_NAMES, teacher.table_rows, strict=True)),
            dictionary=f"synthetic seed {teacher.seed}, tables up to {teacher.max_table_rows} rows",
        )
        self.parts = (SourcePart(name=name, num_rows=num_rows, files=dict.fromkeys(_DTYPES, "the synthetic stream")),)
        self._first_row = first_row

    @property
    def num_rows(self) -> int:
        """Rows of the run."""
        return self.parts[0].num_rows

    def teacher_rows(self) -> NDArray[np.int64]:
        """The run's rows, as numbered by the teacher."""
        return np.arange(self._first_row, self._first_row + self.num_rows, dtype=np.int64)

    def read(self, rows: NDArray[np.int64]) -> Rows:
        """The rows of these numbers, in this order."""
        made = self.teacher.rows(rows + self._first_row)
        return Rows(
            dense=made.dense,
            ids=made.ids,
            labels=made.label.astype(np.float32),
            part=np.zeros(len(rows), dtype=np.int32),
            row=rows,
        )


def check_rows(rows: Rows, *, source: RowSource) -> None:
    """Refuses ids outside their tables and values that are not finite, by feature, value, row and file.

    Raises:
        DataError: names the first bad value.
    """
    limits = np.fromiter(source.features.table_rows.values(), dtype=np.int64)
    bad = (rows.ids < 0) | (rows.ids >= limits)
    if bad.any():
        at, column = np.argwhere(bad)[0]
        feature = list(source.features.table_rows)[column]
        where = source.parts[rows.part[at]]
        raise DataError(
            f"{where.files['sparse']}: feature {feature}, row {rows.row[at]}: id {rows.ids[at, column]} is outside its"
            f" table of {limits[column]} rows (ids run from 0 to {limits[column] - 1}); prepare the folder again"
        )
    if not np.isfinite(rows.dense).all():
        at, column = np.argwhere(~np.isfinite(rows.dense))[0]
        where = source.parts[rows.part[at]]
        raise DataError(
            f"{where.files['dense']}: row {rows.row[at]}: dense feature {source.features.dense_names[column]} is"
            f" {rows.dense[at, column]}; prepare the folder again"
        )
    if not np.isin(rows.labels, (0.0, 1.0)).all():
        at = int(np.argwhere(~np.isin(rows.labels, (0.0, 1.0)))[0][0])
        where = source.parts[rows.part[at]]
        raise DataError(
            f"{where.files['labels']}: row {rows.row[at]}: label {rows.labels[at]:g} is not 0 or 1;"
            " prepare the folder again"
        )


@dataclass(frozen=True, kw_only=True)
class TrainingSources:
    """What a training run reads."""

    train: RowSource
    valid: RowSource | None


def open_sources(data: Data) -> TrainingSources:
    """The sources that `[data]` names.

    Raises:
        ConfigError: the parts are named without a folder, or a folder without parts.
        DataError: something is missing or damaged, or there is no row to train on.
    """
    if data.root and not data.train:
        raise ConfigError("data.train: empty; name at least one part of data.root to train on")
    if not data.root and (data.train or data.valid):
        raise ConfigError("data.root: empty, but data.train or data.valid name parts; give the prepared folder")
    if data.root:
        train: RowSource = PreparedSource(root=data.root, parts=data.train)
        valid: RowSource | None = PreparedSource(root=data.root, parts=data.valid) if data.valid else None
    else:
        train, valid = _stream(data.synthetic, held_out=False), _stream(data.synthetic, held_out=True)
    for what, source in (("train", train), ("valid", valid)):
        if source is not None and source.num_rows == 0:
            raise DataError(f"data.{what}: its parts hold no rows; name parts that do")
    return TrainingSources(train=train, valid=valid)


def open_scoring_source(data: Data, *, parts: Sequence[str]) -> RowSource:
    """The rows to score: the named parts of data.root, or all; without a root, the stream's held-out rows.

    Raises:
        DataError: something is missing or damaged, or there is no row.
    """
    if not data.root:
        if parts:
            raise ConfigError(f"score.parts: the synthetic stream has no part {parts[0]!r}; give data.root or no parts")
        return _stream(data.synthetic, held_out=True)
    chosen = parts or [part.name for part in DataManifest.read(data.root).parts]
    source = PreparedSource(root=data.root, parts=chosen)
    if source.num_rows == 0:
        raise DataError(f"{data.root}: its parts {', '.join(chosen)} hold no rows; name parts in score.parts that do")
    return source


def _stream(stream: Synthetic, *, held_out: bool) -> SyntheticSource:
    return SyntheticSource(
        teacher=Teacher(seed=stream.seed, max_table_rows=stream.max_table_rows),
        name="held_out" if held_out else "stream",
        first_row=stream.train_rows if held_out else 0,
        num_rows=stream.valid_rows if held_out else stream.train_rows,
    )
