"""Row sources: what rows are read from, by row number, and prepared folders as one.

Legend: n rows asked for, T ids of all their bags.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from trainer.data.manifest import (
    DENSE_FILE,
    LABEL_FILE,
    NUMERIC_ID_SUFFIX,
    NUMERIC_IDS_FILE,
    WEIGHT_FILE,
    DataManifest,
    Part,
)
from trainer.data.reading.array_files import ArrayFile, ArrayShape, open_part_file
from trainer.data.reading.bags import Bags, cut_bags, joined
from trainer.data.reading.batch import Rows
from trainer.data.reading.feature_layout import FeatureLayout, JaggedBag, offsets_role, values_role
from trainer.data.reading.kept_columns import check_names, keepable_columns

_LABELS = ArrayShape(dtype=np.int32, num_columns=1)


@dataclass(frozen=True, kw_only=True)
class SourceFeatures:
    """What the rows of a source hold; two sources that differ in it do not serve the same model."""

    dense_names: tuple[str, ...]
    table_rows: Mapping[str, int]  # id feature -> rows of its table, in column order
    dictionary: str  # names the mapping from raw values to ids
    numeric_ids: Mapping[str, str] = field(default_factory=dict)  # dense feature -> its discretised form, an id feature


@dataclass(frozen=True, kw_only=True)
class SourcePart:
    """A named run of rows."""

    name: str
    num_rows: int
    files: Mapping[str, str]  # role (dense, sparse, labels) -> where it lies, for messages
    has_labels: bool = True


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

    def read(self, rows: range | NDArray[np.int64]) -> Rows:
        """The rows of these numbers, in this order; a range goes up by one."""
        ...

    def fetch(self, rows: range) -> None:
        """Brings rows that will be read soon from the disk into memory; another thread may call this."""
        ...

    def check_keepable(self, names: Sequence[str]) -> None:
        """Refuses names that `kept` does not know.

        Raises:
            ConfigError: names score.keep, and the columns there are.
        """
        ...

    def kept(self, names: Sequence[str], rows: range) -> dict[str, NDArray]:
        """Columns [n] that pass through into predictions, as they are prepared.

        Ids are int32, numbers and weights float32; kept columns int64, or S<k> with texts in UTF-8.

        Raises:
            ConfigError: as `check_keepable`.
        """
        ...


@dataclass(frozen=True)
class _Places:
    """Where asked-for rows lie."""

    pieces: list[tuple[int, slice | NDArray[np.int64]]]  # part, and rows in it
    order: NDArray[np.int64] | None  # row i asked for is row order[i] of the pieces; None: as they come
    part: NDArray[np.int32]  # [n]
    row: NDArray[np.int64]  # [n]


def _numeric_ids(manifest: DataManifest) -> dict[str, str]:
    discretised = {feature.name for feature in manifest.id_features if feature.file == NUMERIC_IDS_FILE}
    pairs = {feature.name: f"{feature.name}{NUMERIC_ID_SUFFIX}" for feature in manifest.dense_features}
    return {name: ids for name, ids in pairs.items() if ids in discretised}


class PreparedSource:
    """Parts of a prepared folder, mapped into memory.

    What the files hold is not looked at here: `trainer.data.reading.scan` checks ids against their tables, once for
    as long as the files stay as they are.

    Args:
        root: The folder.
        parts: Names of its parts.

    Raises:
        DataError: a part or file is missing, or a file is not what the manifest says.
    """

    def __init__(self, *, root: str, parts: Sequence[str]) -> None:
        manifest = DataManifest.read(root)
        self.root = root
        self.layout = FeatureLayout.of(manifest, root=root)
        self.features = SourceFeatures(
            dense_names=tuple(feature.name for feature in manifest.dense_features),
            table_rows={feature.name: feature.rows or 0 for feature in manifest.id_features},
            dictionary=manifest.dictionary_sha256,
            numeric_ids=_numeric_ids(manifest),
        )
        chosen = [manifest.part(name) for name in parts]
        self.arrays = tuple(_open_part(part, root=root, layout=self.layout) for part in chosen)
        self.parts = tuple(
            SourcePart(
                name=part.name,
                num_rows=part.num_rows,
                files={role: array.path for role, array in arrays.items()},
                has_labels=LABEL_FILE in arrays,
            )
            for part, arrays in zip(chosen, self.arrays, strict=True)
        )
        self._ends = np.cumsum([part.num_rows for part in chosen], dtype=np.int64)
        self._starts = self._ends - np.array([part.num_rows for part in chosen], dtype=np.int64)
        self._keepable = keepable_columns(manifest)
        self._bag_names = tuple(feature.name for feature in manifest.id_features if feature.kind == "bag")
        self._sizes = [size for segment in self.layout.segments for size in getattr(segment, "sizes", (0,))]

    @property
    def num_rows(self) -> int:
        """Rows of all parts."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, rows: range | NDArray[np.int64]) -> Rows:
        """The rows of these numbers, in this order; a range goes up by one."""
        places = self._locate_run(rows) if isinstance(rows, range) else self._locate(rows)
        blocks = {role: self._block(role, places) for role in self.layout.matrix_roles}
        values, lengths = self._bags(blocks, places)
        dense = np.empty((len(places.row), 0), dtype=np.float32)
        if self.layout.dense_columns:
            dense = _columns(blocks[DENSE_FILE], self.layout.dense_columns)
        weight = self.layout.weight_column
        return Rows(
            dense=dense,
            values=values,
            lengths=lengths,
            labels=self._labels(places),
            part=places.part,
            row=places.row,
            weights=None if weight is None else blocks[WEIGHT_FILE][:, weight].copy(),
        )

    def fetch(self, rows: range) -> None:
        """Reads rows into the system's cache."""
        for part, which in self._locate_run(rows, with_rows=False).pieces:
            assert isinstance(which, slice)
            arrays = self.arrays[part]
            for role in (*self.layout.matrix_roles, LABEL_FILE):
                if role in arrays:
                    arrays[role].fetch(which.start, which.stop)
            for bag in self.layout.jagged:
                offsets = arrays[offsets_role(bag.name)]
                offsets.fetch(which.start, which.stop + 1)
                arrays[values_role(bag.name)].fetch(*(int(offsets.array[at]) for at in (which.start, which.stop)))

    def check_keepable(self, names: Sequence[str]) -> None:
        """Refuses names that `kept` does not know.

        Raises:
            ConfigError: names score.keep, and the columns there are.
        """
        check_names(names, there=self._keepable, bags=self._bag_names)

    def kept(self, names: Sequence[str], rows: range) -> dict[str, NDArray]:
        """Columns [n] that pass through, each an array of its own.

        Raises:
            ConfigError: as `check_keepable`.
        """
        self.check_keepable(names)
        pieces = self._locate_run(rows, with_rows=False).pieces
        found = {}
        for name in names:
            place = self._keepable[name]
            columns = [self.arrays[part][place.role].array[which, place.column] for part, which in pieces]
            found[name] = np.concatenate(columns)
        return found

    def _locate_run(self, rows: range, *, with_rows: bool = True) -> _Places:
        pieces: list[tuple[int, slice | NDArray[np.int64]]] = []
        for part, (start, end) in enumerate(zip(self._starts.tolist(), self._ends.tolist(), strict=True)):
            begin, stop = max(rows.start, start), min(rows.stop, end)
            if begin < stop:
                pieces.append((part, slice(begin - start, stop - start)))
        if not pieces:
            pieces = [(0, slice(0, 0))]
        runs = [(part, which) for part, which in pieces if isinstance(which, slice)] if with_rows else []
        part_of = [np.full(which.stop - which.start, part, dtype=np.int32) for part, which in runs]
        row_of = [np.arange(which.start, which.stop, dtype=np.int64) for _, which in runs]
        return _Places(pieces, None, _joined(part_of, np.int32), _joined(row_of, np.int64))

    def _locate(self, rows: NDArray[np.int64]) -> _Places:
        if len(self.parts) == 1 or not len(rows):
            return _Places([(0, rows)], None, np.zeros(len(rows), dtype=np.int32), rows)
        part = np.searchsorted(self._ends, rows, side="right").astype(np.int32)
        row: NDArray[np.int64] = rows - self._starts[part]
        by_part = np.argsort(part.astype(np.uint16), kind="stable")
        order = np.empty(len(rows), dtype=np.int64)
        order[by_part] = np.arange(len(rows), dtype=np.int64)
        sorted_rows = row[by_part]
        ends = np.cumsum(np.bincount(part, minlength=len(self.parts))).tolist()
        pieces: list[tuple[int, slice | NDArray[np.int64]]] = [
            (index, sorted_rows[start:end])
            for index, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True))
            if start < end
        ]
        return _Places(pieces, order, part, row)

    def _block(self, role: str, places: _Places) -> NDArray:
        """The rows [n, ...] of one file; a view of the file where they lie together."""
        pieces = []
        for part, which in places.pieces:
            array = self.arrays[part][role].array
            pieces.append(array[which] if isinstance(which, slice) else np.take(array, which, axis=0))
        block = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return block if places.order is None else np.take(block, places.order, axis=0)

    def _labels(self, places: _Places) -> NDArray[np.float32]:
        if all(self.parts[part].has_labels for part, _ in places.pieces):
            return self._block(LABEL_FILE, places)[:, 0].astype(np.float32)
        labels = np.empty(len(places.part), dtype=np.float32)
        for index in np.unique(places.part).tolist():
            there = places.part == index
            labels[there] = np.nan
            if self.parts[index].has_labels:
                labels[there] = self.arrays[index][LABEL_FILE].array[places.row[there], 0]
        return labels

    def _bags(self, blocks: Mapping[str, NDArray], places: _Places) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Values [T] and lengths [F, n], or [F] where no feature is jagged."""
        count = len(places.row)
        jagged = {bag.name: self._jagged(bag, places) for bag in self.layout.jagged}
        total = sum(self._sizes) * count + sum(len(bags.values) for bags in jagged.values())
        values = np.empty(total, dtype=np.int32)
        lengths = np.array(self._sizes, dtype=np.int32)
        if jagged:
            lengths = np.repeat(lengths[:, None], count, axis=1)
        start = feature = 0
        for segment in self.layout.segments:
            if isinstance(segment, JaggedBag):
                bags = jagged[segment.name]
                stop = start + len(bags.values)
                values[start:stop] = bags.values
                lengths[feature] = bags.lengths
                feature += 1
            else:
                stop = start + sum(segment.sizes) * count
                segment.put(blocks[segment.role], values[start:stop])
                feature += len(segment.sizes)
            start = stop
        return values, lengths

    def _jagged(self, bag: JaggedBag, places: _Places) -> Bags:
        pieces = []
        for part, which in places.pieces:
            arrays = self.arrays[part]
            values, offsets = arrays[values_role(bag.name)].array, arrays[offsets_role(bag.name)].array
            pieces.append(cut_bags(values, offsets, which))
        return joined(pieces, order=places.order)


def _open_part(part: Part, *, root: str, layout: FeatureLayout) -> dict[str, ArrayFile]:
    shapes = {**layout.shapes, **layout.kept}
    if LABEL_FILE in part.files:
        shapes[LABEL_FILE] = _LABELS
    arrays = {}
    for role, shape in shapes.items():
        if role not in part.files:
            raise DataError(f"{root}: part {part.name} has no file {role!r} in the manifest; prepare the folder again")
        file = part.files[role]
        num_rows: int | None = part.num_rows
        if shape.num_columns is None:
            num_rows = part.num_rows + 1 if shape.dtype == np.int64 else None  # offsets; values
        asked = dataclasses.replace(shape, num_rows=num_rows)
        arrays[role] = open_part_file(root, file, shape=asked)
    for bag in layout.jagged:
        offsets, values = arrays[offsets_role(bag.name)], arrays[values_role(bag.name)]
        first, last = int(offsets.array[0]), int(offsets.array[-1])
        if first != 0 or last != len(values.array):
            raise DataError(
                f"{offsets.path}: runs from {first} to {last}, but {values.path} holds {len(values.array)} ids;"
                " prepare the folder again"
            )
    return arrays


def _columns(block: NDArray, columns: tuple[int, ...]) -> NDArray:
    """The columns as an array of their own."""
    first = columns[0]
    if columns != tuple(range(first, first + len(columns))):
        return np.take(block, columns, axis=1)
    chosen = block[:, first : first + len(columns)]
    # A file's own memory is read-only, and gone from the cache when it is read again later.
    return chosen if chosen.flags.owndata and chosen.flags.c_contiguous else np.array(chosen, order="C")


def _joined(pieces: list[NDArray], dtype: type[np.generic]) -> NDArray:
    if len(pieces) == 1:
        return pieces[0]
    return np.concatenate(pieces) if pieces else np.empty(0, dtype=dtype)
