"""TextFile: a text file of lines, plain or gzip, read in pieces of whole lines and never unpacked to disk.

Piece k holds the lines that begin at bytes [k * PIECE_BYTES, (k + 1) * PIECE_BYTES) of the unpacked text: a function of
the bytes alone, whether they lie there plain or compressed. A plain file's pieces are read by themselves, from
anywhere; a gzip file is read through, and pieces that are not wanted cost their unpacking only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from isal import isal_zlib

from configs.errors import DataError
from trainer import storage
from trainer.data.preparing.parsed import BadLine

PIECE_BYTES = 128 << 20
BLOCK_BYTES = 8 << 20
SHOWN_BYTES = 200
DAMAGED_GZIP = "the gzip file is damaged or cut off here"
LONG_LINE = "a line without end"

_FIRST_LINE_BYTES = 1 << 16
_PACKED_BYTES = 1 << 17  # at a time
_GZIP_WBITS = 31  # zlib's way to say gzip
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, kw_only=True)
class TextBlock:
    """Whole lines, each ending in a newline; or a single line found bad in reading, then `data` is empty."""

    data: bytes
    num_lines: int
    fault: BadLine | None = None


_NO_LINES = TextBlock(data=b"", num_lines=0)


class TextFile:
    """A file of text lines.

    Windows line ends and a missing last newline are taken as they are meant.

    Args:
        path: Local or s3://.
        piece_bytes: Size of a piece of unpacked text.
        block_bytes: Size of the blocks a piece is read in; a line must be shorter.
    """

    def __init__(self, path: str, *, piece_bytes: int = PIECE_BYTES, block_bytes: int = BLOCK_BYTES) -> None:
        self.path = path
        self._piece_bytes = piece_bytes
        self._block_bytes = block_bytes

    def num_pieces(self) -> int | None:
        """Pieces of a plain file; None of a gzip file, where the end tells.

        Raises:
            DataError: no such file, an empty one, or one that is named .gz and is not.
        """
        if not storage.is_file(self.path):
            raise DataError(
                f"{self.path}: {'is a folder, not a file' if storage.exists(self.path) else 'no such file'}"
            )
        num_bytes = storage.num_bytes(self.path)
        if not num_bytes:
            raise DataError(f"{self.path}: is empty; remove it from the inputs or fetch it again")
        if self._is_gzip():
            return None
        if self.path.endswith(".gz"):
            raise DataError(f"{self.path}: is named .gz but is not a gzip file; rename it or fetch it again")
        return -(-num_bytes // self._piece_bytes)

    def first_line(self) -> bytes:
        """The first line without its end; empty where the file holds none.

        Raises:
            DataError: unreadable.
        """
        return self.beginning().data.split(b"\n", 1)[0]

    def beginning(self) -> TextBlock:
        """Some of the first lines; none where the file does not begin with any.

        Raises:
            DataError: unreadable.
        """
        return self._beginning()[1]

    def about_num_lines(self) -> int:
        """How many lines the file may have, going by its beginning.

        Raises:
            DataError: unreadable.
        """
        num_bytes, block = self._beginning()
        return storage.num_bytes(self.path) * block.num_lines // max(num_bytes, 1)

    def _beginning(self) -> tuple[int, TextBlock]:
        """The bytes of the file that were read for them, and the first lines."""
        file = TextFile(self.path, block_bytes=_FIRST_LINE_BYTES)
        for _, num_bytes, block in file.blocks(first_piece=0, done=frozenset()):
            return num_bytes, block or _NO_LINES
        return 0, _NO_LINES

    def blocks(self, *, first_piece: int, done: frozenset[int]) -> Iterator[tuple[int, int, TextBlock | None]]:
        """As `InputFormat.blocks`: (piece, bytes read so far, block), block None where a piece ends.

        Raises:
            DataError: unreadable.
        """
        try:
            with storage.open_stream(self.path) as file:
                if self._is_gzip():
                    yield from self._packed_blocks(_Gzip(file), first_piece, done)
                else:
                    yield from self._plain_blocks(file, first_piece)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror or error})") from error

    def _is_gzip(self) -> bool:
        with storage.open_stream(self.path) as file:
            return bool(file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC)

    def _plain_blocks(self, file: IO[bytes], piece: int) -> Iterator[tuple[int, int, TextBlock | None]]:
        start, stop = piece * self._piece_bytes, (piece + 1) * self._piece_bytes
        # One byte earlier: where that is a newline, the piece begins with a whole line.
        file.seek(max(start - 1, 0))
        lines = self._lines(file, offset=max(start - 1, 0), inside_line=start > 0)
        for offset, block in lines:
            if offset >= stop:
                break
            kept = block if block.fault else _cut(block.data, stop - offset)[0]
            yield piece, file.tell() - start, kept
        yield piece, min(stop, file.tell()) - start, None

    def _packed_blocks(
        self, packed: _Gzip, first_piece: int, done: frozenset[int]
    ) -> Iterator[tuple[int, int, TextBlock | None]]:
        piece = 0
        for offset, block in self._lines(packed, offset=0, inside_line=False):
            here = offset
            rest: TextBlock | None = block
            while rest is not None:
                stop = (piece + 1) * self._piece_bytes
                while here >= stop:
                    if piece >= first_piece:
                        yield piece, packed.num_bytes, None
                    piece, stop = piece + 1, stop + self._piece_bytes
                kept, rest = (rest, None) if rest.fault else _cut(rest.data, stop - here)
                here += len(kept.data)
                if piece >= first_piece and piece not in done:
                    yield piece, packed.num_bytes, kept
        yield piece, packed.num_bytes, None

    def _lines(self, stream: IO[bytes] | _Gzip, *, offset: int, inside_line: bool) -> Iterator[tuple[int, TextBlock]]:
        """Blocks of whole lines with the offset of their first byte; `inside_line`: what comes first is passed over."""
        rest = b""
        while True:
            chunk = stream.read(self._block_bytes)
            if not chunk:
                break
            data = rest + chunk if rest else chunk
            if inside_line:
                end = data.find(b"\n") + 1
                inside_line = not end
                offset += end or len(data)
                data = data[end:] if end else b""
            end = data.rfind(b"\n") + 1
            if end:
                yield offset, _block(data[:end])
            rest = data[end:]
            offset += end
            if len(rest) > self._block_bytes:
                yield offset, _faulty(LONG_LINE, detail=f"over {self._block_bytes:,} bytes", text=rest)
                inside_line, offset, rest = True, offset + len(rest), b""
        if isinstance(stream, _Gzip) and stream.damage:
            yield offset, _faulty(DAMAGED_GZIP, detail=stream.damage, text=rest)
        elif rest:
            yield offset, _block(rest + b"\n")


class _Gzip:
    """A gzip file, unpacked as it is read, member after member; what comes before a damaged place is given."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._member: Any = None  # being unpacked
        self._ended = False
        self.num_bytes = 0  # read of the file
        self.damage = ""  # what is wrong behind all that was given

    def read(self, num_bytes: int) -> bytes:
        """About so many bytes; none at the end."""
        chunks: list[bytes] = []
        left = num_bytes
        while left > 0 and not self._ended:
            packed = self._file.read(_PACKED_BYTES)
            self.num_bytes += len(packed)
            if not packed:
                self._end("the file ends inside of it" if self._member is not None else "")
            while packed and not self._ended:
                data, packed = self._unpack(packed)
                chunks.append(data)
                left -= len(data)
        return b"".join(chunks)

    def _unpack(self, packed: bytes) -> tuple[bytes, bytes]:
        """What the bytes hold, and those behind the end of a member."""
        if self._member is None:
            packed = packed.lstrip(b"\0")  # padding
            if not packed:
                return b"", b""
            self._member = isal_zlib.decompressobj(wbits=_GZIP_WBITS)
        try:
            data: bytes = self._member.decompress(packed)
        except isal_zlib.IsalError as error:  # type: ignore[misc]
            self._end(str(error))
            return b"", b""
        if not self._member.eof:
            return data, b""
        rest: bytes = self._member.unused_data
        self._member = None
        return data, rest

    def _end(self, damage: str) -> None:
        self._ended, self.damage = True, damage


def count_byte(data: bytes, byte: bytes) -> int:
    """How often a byte occurs; of frequent ones several times as fast as bytes.count."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == ord(byte)))


def _block(data: bytes) -> TextBlock:
    return TextBlock(data=data, num_lines=count_byte(data, b"\n"))


def _cut(data: bytes, num_bytes: int) -> tuple[TextBlock, TextBlock | None]:
    """The lines that begin before `num_bytes` (above 0), and the rest."""
    if num_bytes >= len(data):
        return _block(data), None
    end = data.index(b"\n", num_bytes - 1) + 1
    return _block(data[:end]), _block(data[end:]) if end < len(data) else None


def _faulty(reason: str, *, detail: str, text: bytes) -> TextBlock:
    return TextBlock(
        data=b"", num_lines=1, fault=BadLine(line=0, reason=reason, detail=detail, text=text[:SHOWN_BYTES])
    )
