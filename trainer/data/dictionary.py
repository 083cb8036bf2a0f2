"""The dictionary of a categorical feature: which value has which id.

Ids: 0 missing, 1 rare or unseen, values from 2 by descending count, ties by value; so a dictionary is a function of the
counted values alone, whatever their order.

Legend: K values kept, N rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from configs.errors import DataError
from trainer import storage
from trainer.data.manifest import FIRST_VALUE_ID, MISSING_ID, RARE_ID

_MAX_ROWS = 2**31 - 1  # ids are int32
_PENDING_VALUES = 1 << 19


@dataclass(frozen=True, kw_only=True)
class Dictionary:
    """The kept values in the order of their ids, which begin at 2."""

    values: np.ndarray  # uint32 [K]
    counts: np.ndarray  # int64 [K]

    @property
    def rows(self) -> int:
        """Rows of the feature's table: missing, rare, and one for each kept value."""
        return FIRST_VALUE_ID + len(self.values)

    @cached_property
    def _by_value(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.values, kind="stable")
        return self.values[order], (order + FIRST_VALUE_ID).astype(np.int32)

    def ids_of(self, values: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """Ids int32 [N] of values uint32 [N]; `missing` bool [N] says where there is none."""
        if len(self.values):
            known, known_ids = self._by_value
            place = np.minimum(np.searchsorted(known, values), len(known) - 1)
            ids = np.where(known[place] == values, known_ids[place], np.int32(RARE_ID))
        else:
            ids = np.full(len(values), RARE_ID, np.int32)
        ids[missing] = MISSING_ID
        return ids

    def write(self, path: str) -> None:
        """Writes a Parquet file with columns value int64, id int32, count int64."""
        ids = np.arange(FIRST_VALUE_ID, self.rows, dtype=np.int32)
        frame = pl.DataFrame({"value": self.values.astype(np.int64), "id": ids, "count": self.counts})
        with storage.open_file(path, "wb") as file:
            frame.write_parquet(file)

    @staticmethod
    def read(path: str) -> Dictionary:
        """Reads what `write` wrote.

        Raises:
            DataError: no such file, or not a dictionary.
        """
        try:
            with storage.open_file(path, "rb") as file:
                frame = pl.read_parquet(file, columns=["value", "id", "count"])
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(f"{path}: not a readable dictionary ({error}); prepare the data again") from error
        ids = frame["id"].to_numpy()
        values = frame["value"].to_numpy()
        whole = np.array_equal(ids, np.arange(FIRST_VALUE_ID, FIRST_VALUE_ID + len(ids)))
        if not whole or ((values < 0) | (values >= 2**32)).any():
            raise DataError(f"{path}: ids or values are not those of a dictionary; prepare the data again")
        return Dictionary(values=values.astype(np.uint32), counts=frame["count"].to_numpy().astype(np.int64))


class ValueCounter:
    """Counts the values of one feature, block by block, in memory of the order of its distinct values."""

    def __init__(self) -> None:
        self._values = np.empty(0, np.uint32)
        self._counts = np.empty(0, np.int64)
        self._pending: list[tuple[np.ndarray, np.ndarray]] = []
        self._num_pending = 0

    def add(self, values: np.ndarray) -> None:
        """Counts values uint32 [N]; missing ones are left out by the caller."""
        distinct, counts = np.unique(values, return_counts=True)
        self._pending.append((distinct, counts))
        self._num_pending += len(distinct)
        # Merging only when as much is pending as is known keeps the total work near linear.
        if self._num_pending > max(_PENDING_VALUES, len(self._values)):
            self._merge()

    def dictionary(self, *, min_count: int) -> Dictionary:
        """The dictionary of the values seen at least `min_count` times.

        Raises:
            DataError: more values than int32 ids.
        """
        self._merge()
        kept = self._counts >= min_count
        values, counts = self._values[kept], self._counts[kept]
        if FIRST_VALUE_ID + len(values) > _MAX_ROWS:
            raise DataError(f"min_count: {min_count} keeps {len(values):,} values, over int32 ids; raise it")
        order = np.lexsort((values, -counts))
        return Dictionary(values=values[order], counts=counts[order])

    def _merge(self) -> None:
        if not self._pending:
            return
        values = np.concatenate([self._values, *(values for values, _ in self._pending)])
        counts = np.concatenate([self._counts, *(counts for _, counts in self._pending)])
        self._pending, self._num_pending = [], 0
        if not len(values):
            return
        order = np.argsort(values, kind="stable")
        values, counts = values[order], counts[order]
        starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
        self._values, self._counts = values[starts], np.add.reduceat(counts, starts)


def dictionary_sha256(dictionaries: Mapping[str, Dictionary]) -> str:
    """One hex sha256 over all dictionaries: equal exactly when every value has the same id.

    For each feature in order: its name and number of values as a line of UTF-8 text, then the values in the order of
    their ids as little-endian 32-bit numbers. The Parquet files' own bytes would depend on their writer's version.
    """
    digest = hashlib.sha256()
    for name, dictionary in dictionaries.items():
        digest.update(f"{name} {len(dictionary.values)}\n".encode())
        digest.update(dictionary.values.astype("<u4").tobytes())
    return digest.hexdigest()
