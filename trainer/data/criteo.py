"""The Criteo click log: its 40 fields, and its lines read and parsed in blocks.

A line is a label (0 or 1), 13 integers I1..I13 and 26 categoricals C1..C26 as 32-bit hashes in hex text, separated by
tabs; an empty field is a missing value; there is no header and the lines are in time order.

Legend: N rows of a block.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, NoReturn

import numpy as np
import polars as pl

from configs.errors import DataError
from trainer import storage
from trainer.data.manifest import FeatureSpec

NUM_DENSE = 13
NUM_SPARSE = 26
NUM_FIELDS = 1 + NUM_DENSE + NUM_SPARSE
DENSE_NAMES = tuple(f"I{number}" for number in range(1, NUM_DENSE + 1))
SPARSE_NAMES = tuple(f"C{number}" for number in range(1, NUM_SPARSE + 1))
DENSE_FILE = "dense"
SPARSE_FILE = "sparse"
DENSE_TRANSFORM = "signed_log1p"
BLOCK_BYTES = 32 << 20

_GZIP_MAGIC = b"\x1f\x8b"
_ALLOWED_BYTES = b"0123456789abcdefABCDEF-\t\n"
_INTEGER = re.compile(rb"-?[0-9]+")
_HEX = re.compile(rb"[0-9a-fA-F]{1,8}")
_LAYOUT = "a label, 13 integers and 26 categoricals, separated by tabs"


def feature_specs(table_rows: Sequence[int]) -> tuple[FeatureSpec, ...]:
    """The 39 features of prepared Criteo data; `table_rows` has one number for each of C1..C26."""
    dense = (
        FeatureSpec(name=name, kind="dense", file=DENSE_FILE, column=column, transform=DENSE_TRANSFORM)
        for column, name in enumerate(DENSE_NAMES)
    )
    sparse = (
        FeatureSpec(name=name, kind="id", file=SPARSE_FILE, column=column, rows=int(rows))
        for column, (name, rows) in enumerate(zip(SPARSE_NAMES, table_rows, strict=True))
    )
    return (*dense, *sparse)


def signed_log1p(raw: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """sign(x) * ln(1 + |x|) as float32, 0.0 where missing; both arguments of one shape."""
    wide = raw.astype(np.float64)
    dense = np.sign(wide) * np.log1p(np.abs(wide))
    dense[missing] = 0.0
    return dense.astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class LogRows:
    """Parsed rows; where a value is missing, its place holds 0."""

    labels: np.ndarray  # int32 [N]
    dense_raw: np.ndarray  # int64 [N, 13]
    dense_missing: np.ndarray  # bool [N, 13]
    values: np.ndarray  # uint32 [N, 26]
    value_missing: np.ndarray  # bool [N, 26]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def dense(self) -> np.ndarray:
        """The integers as models see them: float32 [N, 13]."""
        return signed_log1p(self.dense_raw, self.dense_missing)


@dataclass(frozen=True, kw_only=True)
class LogBlock:
    """Whole lines of a log, each ending in a newline."""

    path: str
    first_line: int  # counted from 1
    num_lines: int
    data: bytes

    def parse(self) -> LogRows:
        """The block's rows.

        Raises:
            DataError: a line is not of the log's format; names file, line and reason.
        """
        if self.data.translate(None, _ALLOWED_BYTES) or not self._has_all_fields:
            self._refuse()
        try:
            frame = _read_fields(self.data)
        except pl.exceptions.PolarsError as error:
            self._refuse(str(error).splitlines()[0])
        if frame is None or frame.height != self.num_lines:
            self._refuse()
        rows = _rows_of(frame)
        # A minus sign that is not in front of a negative integer is rare enough to look at the lines one by one.
        if rows is None or self.data.count(b"-") != int((rows.dense_raw < 0).sum()):
            self.check_lines()
        if rows is None:
            self._refuse()
        return rows

    def check(self) -> None:
        """A quick look without parsing: characters and number of fields over the whole block.

        Raises:
            DataError: as `parse`.
        """
        if self.data.translate(None, _ALLOWED_BYTES) or not self._has_all_fields:
            self._refuse()

    def check_lines(self) -> None:
        """Goes over the lines one by one, slowly.

        Raises:
            DataError: names the first line that is not of the log's format.
        """
        for number, line in enumerate(self.data.split(b"\n")[:-1], start=self.first_line):
            reason = _reason_against(line)
            if reason:
                raise DataError(f"{self.path}, line {number}: {reason}; correct or remove the line and run again")

    @property
    def _has_all_fields(self) -> bool:
        # A sum over the block: the parser refuses lines with more fields, so none can have fewer.
        return self.data.count(b"\t") == (NUM_FIELDS - 1) * self.num_lines

    def _refuse(self, reason: str = "not in the format of the Criteo log") -> NoReturn:
        self.check_lines()
        last = self.first_line + self.num_lines - 1
        raise DataError(f"{self.path}, lines {self.first_line} to {last}: {reason}; each line needs {_LAYOUT}")


def _read_fields(data: bytes) -> pl.DataFrame | None:
    schema: dict[str, Any] = {"label": pl.String}
    schema |= {name: pl.Int64 for name in DENSE_NAMES}
    schema |= {name: pl.String for name in SPARSE_NAMES}
    frame = pl.read_csv(data, separator="\t", has_header=False, quote_char=None, schema=schema)
    sparse = frame.select(SPARSE_NAMES)
    if any((column.str.len_bytes().max() or 0) > 8 for column in sparse):  # type: ignore[operator]
        return None
    parsed = sparse.select(pl.all().str.to_integer(base=16, dtype=pl.Int64, strict=True))
    return frame.with_columns(parsed)


def _rows_of(frame: pl.DataFrame) -> LogRows | None:
    labels = frame["label"]
    if labels.null_count() or not labels.is_in(["0", "1"]).all():
        return None
    num_rows = frame.height
    # Column by column in memory: dictionaries and transforms work on columns.
    dense_raw = np.empty((NUM_DENSE, num_rows), np.int64)
    dense_missing = np.empty((NUM_DENSE, num_rows), bool)
    values = np.empty((NUM_SPARSE, num_rows), np.uint32)
    value_missing = np.empty((NUM_SPARSE, num_rows), bool)
    for raw, missing, names in ((dense_raw, dense_missing, DENSE_NAMES), (values, value_missing, SPARSE_NAMES)):
        for column, name in enumerate(names):
            missing[column] = frame[name].is_null().to_numpy()
            raw[column] = frame[name].fill_null(0).to_numpy()
    return LogRows(
        labels=(labels == "1").to_numpy().astype(np.int32),
        dense_raw=dense_raw.T,
        dense_missing=dense_missing.T,
        values=values.T,
        value_missing=value_missing.T,
    )


def _shown(field: bytes) -> str:
    text = field.decode(errors="replace")
    return repr(text if len(text) <= 40 else text[:40] + "...")


def _reason_against(line: bytes) -> str | None:
    if b"\0" in line:
        return "it holds a NUL byte, so the file is damaged"
    fields = line.split(b"\t")
    if len(fields) != NUM_FIELDS:
        few = f"{len(fields)} fields" if len(fields) > 1 else "1 field"
        return f"{few} where {NUM_FIELDS} are needed ({_LAYOUT})"
    if fields[0] not in (b"0", b"1"):
        return f"the label is {_shown(fields[0])}, not 0 or 1"
    for name, field in zip(DENSE_NAMES, fields[1 : 1 + NUM_DENSE], strict=True):
        if field and not _INTEGER.fullmatch(field):
            return f"{name} is {_shown(field)}, not an integer"
        if field and not -(2**63) <= int(field) < 2**63:
            return f"{name} is {_shown(field)}, beyond 64 bits"
    for name, field in zip(SPARSE_NAMES, fields[1 + NUM_DENSE :], strict=True):
        if field and not _HEX.fullmatch(field):
            return f"{name} is {_shown(field)}, not 1 to 8 hex digits"
    return None


class LogFile:
    """A log being read, plain or gzip, as blocks of whole lines; never unpacked to disk.

    Windows line ends and a missing last newline are taken as they are meant.
    """

    def __init__(self, path: str, *, block_bytes: int = BLOCK_BYTES) -> None:
        self.path = path
        self.num_bytes_read = 0  # of the file as it lies there, compressed or not
        self._block_bytes = block_bytes
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Hex sha256 of the bytes read so far: of the file, once `blocks` is exhausted."""
        return self._digest.hexdigest()

    def blocks(self) -> Iterator[LogBlock]:
        """The file from its beginning to its end.

        Raises:
            DataError: missing or unreadable, empty, damaged gzip, or a line beyond the block size.
        """
        self.num_bytes_read = 0
        self._digest = hashlib.sha256()
        line = 1
        try:
            with storage.open_file(self.path, "rb") as file:
                for data in self._cut(self._unpacked(file)):
                    num_lines = data.count(b"\n")
                    yield LogBlock(path=self.path, first_line=line, num_lines=num_lines, data=data)
                    line += num_lines
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"{self.path}: damaged or cut-off gzip file, at line {line} or later ({error}); fetch it again"
            ) from error
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror or error})") from error
        if line == 1:
            raise DataError(f"{self.path}: holds no line; remove it from the inputs or fetch it again")

    def read(self, size: int = -1) -> bytes:
        """Raw bytes of the open file, counted and hashed on their way (what gzip reads from)."""
        data: bytes = self._file.read(size)
        self.num_bytes_read += len(data)
        self._digest.update(data)
        return data

    def _unpacked(self, file: IO[bytes]) -> IO[bytes] | LogFile:
        self._file = file
        magic = file.read(len(_GZIP_MAGIC))
        file.seek(0)
        if magic == _GZIP_MAGIC:
            return gzip.GzipFile(fileobj=self, mode="rb")  # type: ignore[call-overload]
        if self.path.endswith(".gz") and magic:
            raise DataError(f"{self.path}: is named .gz but is not a gzip file; rename it or fetch it again")
        return self

    def _cut(self, stream: IO[bytes] | LogFile) -> Iterator[bytes]:
        rest = b""
        while chunk := stream.read(self._block_bytes):
            data = rest + chunk
            end = data.rfind(b"\n") + 1
            if not end and len(data) >= self._block_bytes:
                raise DataError(f"{self.path}: a line of over {self._block_bytes:,} bytes; this is not a click log")
            rest = data[end:]
            if end:
                yield _unix_lines(data[:end])
        if rest:
            yield _unix_lines(rest + b"\n")


def _unix_lines(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n") if b"\r" in data else data
