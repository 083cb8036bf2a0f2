"""FeatureLayout: which files the features of a prepared folder lie in, and how ids are put together to bags.

Legend: n rows, k features side by side in one file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from trainer.data.manifest import (
    DENSE_FILE,
    LABEL_FILE,
    NUMERIC_IDS_FILE,
    SPARSE_FILE,
    WEIGHT_FILE,
    DataManifest,
    FeatureSpec,
    kept_file,
)
from trainer.data.reading.array_files import ArrayShape
from trainer.data.reading.bags import BagExpander

_COLUMN_FILES: Mapping[str, tuple[str, ...]] = {
    # kind -> files that hold it as columns
    "dense": (DENSE_FILE,),
    "id": (SPARSE_FILE, NUMERIC_IDS_FILE),
    "weight": (WEIGHT_FILE,),
}
_ROLES = (DENSE_FILE, SPARSE_FILE, NUMERIC_IDS_FILE, WEIGHT_FILE, LABEL_FILE)
_KEPT_DTYPE = re.compile(r"int64|S[1-9][0-9]*")
_TRANSPOSED_ROWS = 4_096  # at a time: they stay in the cache


def values_role(name: str) -> str:
    """The file of a jagged bag's ids."""
    return f"{name}_values"


def offsets_role(name: str) -> str:
    """The file that says where each row's ids begin."""
    return f"{name}_offsets"


@dataclass(frozen=True)
class IdColumns:
    """Features with one id a row, side by side in a file."""

    role: str
    columns: tuple[int, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Ids of a row, by feature."""
        return (1,) * len(self.columns)

    def put(self, block: NDArray[np.int32], out: NDArray[np.int32]) -> None:
        """Writes the columns of a block [n, ...] one after the other into out [k * n]."""
        by_feature = out.reshape(len(self.columns), len(block))
        first = self.columns[0]
        if self.columns == tuple(range(first, first + len(self.columns))):
            chosen = block[:, first : first + len(self.columns)]
        else:
            chosen = np.take(block, self.columns, axis=1)
        for start in range(0, len(block), _TRANSPOSED_ROWS):
            stop = start + _TRANSPOSED_ROWS
            np.copyto(by_feature[:, start:stop], chosen[start:stop].T)


@dataclass(frozen=True)
class ExpandedBag:
    """A feature whose bags follow from their first id."""

    role: str
    column: int
    sizes: tuple[int, ...]
    expander: BagExpander

    def put(self, block: NDArray[np.int32], out: NDArray[np.int32]) -> None:
        """Writes the bags of a block [n, ...] into out [n * size]."""
        self.expander.expand(block[:, self.column], out.reshape(len(block), self.sizes[0]))


@dataclass(frozen=True)
class StoredBag:
    """A feature whose bags of one size are stored as a file of their own."""

    role: str
    sizes: tuple[int, ...]

    def put(self, block: NDArray[np.int32], out: NDArray[np.int32]) -> None:
        """Writes the bags of a block [n, size] into out [n * size]."""
        np.copyto(out.reshape(len(block), self.sizes[0]), block[:, : self.sizes[0]])


@dataclass(frozen=True)
class JaggedBag:
    """A feature whose bags have any length."""

    name: str  # of its two files


IdSegment = IdColumns | ExpandedBag | StoredBag | JaggedBag


@dataclass(frozen=True)
class IdColumn:
    """A column of ids, to be checked against its feature's table."""

    feature: str
    column: int
    table_rows: int


@dataclass(frozen=True)
class FeatureLayout:
    """The files of a folder's features.

    Attributes:
        dense_columns: of the dense file, in feature order.
        weight_column: of the weights file; None: every row counts 1.
        segments: the id features in order, those side by side in a file together.
        shapes: role -> what each part's file has to be, but for the number of rows; labels are not in it.
        ids: role -> its columns of ids; a stored bag has several.
        kept: role -> the same as `shapes`, of columns that pass through and are not read with the others.
    """

    dense_columns: tuple[int, ...]
    weight_column: int | None
    segments: tuple[IdSegment, ...]
    shapes: Mapping[str, ArrayShape]
    ids: Mapping[str, tuple[IdColumn, ...]]
    kept: Mapping[str, ArrayShape]

    @property
    def jagged(self) -> tuple[JaggedBag, ...]:
        """The bags of any length."""
        return tuple(segment for segment in self.segments if isinstance(segment, JaggedBag))

    @property
    def matrix_roles(self) -> tuple[str, ...]:
        """Files with one row a row."""
        apart = {role(bag.name) for bag in self.jagged for role in (values_role, offsets_role)}
        return tuple(role for role in self.shapes if role not in apart)

    @staticmethod
    def of(manifest: DataManifest, *, root: str) -> FeatureLayout:
        """The layout of a folder.

        Raises:
            DataError: a feature lies where its kind cannot.
        """
        for feature in manifest.features:
            _check(feature, root=root)
        dense = tuple(feature.column for feature in manifest.dense_features)
        weight = None if manifest.weight_feature is None else manifest.weight_feature.column
        ids: dict[str, list[FeatureSpec]] = {}
        for feature in manifest.id_features:
            ids.setdefault(values_role(feature.file) if feature.has_offsets else feature.file, []).append(feature)
        shapes = {}
        if dense:
            shapes[DENSE_FILE] = ArrayShape(dtype=np.float32, num_columns=max(dense) + 1)
        if weight is not None:
            shapes[WEIGHT_FILE] = ArrayShape(dtype=np.float32, num_columns=weight + 1)
        for role, features in ids.items():
            if features[0].has_offsets:
                shapes[role] = ArrayShape(dtype=np.int32)
                shapes[offsets_role(features[0].file)] = ArrayShape(dtype=np.int64)
            else:
                stored = any(_is_stored(feature) for feature in features)  # a wider bag would lose ids
                shapes[role] = ArrayShape(
                    dtype=np.int32,
                    num_columns=_num_columns(features),
                    more_columns="refused" if stored else "fine",
                )
        return FeatureLayout(
            dense_columns=dense,
            weight_column=weight,
            segments=tuple(_segments(manifest.id_features)),
            shapes=shapes,
            ids={
                role: tuple(c for feature in features for c in _id_columns(feature)) for role, features in ids.items()
            },
            kept={
                feature.file: ArrayShape(dtype=np.dtype(feature.dtype), num_columns=1)
                for feature in manifest.kept_features
            },
        )


def _check(feature: FeatureSpec, *, root: str) -> None:
    where = f"{root}: feature {feature.name} of kind {feature.kind!r}"
    if feature.kind in _COLUMN_FILES:
        files = _COLUMN_FILES[feature.kind]
        if feature.file not in files:
            raise DataError(
                f"{where} lies in file {feature.file!r}, but it is read from {' or '.join(map(repr, files))} alone;"
                " prepare the folder again"
            )
    elif feature.kind == "kept":
        if feature.file != kept_file(feature.name) or feature.column or not _KEPT_DTYPE.fullmatch(feature.dtype or ""):
            raise DataError(
                f"{where} lies in column {feature.column} of file {feature.file!r} as {feature.dtype}, but it is read"
                f" from {kept_file(feature.name)!r} as int64 or texts alone; prepare the folder again"
            )
    elif feature.kind != "bag":
        raise DataError(f"{where}: no such kind; take a newer version of this program, or prepare the folder again")
    elif feature.file in _ROLES and (feature.bag_size is None or feature.file != SPARSE_FILE):
        raise DataError(f"{where} lies in file {feature.file!r}, which holds no bags; prepare the folder again")
    if feature.kind in ("id", "bag") and not (feature.rows and feature.rows > 0):
        raise DataError(f"{where}: its table has {feature.rows} rows in the manifest; prepare the folder again")
    if feature.bag_size is not None and feature.bag_size < 1:
        raise DataError(f"{where}: bag_size is {feature.bag_size} in the manifest; prepare the folder again")


def _is_stored(feature: FeatureSpec) -> bool:
    return feature.bag_size is not None and feature.file not in _ROLES


def _num_columns(features: Sequence[FeatureSpec]) -> int:
    return max((f.bag_size or 1) if _is_stored(f) else f.column + 1 for f in features)


def _id_columns(feature: FeatureSpec) -> list[IdColumn]:
    columns = range(feature.bag_size or 1) if _is_stored(feature) else [0 if feature.has_offsets else feature.column]
    return [IdColumn(feature.name, column, feature.rows or 0) for column in columns]


def _segments(features: Sequence[FeatureSpec]) -> list[IdSegment]:
    segments: list[IdSegment] = []
    for feature in features:
        before = segments[-1] if segments else None
        if feature.has_offsets:
            segments.append(JaggedBag(feature.file))
        elif _is_stored(feature):
            segments.append(StoredBag(feature.file, (feature.bag_size or 1,)))
        elif feature.bag_size is not None:
            expander = BagExpander(feature=feature.name, bag_size=feature.bag_size, table_rows=feature.rows or 1)
            segments.append(ExpandedBag(feature.file, feature.column, (feature.bag_size,), expander))
        elif isinstance(before, IdColumns) and before.role == feature.file:
            segments[-1] = IdColumns(before.role, (*before.columns, feature.column))
        else:
            segments.append(IdColumns(feature.file, (feature.column,)))
    return segments
