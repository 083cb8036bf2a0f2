"""CriteoFormat: the click log's lines, parsed in blocks; a line that is no row becomes a BadLine.

Legend: N rows of a block.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from configs.errors import DataError
from trainer.data.criteo import (
    DENSE_NAMES,
    DENSE_TRANSFORM,
    NUMERIC_ID_NAMES,
    NUMERIC_ID_ROWS,
    NUMERIC_IDS_TRANSFORM,
    SPARSE_NAMES,
    numeric_ids,
    signed_log1p,
)
from trainer.data.preparing.parsed import BadLine, Layout, NumericIds, ParsedRows, no_rows
from trainer.data.preparing.text_files import PIECE_BYTES, SHOWN_BYTES, TextBlock, TextFile, count_byte

Tokens = Literal["hex", "int"]
Numerics = Literal["dense", "ids", "both", "raw"]

_INTEGER = re.compile(rb"-?[0-9]+")
_HEX = re.compile(rb"[0-9a-fA-F]{1,8}")
_NAMES = (*DENSE_NAMES, *SPARSE_NAMES)
_MARK = b"\xef\xbb\xbf"  # some editors begin UTF-8 files with it
RAW_TRANSFORM = "raw"


@dataclass(frozen=True, kw_only=True)
class CriteoFormat:
    """Click logs in the Criteo layout.

    Args:
        tokens: hex: categoricals of up to 8 hex digits; int: integers of 64 bits.
        numerics: dense: transformed; ids: discretised; both; raw: int32 with missing 0, transformed on writing.
        has_labels: Whether a line begins with a label.
        piece_bytes: Size of the pieces of a file.
    """

    tokens: Tokens = "hex"
    numerics: Numerics = "dense"
    has_labels: bool = True
    piece_bytes: int = PIECE_BYTES

    @property
    def layout(self) -> Layout:
        """What the rows hold."""
        with_ids = self.numerics in ("ids", "both")
        transform = RAW_TRANSFORM if self.numerics == "raw" else DENSE_TRANSFORM
        return Layout(
            dense=() if self.numerics == "ids" else tuple((name, transform) for name in DENSE_NAMES),
            ids=SPARSE_NAMES,
            value_bits=32 if self.tokens == "hex" else 64,
            numeric_ids=tuple(
                NumericIds(name=name, rows=NUMERIC_ID_ROWS, transform=NUMERIC_IDS_TRANSFORM)
                for name in NUMERIC_ID_NAMES * with_ids
            ),
            has_labels=self.has_labels,
        )

    def as_dict(self) -> dict[str, Any]:
        """As a manifest keeps it."""
        return {"format": "criteo_tsv", "tokens": self.tokens, "numerics": self.numerics, "labels": self.has_labels}

    def num_pieces(self, path: str) -> int | None:
        """Pieces of a plain file; None of a gzip file.

        Raises:
            DataError: no such file, or its first line has a label where others have none, or the reverse.
        """
        file = TextFile(path, piece_bytes=self.piece_bytes)
        number = file.num_pieces()
        labelled = first_line_has_label(path)
        if labelled is not None and labelled != self.has_labels:
            there, wanted = ("a label", "none") if labelled else ("no label", "one")
            raise DataError(f"{path}: its first line has {there}, but {wanted} is expected; prepare such files apart")
        return number

    def about_num_rows(self, path: str) -> int:
        """How many rows a log may have, going by its beginning.

        Raises:
            DataError: unreadable.
        """
        return TextFile(path).about_num_lines()

    def blocks(
        self, path: str, *, first_piece: int, done: frozenset[int]
    ) -> Iterator[tuple[int, int, TextBlock | None]]:
        """As `InputFormat.blocks`."""
        return TextFile(path, piece_bytes=self.piece_bytes).blocks(first_piece=first_piece, done=done)

    def parse(self, block: TextBlock) -> ParsedRows:
        """The rows of a block; lines that are none are in `bad`."""
        data = block.data.replace(b"\r\n", b"\n") if b"\r" in block.data else block.data
        num_tabs = len(_NAMES) - 1 + self.has_labels
        frame = None
        # Only a sum over the block: the reader refuses lines with more fields, so none can have fewer.
        strange = b"\0" in data or b"\r" in data or data.startswith(_MARK)  # some of which the reader takes away
        if not strange and count_byte(data, b"\t") == num_tabs * block.num_lines:
            frame = self._read(data, num_lines=block.num_lines)
        if frame is None:
            return self._parse_without_bad_lines(data)
        columns = self._columns(frame, plus_signs=b"+" in data)
        if columns.bad is None:
            return self._rows(columns)
        return self._parse_without_bad_lines(data, suspects=np.flatnonzero(columns.bad))

    def _read(self, data: bytes, *, num_lines: int) -> pl.DataFrame | None:
        names = ["label", *_NAMES] if self.has_labels else list(_NAMES)
        try:
            frame = pl.read_csv(
                data, separator="\t", has_header=False, quote_char=None, schema=dict.fromkeys(names, pl.String)
            )
        except pl.exceptions.PolarsError:
            return None
        return frame if frame.height == num_lines else None

    def _columns(self, frame: pl.DataFrame, *, plus_signs: bool) -> _Columns:
        dense = frame.select(pl.col(DENSE_NAMES).cast(pl.Int32 if self.numerics == "raw" else pl.Int64, strict=False))
        if self.tokens == "hex":
            parsed = pl.col(SPARSE_NAMES).str.to_integer(base=16, dtype=pl.UInt32, strict=False)
        else:
            parsed = pl.col(SPARSE_NAMES).cast(pl.Int64, strict=False)
        sparse = frame.select(parsed)
        label = frame["label"].is_in(["0", "1"]).fill_null(False) if self.has_labels else None
        bad: NDArray[np.bool_] | None = None
        if label is not None and not label.all():
            bad = ~label.to_numpy()
        for after in (*dense, *sparse):
            before = frame[after.name]
            wrong = None
            if after.null_count() != before.null_count():
                wrong = (after.is_null() & before.is_not_null()).to_numpy()
            if plus_signs:  # which the number parsers let pass
                plus = before.str.starts_with("+").fill_null(False).to_numpy()
                wrong = plus if wrong is None else wrong | plus
            if wrong is not None:
                bad = wrong if bad is None else bad | wrong
        if self.tokens == "hex":
            lengths = frame.select(pl.col(SPARSE_NAMES).str.len_bytes())
            for length in lengths:
                if (length.max() or 0) > 8:  # type: ignore[operator]
                    long = (length > 8).fill_null(False).to_numpy()
                    bad = long if bad is None else bad | long
        labels = None if label is None else (frame["label"] == "1").to_numpy()
        return _Columns(labels=labels, dense=dense, sparse=sparse, bad=bad if bad is not None and bad.any() else None)

    def _parse_without_bad_lines(self, data: bytes, *, suspects: NDArray[np.int64] | None = None) -> ParsedRows:
        """Takes the bad lines out, one by one, and parses the rest; `suspects`: the lines to look at, else all."""
        lines = data.split(b"\n")[:-1]
        bad: dict[int, BadLine] = {}
        for number in range(len(lines)) if suspects is None else suspects.tolist():
            found = self._gross_fault(lines[number])
            if found is None and suspects is not None:
                found = self._fault(lines[number])
            if found is not None:
                reason, detail = found
                bad[number] = BadLine(line=number, reason=reason, detail=detail, text=lines[number][:SHOWN_BYTES])
        kept = [number for number in range(len(lines)) if number not in bad]
        rest = self._parse_kept([lines[number] for number in kept])
        moved = tuple(
            BadLine(line=kept[fault.line], reason=fault.reason, detail=fault.detail, text=fault.text)
            for fault in rest.bad
        )
        return dataclasses.replace(rest, bad=tuple(sorted([*bad.values(), *moved], key=lambda fault: fault.line)))

    def _parse_kept(self, lines: list[bytes]) -> ParsedRows:
        if not lines:
            return no_rows(self.layout)
        data = b"\n".join(lines) + b"\n"
        frame = self._read(data, num_lines=len(lines))
        assert frame is not None, "lines of the right number of ASCII fields were not read"
        columns = self._columns(frame, plus_signs=b"+" in data)
        if columns.bad is None:
            return self._rows(columns)
        return self._parse_without_bad_lines(data, suspects=np.flatnonzero(columns.bad))

    def _rows(self, columns: _Columns) -> ParsedRows:
        num_rows = columns.dense.height
        layout = self.layout
        # Column by column in memory: dictionaries and transforms work on columns.
        raw = np.empty((len(DENSE_NAMES), num_rows), np.int32 if self.numerics == "raw" else np.int64)
        raw_missing = _fill(raw, columns.dense)
        values = np.empty((len(SPARSE_NAMES), num_rows), np.uint32 if layout.value_bits == 32 else np.uint64)
        missing = _fill(values, columns.sparse)
        if self.numerics == "raw":
            dense = np.ascontiguousarray(raw.T)
        elif layout.dense:
            dense = np.ascontiguousarray(signed_log1p(raw, raw_missing).T)
        else:
            dense = np.empty((num_rows, 0), np.float32)
        return ParsedRows(
            num_rows=num_rows,
            labels=None if columns.labels is None else columns.labels.astype(np.int32),
            dense=dense,
            values=values,
            missing=missing,
            numeric_ids=np.ascontiguousarray(numeric_ids(raw, raw_missing).T) if layout.numeric_ids else None,
        )

    def _gross_fault(self, line: bytes) -> tuple[str, str] | None:
        """What keeps the reader from reading the line at all."""
        if b"\0" in line:
            return "a NUL byte", "the file is damaged there"
        if b"\r" in line:
            return "a carriage return", "before the end of the line"
        wanted = len(_NAMES) + self.has_labels
        found = line.count(b"\t") + 1
        if found != wanted:
            return f"not {wanted} fields", f"{found} field{'s' * (found > 1)}"
        if not line.isascii():
            return "not ASCII text", _shown(line)
        return None

    def _fault(self, line: bytes) -> tuple[str, str]:
        fields = line.split(b"\t")
        if self.has_labels and fields.pop(0) not in (b"0", b"1"):
            return "label not 0 or 1", _shown(line.split(b"\t", 1)[0])
        limit = 2**31 if self.numerics == "raw" else 2**63
        for name, field in zip(_NAMES, fields, strict=True):
            integer = name in DENSE_NAMES or self.tokens == "int"
            if field and integer and not _INTEGER.fullmatch(field):
                return f"{name} not an integer", _shown(field)
            if field and integer and not _within(field, limit):
                return f"{name} beyond {limit.bit_length()} bits", _shown(field)
            if field and not integer and not _HEX.fullmatch(field):
                hint = "; integers need --tokens int" * bool(_INTEGER.fullmatch(field))
                return f"{name} not 1 to 8 hex digits", _shown(field) + hint
        raise AssertionError(f"no fault found in {line!r}")


@dataclass(frozen=True, kw_only=True)
class _Columns:
    labels: NDArray[np.bool_] | None
    dense: pl.DataFrame
    sparse: pl.DataFrame
    bad: NDArray[np.bool_] | None  # [N]; None: all are good


def first_line_has_label(path: str) -> bool | None:
    """Whether a log's first line has 40 fields rather than 39; None where it has neither number.

    Raises:
        DataError: unreadable.
    """
    return _line_has_label(TextFile(path).first_line())


def first_lines_have_label(path: str) -> bool | None:
    """The same of the first line that has either number, among those that a log begins with; None: none has.

    Raises:
        DataError: unreadable.
    """
    found = (_line_has_label(line) for line in TextFile(path).beginning().data.split(b"\n"))
    return next((labelled for labelled in found if labelled is not None), None)


def _line_has_label(line: bytes) -> bool | None:
    return {len(_NAMES): True, len(_NAMES) - 1: False}.get(line.count(b"\t"))


def _fill(into: NDArray, columns: pl.DataFrame) -> NDArray[np.bool_]:
    """Writes the columns as rows of `into`, 0 where null; gives where they are null."""
    missing = np.zeros(into.shape, bool)
    for place, column in enumerate(columns):
        if column.null_count():
            missing[place] = column.is_null().to_numpy()
            column = column.fill_null(0)
        into[place] = column.to_numpy()
    return missing


def _within(integer: bytes, limit: int) -> bool:
    """Whether it is from -limit to limit - 1; of digits without end Python reads none."""
    digits = integer.lstrip(b"-").lstrip(b"0") or b"0"
    return len(digits) < 20 and -limit <= int(digits) * (-1 if integer.startswith(b"-") else 1) < limit


def _shown(field: bytes) -> str:
    text = field.decode(errors="backslashreplace")
    return repr(text if len(text) <= 40 else text[:40] + "...")
