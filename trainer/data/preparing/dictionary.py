"""Dictionaries: which value of a categorical feature has which id, made and kept on disk within a memory limit.

Ids: 0 missing, 1 rare or unseen, values from 2 by descending count, so that the rows looked up most are neighbours;
ties by value. A dictionary is a function of the counted values alone, whatever their order and however they were cut
into pieces.

Legend: K values kept.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from configs.errors import DataError
from trainer import storage
from trainer.data.manifest import FIRST_VALUE_ID
from trainer.data.preparing.lookup import LookupFile, LookupWriter
from trainer.data.preparing.mixing import mix, salted, scaled, unmix
from trainer.data.preparing.value_counts import PLACE_BITS, Counts, Run, merge_runs
from trainer.data.preparing.work_pool import Tell

_MAX_ROWS = 2**31 - 1  # ids are int32
_CHUNK = 1 << 20
_TAIL_SHARE = 4  # a capped table gives a quarter of its rows to the values beyond the cap
_TAIL_SALT = 0x5EED_7A11


@dataclass(frozen=True, kw_only=True)
class IdRule:
    """How values get ids.

    Args:
        order: count: by descending count; first_row: by first occurrence, as MLPerf's reference does.
        min_count: Values seen less often have no id of their own.
        max_rows: Of a table; the values beyond it, the rarest, share a quarter of the rows by hash (order first_row:
            all ids are taken modulo the number of values or this).
    """

    order: Literal["count", "first_row"] = "count"
    min_count: int = 2
    max_rows: int | None = None

    def table_rows(self, num_values: int) -> int:
        """Rows of the table of a feature with so many values."""
        if self.order == "first_row":
            least = 1 if self.min_count == 1 else FIRST_VALUE_ID  # id 1 is in the table where values can be rare
            return max(least, min(num_values, self.max_rows or num_values))
        return min(FIRST_VALUE_ID + num_values, self.max_rows or _MAX_ROWS)

    def ids(self, ranks: NDArray[np.int64], mixed: NDArray, *, num_values: int) -> NDArray[np.int32]:
        """Ids of values by their rank from 0 in the rule's order."""
        rows = self.table_rows(num_values)
        ids = ranks + FIRST_VALUE_ID
        if self.order == "first_row":
            return (ids % rows).astype(np.int32)
        if FIRST_VALUE_ID + num_values > rows:
            tail_rows = max(1, (rows - FIRST_VALUE_ID) // _TAIL_SHARE)
            first_tail = rows - tail_rows
            tail = ids >= first_tail
            ids[tail] = first_tail + scaled(salted(mixed[tail], _TAIL_SALT), tail_rows)
        return ids.astype(np.int32)

    def lookup_ids(self, ranks: NDArray[np.int64], mixed: NDArray, *, num_values: int) -> NDArray[np.int32]:
        """What the lookup table gives: ids, but with order first_row as they are before the modulo.

        MLPerf's reference rounds ids before it takes the modulo, so rows are given both while they are written.
        """
        if self.order == "first_row":
            return (ranks + FIRST_VALUE_ID).astype(np.int32)
        return self.ids(ranks, mixed, num_values=num_values)


@dataclass(frozen=True, kw_only=True)
class Dictionary:
    """A finished dictionary."""

    name: str
    num_values: int  # K
    rows: int  # of the table
    sha256: str
    lookup: LookupFile


@dataclass(frozen=True, kw_only=True)
class DictionaryJob:
    """Makes one feature's dictionary; sent to a worker process.

    Args:
        name: The feature.
        runs: Its counts.
        rule: Which values get which ids.
        value_bits: 32 or 64.
        folder: Scratch, where the lookup table stays.
        output: The Parquet file.
        texts: Parquet files of value and text, where values stand for texts.
        memory_bytes: What may be held.
    """

    name: str
    runs: tuple[Run, ...]
    rule: IdRule
    value_bits: int
    folder: str
    output: str
    memory_bytes: int
    texts: tuple[str, ...] = ()

    def run(self, tell: Tell) -> Dictionary:
        """Merges the counts, ranks the values, writes the lookup table and the Parquet file.

        Raises:
            DataError: more values than int32 ids.
        """
        dtype = np.dtype("<u4" if self.value_bits == 32 else "<u8")
        stream = _Scratch(storage.join(self.folder, self.name), dtype=dtype)
        for counted in merge_runs(self.runs, min_count=self.rule.min_count, memory_bytes=self.memory_bytes):
            stream.append(counted)
        num_values = stream.close()
        if FIRST_VALUE_ID + num_values > _MAX_ROWS and self.rule.max_rows is None:
            raise DataError(
                f"{self.name}: {num_values:,} values are over int32 ids; raise --min-count or set --max-rows"
            )
        ranked = _Ranked(storage.join(self.folder, self.name), num_values=num_values, dtype=dtype)
        lookup = LookupWriter(
            storage.join(self.folder, f"{self.name}.lookup"), num_values=num_values, value_bits=self.value_bits
        )
        rank = _by_count if self.rule.order == "count" else _by_first_row
        for counted, ranks in rank(stream, ranked):
            lookup.append(counted.mixed, self.rule.lookup_ids(ranks, counted.mixed, num_values=num_values))
        stream.remove()
        sha256 = self._write(ranked, num_values=num_values)
        ranked.remove()
        rows = self.rule.table_rows(num_values)
        tell(0, num_values)
        return Dictionary(name=self.name, num_values=num_values, rows=rows, sha256=sha256, lookup=lookup.close())

    def _write(self, ranked: _Ranked, *, num_values: int) -> str:
        """Writes value, id, count (and text) in the order of the ranks; gives the sha256 of values and ids."""
        digest = hashlib.sha256(f"{self.name} {num_values} {self.rule.table_rows(num_values)}\n".encode())
        fields = [("value", pa.int64()), ("id", pa.int32()), ("count", pa.int64())]
        texts = _read_texts(self.texts) if self.texts else None
        schema = pa.schema(fields + [("text", pa.string())] * (texts is not None))
        with storage.open_file(self.output, "wb") as file, pq.ParquetWriter(file, schema) as writer:
            for start in range(0, num_values, _CHUNK):
                values, counts = ranked.get(start, min(start + _CHUNK, num_values))
                ranks = np.arange(start, start + len(values))
                ids = self.rule.ids(ranks, mix(values), num_values=num_values)
                digest.update(values.tobytes())
                digest.update(ids.astype("<i4").tobytes())
                signed = values.astype(np.int64) if self.value_bits == 32 else values.view(np.int64)
                columns = [signed, ids, counts]
                if texts is not None:
                    columns.append(pa.array([texts.get(value) for value in signed.tolist()], pa.string()))
                writer.write_table(pa.table(columns, schema=schema))
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class SavedDictionaryJob:
    """Makes the lookup table of a saved dictionary anew; sent to a worker process."""

    name: str
    saved: str  # the Parquet file
    rows: int
    sha256: str
    value_bits: int
    folder: str
    memory_bytes: int

    def run(self, tell: Tell) -> Dictionary:
        """Reads the dictionary range by range of the mixed values.

        Raises:
            DataError: not a dictionary.
        """
        try:
            with storage.open_file(self.saved, "rb") as file:
                source = pq.ParquetFile(file)
                num_values = source.metadata.num_rows
                path = storage.join(self.folder, f"{self.name}.lookup")
                writer = LookupWriter(path, num_values=num_values, value_bits=self.value_bits)
                num_ranges = max(1, -(-num_values * 64 // self.memory_bytes))
                edges = [(number << self.value_bits) // num_ranges for number in range(num_ranges + 1)]
                for low, high in zip(edges, edges[1:], strict=False):
                    self._append_range(source, writer, low=low, high=high)
        except (OSError, IndexError, pa.ArrowException) as error:
            raise DataError(f"{self.saved}: not a readable dictionary ({error}); prepare its data again") from error
        tell(0, num_values)
        return Dictionary(
            name=self.name, num_values=num_values, rows=self.rows, sha256=self.sha256, lookup=writer.close()
        )

    def _append_range(self, source: pq.ParquetFile, writer: LookupWriter, *, low: int, high: int) -> None:
        mixed_pieces, id_pieces = [], []
        for batch in source.iter_batches(batch_size=_CHUNK, columns=["value", "id"]):
            values = batch.column(0).to_numpy().view(np.uint64)
            ids = batch.column(1).to_numpy()
            if len(ids) and (ids.min() < 0 or ids.max() >= self.rows):
                raise DataError(f"{self.saved}: an id is outside its table of {self.rows} rows; prepare its data again")
            mixed = mix(values.astype(np.uint32) if self.value_bits == 32 else values)
            inside = (mixed >= mixed.dtype.type(low)) & (mixed <= mixed.dtype.type(high - 1))
            mixed_pieces.append(mixed[inside])
            id_pieces.append(ids[inside])
        if mixed_pieces:
            mixed = np.concatenate(mixed_pieces)
            order = np.argsort(mixed, kind="stable")
            writer.append(mixed[order], np.concatenate(id_pieces)[order])


class _Scratch:
    """A stream of counts on disk, in the order of the mixed values."""

    def __init__(self, path: str, *, dtype: np.dtype) -> None:
        self._paths = [f"{path}.{column}" for column in ("mixed", "counts", "first")]
        self._dtypes = [dtype, np.dtype("<i8"), np.dtype("<i8")]
        self._files = [storage.open_file(path, "wb") for path in self._paths]
        self.num_values = 0

    def append(self, counted: Counts) -> None:
        for file, column in zip(self._files, (counted.mixed, counted.counts, counted.first), strict=True):
            if column is not None:
                file.write(np.ascontiguousarray(column).data)
        self.num_values += len(counted)

    def close(self) -> int:
        for file in self._files:
            file.close()
        return self.num_values

    def chunks(self) -> Iterator[Counts]:
        for start in range(0, self.num_values, _CHUNK):
            columns = [
                np.fromfile(path, dtype, count=min(_CHUNK, self.num_values - start), offset=start * dtype.itemsize)
                for path, dtype in zip(self._paths, self._dtypes, strict=True)
            ]
            yield Counts(mixed=columns[0], counts=columns[1], first=columns[2] if len(columns[2]) else None)

    def remove(self) -> None:
        for path in self._paths:
            storage.remove_file(path)


class _Ranked:
    """Values and counts on disk, put in any order and read by rank."""

    def __init__(self, path: str, *, num_values: int, dtype: np.dtype) -> None:
        self.path = path
        self._paths = [f"{path}.ranked_values", f"{path}.ranked_counts"]
        self._columns = [
            _new_map(path, dtype=kind, shape=(max(num_values, 1),))
            for path, kind in zip(self._paths, (dtype, np.dtype("<i8")), strict=True)
        ]

    @property
    def values(self) -> NDArray:
        """By rank; writing to it writes the file."""
        return self._columns[0]

    def put(self, ranks: NDArray[np.int64], values: NDArray, counts: NDArray[np.int64]) -> None:
        self._columns[0][ranks] = values
        self._columns[1][ranks] = counts

    def get(self, start: int, stop: int) -> tuple[NDArray, NDArray[np.int64]]:
        return np.array(self._columns[0][start:stop]), np.array(self._columns[1][start:stop])

    def remove(self) -> None:
        self._columns = []
        for path in self._paths:
            storage.remove_file(path)


def _new_map(path: str, *, dtype: Any, shape: tuple[int, ...]) -> NDArray:
    """A file of its full length, mapped; its room is taken now, as that of lookup tables."""
    with storage.open_file(path, "wb") as new:
        os.posix_fallocate(new.fileno(), 0, math.prod(shape) * np.dtype(dtype).itemsize)
    return np.memmap(path, dtype=dtype, mode="r+", shape=shape)


def _ranks_in_classes(classes: NDArray[np.int64], next_rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ranks of a chunk: in each class they go on from `next_rank`, which is moved on."""
    order = np.argsort(classes, kind="stable")
    ordered = classes[order]
    starts = _first_of_each(ordered)
    lengths = np.diff(np.append(starts, len(ordered)))
    ranks = np.empty(len(classes), np.int64)
    ranks[order] = next_rank[ordered] + np.arange(len(ordered)) - np.repeat(starts, lengths)
    next_rank[ordered[starts]] += lengths
    return ranks


def _first_of_each(ordered: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each class begins among classes in order, at least one."""
    return np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))


def _class_starts(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)


def _by_count(stream: _Scratch, ranked: _Ranked) -> Iterator[tuple[Counts, NDArray[np.int64]]]:
    """The stream with the rank of each value: by descending count, then by value; fills `ranked`."""
    seen, sizes = np.empty(0, np.int64), np.empty(0, np.int64)
    for counted in stream.chunks():
        found, number = np.unique(counted.counts, return_counts=True)
        seen, place = np.unique(np.concatenate([seen, found]), return_inverse=True)
        sizes = np.bincount(place, weights=np.concatenate([sizes, number])).astype(np.int64)
    # A counting sort brings values of one count together on disk, where they are sorted in place.
    starts = _class_starts(sizes[::-1])
    next_rank = starts.copy()
    for counted in stream.chunks():
        ranks = _ranks_in_classes(len(seen) - 1 - np.searchsorted(seen, counted.counts), next_rank)
        ranked.put(ranks, unmix(counted.mixed), counted.counts)
    for start, stop in zip(starts, next_rank, strict=True):
        ranked.values[start:stop].sort()
    for counted in stream.chunks():
        classes = len(seen) - 1 - np.searchsorted(seen, counted.counts)
        values = unmix(counted.mixed)
        ranks = np.empty(len(classes), np.int64)
        order = np.argsort(classes, kind="stable")
        edges = np.append(_first_of_each(classes[order]), len(order))
        for group in (order[start:stop] for start, stop in itertools.pairwise(edges)):
            known = ranked.values[starts[classes[group[0]]] : next_rank[classes[group[0]]]]
            ranks[group] = starts[classes[group[0]]] + np.searchsorted(known, values[group])
        yield counted, ranks


def _by_first_row(stream: _Scratch, ranked: _Ranked) -> Iterator[tuple[Counts, NDArray[np.int64]]]:
    """The stream with the rank of each value: by the place where it was first seen; fills `ranked`."""
    sizes = np.zeros(0, np.int64)
    for counted in stream.chunks():
        found = np.bincount(_places(counted) >> PLACE_BITS, minlength=len(sizes))
        found[: len(sizes)] += sizes
        sizes = found
    if not stream.num_values:
        return
    # Sorted by piece on disk, then each piece in memory; `position` says where in the stream a value stands.
    places_path, ranks_path = f"{ranked.path}.places", f"{ranked.path}.ranks"
    places = _new_map(places_path, dtype="<i8", shape=(stream.num_values, 2))
    ranks = _new_map(ranks_path, dtype="<i8", shape=(stream.num_values,))
    next_rank = _class_starts(sizes)
    position = 0
    for counted in stream.chunks():
        slots = _ranks_in_classes(_places(counted) >> PLACE_BITS, next_rank)
        places[slots] = np.stack([_places(counted), np.arange(position, position + len(counted))], axis=1)
        position += len(counted)
    for start, size in zip(_class_starts(sizes), sizes, strict=True):
        piece = np.array(places[start : start + size])
        ranks[piece[np.argsort(piece[:, 0]), 1]] = np.arange(start, start + size)
    position = 0
    for counted in stream.chunks():
        of_chunk = np.array(ranks[position : position + len(counted)])
        ranked.put(of_chunk, unmix(counted.mixed), counted.counts)
        yield counted, of_chunk
        position += len(counted)
    storage.remove_file(places_path)
    storage.remove_file(ranks_path)


def _places(counted: Counts) -> NDArray[np.int64]:
    assert counted.first is not None, "places were not counted"
    return counted.first


def _read_texts(paths: Sequence[str]) -> dict[int, str]:
    texts: dict[int, str] = {}
    for path in paths:
        with storage.open_file(path, "rb") as file:
            table = pq.read_table(file)
        texts.update(zip(table["value"].to_pylist(), table["text"].to_pylist(), strict=True))
    return texts


def combined_sha256(parts: Sequence[str]) -> str:
    """One hex sha256 over all features' in order: equal exactly when every value has the same id."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
