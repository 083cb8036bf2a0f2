"""Dictionaries: which value of a categorical feature has which id, made and kept on disk within a memory limit.

Ids: 0 missing, 1 rare or unseen, values from 2 by descending count, so that the rows looked up most are neighbours;
ties by value. A dictionary is a function of the counted values alone, whatever their order and however they were cut
into pieces.

Legend: K values kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from configs.errors import DataError
from trainer import storage
from trainer.data.manifest import FIRST_VALUE_ID
from trainer.data.mixing import mix, salted, scaled
from trainer.data.preparing.lookup import LookupFile, LookupWriter
from trainer.data.preparing.ranking import CHUNK, CountStream, RankedValues, by_count, by_first_row
from trainer.data.preparing.value_counts import Run, merge_runs
from trainer.data.preparing.work_pool import Tell

_MAX_ROWS = 2**31 - 1  # ids are int32
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
        stream = CountStream(storage.join(self.folder, self.name), dtype=dtype)
        for counted in merge_runs(self.runs, min_count=self.rule.min_count, memory_bytes=self.memory_bytes):
            stream.append(counted)
        num_values = stream.close()
        if FIRST_VALUE_ID + num_values > _MAX_ROWS and self.rule.max_rows is None:
            raise DataError(
                f"{self.name}: {num_values:,} values are over int32 ids; raise --min-count or set --max-rows"
            )
        ranked = RankedValues(storage.join(self.folder, self.name), num_values=num_values, dtype=dtype)
        lookup = LookupWriter(
            storage.join(self.folder, f"{self.name}.lookup"), num_values=num_values, value_bits=self.value_bits
        )
        rank = by_count if self.rule.order == "count" else by_first_row
        for counted, ranks in rank(stream, ranked):
            lookup.append(counted.mixed, self.rule.lookup_ids(ranks, counted.mixed, num_values=num_values))
        stream.remove()
        sha256 = self._write(ranked, num_values=num_values)
        ranked.remove()
        rows = self.rule.table_rows(num_values)
        tell(0, num_values)
        return Dictionary(name=self.name, num_values=num_values, rows=rows, sha256=sha256, lookup=lookup.close())

    def _write(self, ranked: RankedValues, *, num_values: int) -> str:
        """Writes value, id, count (and text) in the order of the ranks; gives the sha256 of values and ids."""
        rows = self.rule.table_rows(num_values)
        digest = _Digest(self.name, num_values=num_values, rows=rows, value_bits=self.value_bits)
        fields = [("value", pa.int64()), ("id", pa.int32()), ("count", pa.int64())]
        schema = pa.schema(fields + [("text", pa.string())] * bool(self.texts))
        with storage.open_file(self.output, "wb") as file, pq.ParquetWriter(file, schema) as writer:
            for start in range(0, num_values, CHUNK):
                values, counts = ranked.get(start, min(start + CHUNK, num_values))
                ranks = np.arange(start, start + len(values))
                ids = self.rule.ids(ranks, mix(values), num_values=num_values)
                signed = values.astype(np.int64) if self.value_bits == 32 else values.view(np.int64)
                digest.add(signed, ids)
                columns = [signed, ids, counts]
                if self.texts:
                    columns.append(pa.array(_texts_of(signed, self.texts), pa.string()))
                writer.write_table(pa.table(columns, schema=schema))
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class SavedDictionaryJob:
    """Makes the lookup table of a saved dictionary anew; sent to a worker process."""

    name: str
    saved: str  # the Parquet file
    rows: int
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
                sha256 = self._sha256(source, num_values=num_values)
                num_ranges = max(1, -(-num_values * 64 // self.memory_bytes))
                edges = [(number << self.value_bits) // num_ranges for number in range(num_ranges + 1)]
                for low, high in zip(edges, edges[1:], strict=False):
                    self._append_range(source, writer, low=low, high=high)
        except (OSError, IndexError, pa.ArrowException) as error:
            raise DataError(f"{self.saved}: not a readable dictionary ({error}); prepare its data again") from error
        tell(0, num_values)
        return Dictionary(name=self.name, num_values=num_values, rows=self.rows, sha256=sha256, lookup=writer.close())

    def _sha256(self, source: pq.ParquetFile, *, num_values: int) -> str:
        """As it was when the dictionary was made: equal exactly when every value has the same id."""
        digest = _Digest(self.name, num_values=num_values, rows=self.rows, value_bits=self.value_bits)
        for batch in source.iter_batches(batch_size=CHUNK, columns=["value", "id"]):
            digest.add(batch.column(0).to_numpy(), batch.column(1).to_numpy())
        return digest.hexdigest()

    def _append_range(self, source: pq.ParquetFile, writer: LookupWriter, *, low: int, high: int) -> None:
        mixed_pieces, id_pieces = [], []
        for batch in source.iter_batches(batch_size=CHUNK, columns=["value", "id"]):
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


def _texts_of(values: NDArray[np.int64], paths: Sequence[str]) -> list[str | None]:
    """The texts that values stand for; a piece's file at a time, so that no more than these are held."""
    order = np.argsort(values)
    ordered = values[order]
    found: list[str | None] = [None] * len(values)
    for path in paths:
        with storage.open_file(path, "rb") as file:
            table = pq.read_table(file)
        known = table["value"].to_numpy()
        places = np.minimum(np.searchsorted(ordered, known), len(ordered) - 1)
        hits = np.flatnonzero(ordered[places] == known)
        for place, text in zip(order[places[hits]].tolist(), table["text"].take(hits).to_pylist(), strict=True):
            found[place] = text
    return found


class _Digest:
    """The sha256 of one dictionary: its name, size, values and ids, whatever the lengths they come in."""

    def __init__(self, name: str, *, num_values: int, rows: int, value_bits: int) -> None:
        head = f"{name} {num_values} {rows}\n".encode()
        self._values, self._ids = hashlib.sha256(head), hashlib.sha256()
        self._dtype = "<u4" if value_bits == 32 else "<i8"

    def add(self, values: NDArray[np.int64], ids: NDArray[np.int32]) -> None:
        self._values.update(values.astype(self._dtype).tobytes())
        self._ids.update(ids.astype("<i4").tobytes())

    def hexdigest(self) -> str:
        return hashlib.sha256(self._values.digest() + self._ids.digest()).hexdigest()


def combined_sha256(parts: Sequence[str]) -> str:
    """One hex sha256 over all features' in order: equal exactly when every value has the same id."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
