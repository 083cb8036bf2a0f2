"""Lines of CSV text: which of them are rows of a table, and what is wrong with the others.

Fields are as RFC 4180 has them, without line breaks inside quotes: a quote stands around a field or is a fault.

Legend: N lines.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.data.preparing.parsed import BadLine
from trainer.data.preparing.text_files import SHOWN_BYTES

EMPTY = "an empty line"
NUL_BYTE = "a NUL byte"
NOT_UTF8 = "not UTF-8 text"
CARRIAGE_RETURN = "a carriage return inside the line"
BYTE_ORDER_MARK = "a byte order mark"
UNBALANCED_QUOTES = "a quote that is not closed"
MISPLACED_QUOTE = "a quote inside a field"
FIELD_COUNT = "not as many fields as the table has columns"

_NEWLINE = ord("\n")
_RETURN = ord("\r")


@dataclass(frozen=True, kw_only=True)
class CsvLines:
    """A block of CSV text: the lines that can be read, and the bad ones."""

    data: bytes  # the whole block without carriage returns at the lines' ends
    stops: NDArray[np.int64]  # [N], where each line's newline stands
    good: NDArray[np.bool_]  # [N]
    bad: tuple[BadLine, ...]

    @property
    def good_data(self) -> bytes:
        """The good lines alone."""
        if self.good.all():
            return self.data
        lengths = np.diff(self.stops, prepend=-1)
        return np.frombuffer(self.data, np.uint8)[np.repeat(self.good, lengths)].tobytes()

    def text(self, line: int) -> bytes:
        """A line, shortened."""
        return _text(self.data, self.stops, line)


def check_lines(data: bytes, *, num_fields: int, delimiter: str, quote: str) -> CsvLines:
    """Finds the lines that are no rows.

    Args:
        data: Lines that each end in a newline.
        num_fields: Of a row.
        delimiter: One ASCII character.
        quote: One ASCII character; empty where quotes are ordinary ones.
    """
    data = data.replace(b"\r\n", b"\n")
    letters = np.frombuffer(data, np.uint8)
    stops = np.flatnonzero(letters == _NEWLINE)
    faults = _Faults(data, stops)
    faults.mark(np.diff(stops, prepend=-1) == 1, EMPTY)
    if b"\0" in data:
        faults.mark(_has(letters == 0, stops), NUL_BYTE)
    if b"\r" in data:
        faults.mark(_has(letters == _RETURN, stops), CARRIAGE_RETURN)
    if codecs.BOM_UTF8 in data:
        faults.mark(_starts_with_mark(data, stops), BYTE_ORDER_MARK)
    if not _is_utf8(data):
        faults.mark(_not_utf8(data, letters, stops), NOT_UTF8)
    delimiters = np.flatnonzero(letters == ord(delimiter))
    if quote and quote.encode() in data:
        quotes = _Quotes(letters, stops, quote=ord(quote), delimiter=ord(delimiter))
        faults.mark(quotes.unbalanced, UNBALANCED_QUOTES)
        faults.mark(quotes.misplaced, MISPLACED_QUOTE)
        delimiters = delimiters[quotes.outside(delimiters)]
    counts = _count(delimiters, stops) + 1
    faults.mark(counts != num_fields, FIELD_COUNT, numbers=counts)
    return CsvLines(data=data, stops=stops, good=faults.good, bad=faults.lines())


class _Faults:
    """The first fault of every line."""

    def __init__(self, data: bytes, stops: NDArray[np.int64]) -> None:
        self._data, self._stops = data, stops
        self._found: dict[int, tuple[str, str]] = {}
        self.good = np.ones(len(stops), np.bool_)

    def mark(self, bad: NDArray[np.bool_], reason: str, *, numbers: NDArray[np.int64] | None = None) -> None:
        """Marks lines; of `numbers` [N] those of the marked lines are told."""
        for line in np.flatnonzero(bad & self.good).tolist():
            self._found[line] = (reason, "" if numbers is None else f"{numbers[line]} fields")
        self.good &= ~bad

    def lines(self) -> tuple[BadLine, ...]:
        """What was marked, by line."""
        return tuple(
            BadLine(line=line, reason=reason, detail=detail, text=_text(self._data, self._stops, line))
            for line, (reason, detail) in sorted(self._found.items())
        )


class _Quotes:
    """Where quotes stand. In a line they open and close by turns; one that is doubled closes and opens again."""

    def __init__(self, letters: NDArray[np.uint8], stops: NDArray[np.int64], *, quote: int, delimiter: int) -> None:
        self._stops = stops
        self._places = np.flatnonzero(letters == quote)
        counts = _count(self._places, stops)
        self._before_line = np.cumsum(counts) - counts
        self.unbalanced = counts % 2 == 1
        lines = np.searchsorted(stops, self._places)
        opens = (np.arange(len(self._places)) - self._before_line[lines]) % 2 == 0
        # A newline stands before the first letter of the block and after its last one.
        before, after = letters[self._places - 1], letters[np.minimum(self._places + 1, len(letters) - 1)]
        before[self._places == 0] = _NEWLINE
        neighbour = np.where(opens, before, after)
        wrong = (neighbour != delimiter) & (neighbour != _NEWLINE) & (neighbour != quote)
        # An opening one may follow a quote only where that has just been closed: in the same line.
        self.misplaced = _has_places(lines[wrong], len(stops))

    def outside(self, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the places are not inside quotes."""
        lines = np.searchsorted(self._stops, places)
        return (np.searchsorted(self._places, places) - self._before_line[lines]) % 2 == 0


def _count(places: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of the places lie in each line, int64 [N]."""
    return np.diff(np.searchsorted(places, stops), prepend=0).astype(np.int64)


def _has(letters: NDArray[np.bool_], stops: NDArray[np.int64]) -> NDArray[np.bool_]:
    return _count(np.flatnonzero(letters), stops) > 0


def _has_places(lines: NDArray[np.int64], num_lines: int) -> NDArray[np.bool_]:
    marked = np.zeros(num_lines, np.bool_)
    marked[lines] = True
    return marked


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _not_utf8(data: bytes, letters: NDArray[np.uint8], stops: NDArray[np.int64]) -> NDArray[np.bool_]:
    suspects = np.flatnonzero(_has(letters >= 0x80, stops))
    bad = [line for line in suspects.tolist() if not _is_utf8(_whole(data, stops, line))]
    return _has_places(np.array(bad, np.int64), len(stops))


def _starts_with_mark(data: bytes, stops: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Polars takes the mark at the start of what it reads for none of the text."""
    starts = np.concatenate(([0], stops[:-1] + 1)).tolist()
    return np.array([data.startswith(codecs.BOM_UTF8, start) for start in starts], np.bool_)


def _whole(data: bytes, stops: NDArray[np.int64], line: int) -> bytes:
    return data[stops[line - 1] + 1 if line else 0 : stops[line]]


def _text(data: bytes, stops: NDArray[np.int64], line: int) -> bytes:
    return _whole(data, stops, line)[:SHOWN_BYTES]
