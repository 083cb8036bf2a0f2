"""CsvTable: tables in CSV files, plain or gzip, with columns found by their names."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from configs.errors import DataError
from configs.table_schema import TableSchema
from trainer.data.preparing.parsed import BadLine, Layout, ParsedRows, no_rows
from trainer.data.preparing.text_files import PIECE_BYTES, TextBlock, TextFile
from trainer.data.tables.table_columns import TableColumns
from trainer.data.tables.table_lines import check_lines


@dataclass(frozen=True, kw_only=True)
class CsvBlock:
    """Lines of a file and that file's columns, in order."""

    text: TextBlock
    columns: tuple[str, ...]

    @property
    def num_lines(self) -> int:
        """Lines that are rows or bad."""
        return self.text.num_lines

    @property
    def fault(self) -> BadLine | None:
        """What was found in reading, if it is a single line that cannot be parsed."""
        return self.text.fault


@dataclass(frozen=True)
class CsvTable:
    """The CSV files of a table.

    Args:
        schema: What their columns are; its format is csv.
        has_labels: Whether the label is read; then the schema names one.
        piece_bytes: Size of the pieces of a file.
    """

    schema: TableSchema
    has_labels: bool = True
    piece_bytes: int = PIECE_BYTES

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
            DataError: unreadable, or a column of the schema is not there.
        """
        columns = self.columns_there(path)
        self._columns.check(path, columns)
        return columns

    def columns_there(self, path: str) -> tuple[str, ...]:
        """All columns of a file, in order, whether the schema's are among them or not.

        Raises:
            DataError: unreadable.
        """
        return self.schema.table.columns or self._header(path)

    def about_num_rows(self, path: str) -> int:
        """How many rows a file may have, going by its beginning.

        Raises:
            DataError: unreadable.
        """
        return self._file(path).about_num_lines()

    def num_pieces(self, path: str) -> int | None:
        """Pieces of a plain file; None of a gzip file.

        Raises:
            DataError: no such file, or a column of the schema is not there.
        """
        number = self._file(path).num_pieces()
        self.columns(path)
        return number

    def blocks(
        self, path: str, *, first_piece: int, done: frozenset[int]
    ) -> Iterator[tuple[int, int, CsvBlock | None]]:
        """As `InputFormat.blocks`; the header line is in none."""
        columns = self.columns(path)
        header_ahead = not self.schema.table.columns and first_piece == 0 and 0 not in done
        for piece, num_bytes, text in self._file(path).blocks(first_piece=first_piece, done=done):
            if header_ahead and text is not None:
                header_ahead = False
                text = TextBlock(data=text.data[text.data.index(b"\n") + 1 :], num_lines=text.num_lines - 1)
                if not text.num_lines:
                    continue
            yield piece, num_bytes, None if text is None else CsvBlock(text=text, columns=columns)

    def parse(self, block: CsvBlock) -> ParsedRows:
        """The rows of a block; lines that are none are in `bad`."""
        if block.fault is not None:
            return no_rows(self.layout, bad=(block.fault,))
        style = self.schema.table
        lines = check_lines(
            block.text.data, num_fields=len(block.columns), delimiter=style.delimiter, quote=style.quote
        )
        numbers = np.flatnonzero(lines.good)
        if not len(numbers):
            return no_rows(self.layout, bad=lines.bad)
        frame = self._read(lines.good_data, block.columns)
        assert frame.height == len(numbers), f"{len(numbers)} lines were read as {frame.height} rows"
        rows = self._columns.parse(frame, lines=numbers, line_text=lines.text)
        return dataclasses.replace(rows, bad=tuple(sorted([*lines.bad, *rows.bad], key=lambda bad: bad.line)))

    @cached_property
    def _columns(self) -> TableColumns:
        return TableColumns(self.schema, has_labels=self.has_labels)

    def _file(self, path: str) -> TextFile:
        return TextFile(path, piece_bytes=self.piece_bytes)

    def _header(self, path: str) -> tuple[str, ...]:
        """The names in a file's first line."""
        style = self.schema.table
        line = self._file(path).first_line()
        if not line.strip():
            raise DataError(
                f"{path}: its header line is empty or cannot be read; fetch it again, or give table.columns"
            )
        try:
            text = line.decode("utf-8-sig").removesuffix("\r")
        except UnicodeDecodeError:
            raise DataError(f"{path}: its header line is not UTF-8 text; give table.columns if it has none") from None
        quoting = {"quotechar": style.quote} if style.quote else {"quoting": csv.QUOTE_NONE}
        try:
            names = tuple(next(csv.reader([text], delimiter=style.delimiter, **quoting), ()))
        except csv.Error as error:
            raise DataError(f"{path}: its header line cannot be read ({error}); correct it") from None
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise DataError(f"{path}: its header names {doubled[0]!r} twice; correct it, or give table.columns")
        return names

    def _read(self, data: bytes, columns: Sequence[str]) -> pl.DataFrame:
        """The columns of the schema as texts, a row for each line."""
        style = self.schema.table
        return pl.read_csv(
            data,
            has_header=False,
            separator=style.delimiter,
            quote_char=style.quote if style.quote and style.quote.encode() in data else None,
            schema=dict.fromkeys(columns, pl.String),
            columns=[place for place, name in enumerate(columns) if name in self._columns.names],
            empty_string_is_null=False,
        )
