"""Pieces: what was parsed of one piece of an input file, in scratch files, finished exactly when its record is there.

Legend: N rows of a block, D dense features, F categorical features of one value a row.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from trainer import storage
from trainer.data.manifest import (
    DENSE_FILE,
    LABEL_FILE,
    MISSING_ID,
    NUMERIC_IDS_FILE,
    SPARSE_FILE,
    WEIGHT_FILE,
    kept_file,
)
from trainer.data.preparing.parsed import BadLine, Layout, ParsedRows
from trainer.data.preparing.value_counts import PLACE_BITS, Counts, Run, write_runs
from trainer.data.preparing.vocabulary import IdsOf

WRITTEN = "written.json"  # the mark of a piece whose rows are in the parts
VALUES, MISSING, PART = "values", "missing", "part"

Arrays = dict[str, NDArray]


@dataclass(frozen=True, kw_only=True)
class PieceName:
    """A piece: which of which file."""

    file: int
    piece: int

    @property
    def file_prefix(self) -> str:
        """What the names of all scratch files of the input file begin with."""
        return f"f{self.file:05d}_"

    def path(self, folder: str, kind: str) -> str:
        """Where a scratch file of the piece lies."""
        return storage.join(folder, f"{self.file_prefix}p{self.piece:06d}.{kind}")


@dataclass(frozen=True, kw_only=True)
class PieceRecord:
    """What a piece came to; written last."""

    name: PieceName
    num_lines: int
    num_rows: int
    block_rows: tuple[int, ...]
    bad: dict[str, int]  # reason -> lines
    first_bad: tuple[int, str, str] | None  # line in the piece, reason, detail
    num_bytes: dict[str, int]  # role -> of the scratch file
    has_ids: bool  # whether values were turned into ids already
    runs: tuple[tuple[int, int], ...] | None  # offset and entries of each vocabulary feature's counts
    rows_by_part: tuple[int, ...]
    dense_min: int | None  # of raw numbers
    text_features: tuple[str, ...]

    def remove_rows(self, folder: str) -> None:
        """Deletes what was kept, once the rows are in the parts."""
        for role in self.num_bytes:
            if role not in ("bad", "counts"):
                path = self.name.path(folder, role)
                if storage.is_file(path):
                    storage.remove_file(path)

    @property
    def keeps_rows(self) -> bool:
        """Whether its rows wait in scratch files; else they are parsed again."""
        return any(role not in ("bad", "counts") and not role.endswith(".texts") for role in self.num_bytes)

    @property
    def num_bad(self) -> int:
        """Lines that are no rows."""
        return sum(self.bad.values())

    def write(self, folder: str) -> None:
        """Says that the piece is whole."""
        storage.write_json(self.name.path(folder, "json"), dataclasses.asdict(self), durable=False)

    @staticmethod
    def read(folder: str, name: PieceName) -> PieceRecord | None:
        """The record, if the piece is whole: if all its files are there and of the length it says."""
        path = name.path(folder, "json")
        if not storage.is_file(path):
            return None
        try:
            body = storage.read_json(path)
        except ValueError:  # the machine lost its power before it was written
            return None
        record = PieceRecord(
            **{
                **body,
                "name": name,
                "block_rows": tuple(body["block_rows"]),
                "first_bad": None if body["first_bad"] is None else tuple(body["first_bad"]),
                "runs": None if body["runs"] is None else tuple(tuple(run) for run in body["runs"]),
                "rows_by_part": tuple(body["rows_by_part"]),
                "text_features": tuple(body["text_features"]),
            }
        )
        if storage.is_file(name.path(folder, WRITTEN)):
            return record  # its rows are where they belong, and no longer here
        for role, size in record.num_bytes.items():
            file = name.path(folder, role)
            if not storage.is_file(file) or storage.num_bytes(file) != size:
                return None
        return record

    def counted(self, folder: str, counts: Sequence[Counts]) -> PieceRecord:
        """The record of a piece that is counted after it was parsed; its counts are written."""
        path = self.name.path(folder, "counts")
        with storage.open_file(path, "wb") as file:
            runs = tuple(write_runs(file, counts))
        sizes = {**self.num_bytes, "counts": storage.num_bytes(path)}
        changed = dataclasses.replace(self, runs=runs, num_bytes=sizes)
        changed.write(folder)
        return changed

    def run(self, folder: str, feature: int, *, dtype: str, ordinal: int | None) -> Run:
        """One vocabulary feature's counts; `ordinal`: the number of the piece over all files, where places matter."""
        assert self.runs is not None, "a piece that was not counted"
        offset, entries = self.runs[feature]
        return Run(
            path=self.name.path(folder, "counts"),
            offset=offset,
            num_entries=entries,
            dtype=dtype,
            first_place=None if ordinal is None else ordinal << PLACE_BITS,
        )


def arrays_of(rows: ParsedRows, layout: Layout) -> Arrays:
    """The rows as arrays by role, values not yet turned into ids."""
    arrays: Arrays = {}
    if layout.dense:
        arrays[DENSE_FILE] = rows.dense
    if rows.labels is not None:
        arrays[LABEL_FILE] = rows.labels
    if rows.weights is not None:
        arrays[WEIGHT_FILE] = rows.weights
    if rows.numeric_ids is not None:
        arrays[NUMERIC_IDS_FILE] = rows.numeric_ids
    if rows.part is not None:
        arrays[PART] = rows.part
    arrays[VALUES] = rows.values
    arrays[MISSING] = rows.missing
    for name, bag in zip(layout.bags, rows.bags, strict=True):
        arrays[f"{name}_lengths"] = bag.lengths
        arrays[f"{name}_values"] = bag.values
    for kept, values in zip(layout.kept, rows.kept, strict=True):
        arrays[kept_file(kept.name)] = values
    return arrays


def with_ids(arrays: Arrays, layout: Layout, vocabulary: Sequence[IdsOf], *, missing_is_value: bool = False) -> Arrays:
    """The same with ids in place of values: `sparse` int32 [N, F], and in the bags."""
    changed = {role: array for role, array in arrays.items() if role not in (VALUES, MISSING)}
    values, missing = arrays[VALUES], arrays[MISSING]
    ids = np.empty((values.shape[1], len(layout.ids)), np.int32)
    for column in range(len(layout.ids)):
        found = vocabulary[column].ids(values[column])
        if not missing_is_value:
            found[missing[column]] = MISSING_ID
        ids[:, column] = found
    if layout.ids:
        changed[SPARSE_FILE] = ids
    for name, feature in zip(layout.bags, vocabulary[len(layout.ids) :], strict=True):
        changed[f"{name}_values"] = feature.ids(arrays[f"{name}_values"])
    return changed


@dataclass(kw_only=True)
class PieceWriter:
    """Fills the scratch files of one piece; nothing counts until `finish`.

    Args:
        folder: Scratch.
        name: The piece.
        layout: What the rows hold.
        keep_rows: Whether rows are kept, or only counted.
        has_ids: Whether they come with ids in place of values.
    """

    folder: str
    name: PieceName
    layout: Layout
    keep_rows: bool
    has_ids: bool
    num_lines: int = 0
    block_rows: list[int] = field(default_factory=list)
    _files: dict[str, IO[bytes]] = field(default_factory=dict)
    _bad: Counter[str] = field(default_factory=Counter)
    _first_bad: tuple[int, str, str] | None = None
    _rows_by_part: NDArray[np.int64] | None = None
    _dense_min: int | None = None
    _texts: dict[str, dict[int, str]] = field(default_factory=dict)

    @property
    def num_bad(self) -> int:
        """Bad lines so far."""
        return self._bad.total()

    def add_bad(self, lines: Sequence[BadLine]) -> None:
        """Writes bad lines of the block that comes next, numbered in the piece."""
        for bad in lines:
            number = self.num_lines + bad.line
            if self._first_bad is None:
                self._first_bad = (number, bad.reason, bad.detail)
            self._bad[bad.reason] += 1
            text = bad.text.decode(errors="backslashreplace")
            entry = {"line": number, "reason": bad.reason, "found": bad.detail, "text": text}
            self._file("bad").write((json.dumps(entry) + "\n").encode())

    def add(self, arrays: Mapping[str, NDArray], *, num_lines: int, num_rows: int) -> None:
        """Adds a block's rows."""
        self.num_lines += num_lines
        self.block_rows.append(num_rows)
        if PART in arrays:
            counted = np.bincount(arrays[PART], minlength=len(self.layout.parts))
            self._rows_by_part = counted if self._rows_by_part is None else self._rows_by_part + counted
        dense = arrays.get(DENSE_FILE)
        if dense is not None and dense.dtype == np.int32 and dense.size:
            least = int(dense.min())
            self._dense_min = least if self._dense_min is None else min(least, self._dense_min)
        if self.keep_rows:
            for role, array in arrays.items():
                stored = np.packbits(array, axis=1) if role == MISSING else np.ascontiguousarray(array)
                self._file(role).write(stored.data)

    def add_texts(self, texts: Mapping[str, Mapping[int, str]]) -> None:
        """Keeps what values stand for."""
        for feature, known in texts.items():
            self._texts.setdefault(feature, {}).update(known)

    def finish(self, counted: Sequence[Counts] | None) -> PieceRecord:
        """Closes the files and writes the record."""
        runs = None if counted is None else tuple(write_runs(self._file("counts"), counted))
        for feature, texts in self._texts.items():
            # As signed numbers, which is how dictionaries keep values.
            values = np.fromiter(texts, np.uint64, len(texts)).view(np.int64)
            table = pa.table({"value": values, "text": list(texts.values())})
            pq.write_table(table, self._file(f"{feature}.texts"))
        for file in self._files.values():
            file.close()
        by_part = () if self._rows_by_part is None else tuple(self._rows_by_part.tolist())
        record = PieceRecord(
            name=self.name,
            num_lines=self.num_lines,
            num_rows=sum(self.block_rows),
            block_rows=tuple(self.block_rows),
            bad=dict(self._bad),
            first_bad=self._first_bad,
            num_bytes={role: storage.num_bytes(self.name.path(self.folder, role)) for role in self._files},
            has_ids=self.has_ids,
            runs=runs,
            rows_by_part=by_part or (0,) * len(self.layout.parts),
            dense_min=self._dense_min,
            text_features=tuple(self._texts),
        )
        record.write(self.folder)
        return record

    def _file(self, role: str) -> IO[bytes]:
        if role not in self._files:
            self._files[role] = storage.open_file(self.name.path(self.folder, role), "wb")
        return self._files[role]


def kept_blocks(folder: str, record: PieceRecord, layout: Layout) -> Iterator[tuple[int, Arrays]]:
    """The blocks of a piece as they were kept: (rows, arrays)."""
    wide = np.dtype("<u4" if layout.value_bits == 32 else "<u8")
    files = {
        role: storage.open_file(record.name.path(folder, role), "rb")
        for role in record.num_bytes
        if role not in ("bad", "counts") and not role.endswith(".texts")
    }
    dense = np.dtype("<f4") if record.dense_min is None else np.dtype("<i4")

    def read(role: str, dtype: Any, *shape: int) -> NDArray:
        count = int(np.prod(shape))
        return np.frombuffer(files[role].read(count * np.dtype(dtype).itemsize), dtype).reshape(shape)

    try:
        for rows in record.block_rows:
            arrays: Arrays = {}
            for role, dtype, width in (
                (DENSE_FILE, dense, len(layout.dense)),
                (NUMERIC_IDS_FILE, "<i4", len(layout.numeric_ids)),
                (SPARSE_FILE, "<i4", len(layout.ids)),
                (LABEL_FILE, "<i4", 0),
                (WEIGHT_FILE, "<f4", 0),
                (PART, "<i2", 0),
            ):
                if role in files:
                    arrays[role] = read(role, dtype, rows, width) if width else read(role, dtype, rows)
            for kept in layout.kept:
                arrays[kept_file(kept.name)] = read(kept_file(kept.name), kept.dtype, rows)
            if VALUES in files:
                num_ids = len(layout.ids)
                arrays[VALUES] = read(VALUES, wide, num_ids, rows)
                packed = read(MISSING, "u1", num_ids, -(-rows // 8))
                arrays[MISSING] = np.unpackbits(packed, axis=1, count=rows).view(bool)
            for name in layout.bags:
                lengths = arrays[f"{name}_lengths"] = read(f"{name}_lengths", "<i4", rows)
                arrays[f"{name}_values"] = read(f"{name}_values", "<i4" if record.has_ids else wide, int(lengths.sum()))
            yield rows, arrays
    finally:
        for file in files.values():
            file.close()
