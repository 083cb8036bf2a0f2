"""ParquetTable: tables in Parquet files; a piece is a row group, a line is a row."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from configs.errors import DataError
from configs.table_schema import TableSchema
from trainer import storage
from trainer.data.preparing.parsed import BadLine, Layout, ParsedRows
from trainer.data.preparing.text_files import SHOWN_BYTES
from trainer.data.tables.table_columns import TableColumns

BLOCK_ROWS = 1 << 17

_NOT_UTF8 = "not UTF-8 text"
_OTHER_SCALARS = (pl.String, pl.Binary, pl.Boolean, pl.Categorical, pl.Enum, pl.Date, pl.Datetime, pl.Null)


@dataclass(frozen=True, kw_only=True)
class ParquetBlock:
    """Rows of a row group."""

    frame: pl.DataFrame

    @property
    def num_lines(self) -> int:
        """Rows."""
        return self.frame.height

    @property
    def fault(self) -> BadLine | None:
        """None: a file that cannot be read is an error."""
        return None


@dataclass(frozen=True)
class ParquetTable:
    """The Parquet files of a table.

    Args:
        schema: What their columns are; its format is parquet.
        has_labels: Whether the label is read, where the schema names one.
        block_rows: Rows that are parsed at a time.
    """

    schema: TableSchema
    has_labels: bool = True
    block_rows: int = BLOCK_ROWS

    @property
    def layout(self) -> Layout:
        """What the rows hold."""
        return self._columns.layout

    def as_dict(self) -> dict[str, Any]:
        """As a manifest keeps it."""
        return self._columns.as_dict()

    def columns(self, path: str) -> tuple[str, ...]:
        """All columns of a file, in order.

        Raises:
            DataError: unreadable, or a column of the schema is not there or of a type that holds no values.
        """
        with _opened(path) as file:
            return self._checked(path, file.schema_arrow)

    def columns_there(self, path: str) -> tuple[str, ...]:
        """All columns of a file, in order, whether the schema's are among them or not.

        Raises:
            DataError: unreadable.
        """
        with _opened(path) as file:
            return tuple(file.schema_arrow.names)

    def about_num_rows(self, path: str) -> int:
        """The rows of a file, good and bad.

        Raises:
            DataError: unreadable.
        """
        with _opened(path) as file:
            return int(file.metadata.num_rows)

    def num_pieces(self, path: str) -> int | None:
        """Row groups.

        Raises:
            DataError: no such file, not Parquet, or a column of the schema is not there or of a type that holds none.
        """
        with _opened(path) as file:
            self._checked(path, file.schema_arrow)
            if not file.metadata.num_rows:
                raise DataError(f"{path}: holds no rows; remove it from the inputs or make it again")
            return int(file.num_row_groups)

    def blocks(
        self, path: str, *, first_piece: int, done: frozenset[int]
    ) -> Iterator[tuple[int, int, ParquetBlock | None]]:
        """As `InputFormat.blocks`."""
        with _opened(path) as file:
            self._checked(path, file.schema_arrow)
            num_rows, num_bytes = 0, storage.num_bytes(path)
            batches = file.iter_batches(
                batch_size=self.block_rows, row_groups=[first_piece], columns=list(self._columns.names)
            )
            for batch in batches:
                batch.validate(full=True)  # of texts whether they are UTF-8, which the next step takes for granted
                num_rows += batch.num_rows
                frame = pl.DataFrame(pl.from_arrow(batch))
                yield first_piece, num_bytes * num_rows // file.metadata.num_rows, ParquetBlock(frame=frame)
            yield first_piece, num_bytes * num_rows // file.metadata.num_rows, None

    def parse(self, block: ParquetBlock) -> ParsedRows:
        """The rows of a block; those that are none are in `bad`."""
        texts, undecodable = _texts(block.frame)
        rows = np.flatnonzero(~undecodable)
        bad = tuple(
            BadLine(line=row, reason=_NOT_UTF8, detail="", text=_shown(block.frame, row))
            for row in np.flatnonzero(undecodable).tolist()
        )
        parsed = self._columns.parse(texts[rows], lines=rows, line_text=lambda row: _shown(block.frame, row))
        return dataclasses.replace(parsed, bad=tuple(sorted([*bad, *parsed.bad], key=lambda fault: fault.line)))

    @cached_property
    def _columns(self) -> TableColumns:
        return TableColumns(self.schema, has_labels=self.has_labels)

    def _checked(self, path: str, schema: pa.Schema) -> tuple[str, ...]:
        self._columns.check(path, schema.names)
        for name, kind in pl.DataFrame(pl.from_arrow(schema.empty_table())).schema.items():
            if name in self._columns.names and not _holds_values(kind, lists=name in self._columns.may_be_lists):
                wanted = "single values, or lists of them," if name in self._columns.may_be_lists else "single values"
                raise DataError(f"{path}: column {name!r} holds {kind}, not {wanted} of text, numbers or times")
        return tuple(schema.names)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file.

    Raises:
        DataError: no such file, or one that cannot be read.
    """
    if not storage.is_file(path):
        raise DataError(f"{path}: {'is a folder, not a file' if storage.exists(path) else 'no such file'}")
    try:
        with storage.open_file(path, "rb") as file:
            yield pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({error}); fetch or make it again") from error


def _holds_values(kind: pl.DataType, *, lists: bool) -> bool:
    if isinstance(kind, pl.List):
        return lists and _holds_values(kind.inner, lists=False) and kind.inner != pl.Binary  # type: ignore[arg-type]
    return kind.is_numeric() or kind in _OTHER_SCALARS


def _texts(frame: pl.DataFrame) -> tuple[pl.DataFrame, NDArray[np.bool_]]:
    """All columns as texts or lists of texts, and which rows, bool [R], hold bytes that are none."""
    columns = []
    undecodable = np.zeros(frame.height, np.bool_)
    for column in frame:
        kind = column.dtype
        if isinstance(kind, pl.List):
            columns.append(column.cast(pl.List(pl.String)))
        elif isinstance(kind, pl.Datetime):
            columns.append(column.dt.to_string("%Y-%m-%d %H:%M:%S%.f"))
        elif kind == pl.Binary:
            texts = pl.Series(column.name, [_decoded(value) for value in column.to_list()], pl.String)
            undecodable |= (texts.is_null() & column.is_not_null()).to_numpy()
            columns.append(texts)
        else:
            columns.append(column.cast(pl.String))
    return pl.DataFrame(columns), undecodable


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _shown(frame: pl.DataFrame, row: int) -> bytes:
    """A row as text, shortened."""
    values = ", ".join("" if value is None else str(value) for value in frame.row(row))
    return values.encode()[:SHOWN_BYTES]
