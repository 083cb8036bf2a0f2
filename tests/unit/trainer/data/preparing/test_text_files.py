"""Text files: whatever the pieces and blocks, plain or gzip, every line comes once and in order."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from trainer.data.preparing.text_files import DAMAGED_GZIP, LONG_LINE, TextBlock, TextFile

LINES = [b"a", b"", b"bb" * 20, b"c\r", b"d", b"\xff\0", b"e" * 9]


def read(path: Path, **sizes: int) -> dict[int, list[TextBlock]]:
    """The blocks of each piece; the pieces of a plain file are read one by one, the last first."""
    file = TextFile(str(path), **sizes)
    number = file.num_pieces()
    found: dict[int, list[TextBlock]] = {}
    for first in reversed(range(number)) if number is not None else [0]:
        ended = -1
        for piece, _, block in file.blocks(first_piece=first, done=frozenset()):
            assert piece == ended + 1 if number is None else piece == first
            found.setdefault(piece, [])
            if block is None:
                ended = piece
            else:
                found[piece].append(block)
        assert ended == max(found) or number is not None
    return dict(sorted(found.items()))


def lines_in(blocks: list[TextBlock]) -> list[bytes]:
    lines = []
    for block in blocks:
        assert block.data.endswith(b"\n") and block.data.count(b"\n") == block.num_lines and block.fault is None
        lines += block.data.split(b"\n")[:-1]
    return lines


def wanted_pieces(data: bytes, piece_bytes: int) -> dict[int, list[bytes]]:
    """Piece -> the lines that begin in its bytes, by counting bytes."""
    found: dict[int, list[bytes]] = {}
    offset = 0
    for line in data.removesuffix(b"\n").split(b"\n"):
        found.setdefault(offset // piece_bytes, []).append(line)
        offset += len(line) + 1
    return found


@settings(max_examples=300, deadline=None)
@given(
    lines=st.lists(st.sampled_from(LINES), min_size=1, max_size=30),
    last_end=st.booleans(),
    piece_bytes=st.integers(1, 150),
    block_bytes=st.integers(41, 200),
    packed=st.booleans(),
)
def test_pieces_hold_the_lines_that_begin_in_them(tmp_path_factory, lines, last_end, piece_bytes, block_bytes, packed):
    data = b"\n".join(lines) + b"\n" * last_end
    if not data.removesuffix(b"\n"):
        data = b"x\n"
    path = tmp_path_factory.mktemp("text") / ("day.gz" if packed else "day")
    path.write_bytes(gzip.compress(data) if packed else data)
    found = read(path, piece_bytes=piece_bytes, block_bytes=block_bytes)
    assert {piece: lines_in(blocks) for piece, blocks in found.items() if blocks} == wanted_pieces(data, piece_bytes)


def test_done_pieces_of_a_gzip_file_are_passed_over(tmp_path):
    data = b"".join(b"%05d\n" % number for number in range(100))
    path = tmp_path / "day.gz"
    path.write_bytes(gzip.compress(data))
    file = TextFile(str(path), piece_bytes=120, block_bytes=64)
    found: dict[int, bytes] = {0: b"", 1: b"", 2: b"", 3: b"", 4: b""}
    for piece, _, block in file.blocks(first_piece=0, done=frozenset({0, 2, 3})):
        found[piece] += b"" if block is None else block.data
    assert found == {0: b"", 1: data[120:240], 2: b"", 3: b"", 4: data[480:]}


def test_a_gzip_file_begun_at_a_later_piece(tmp_path):
    data = b"".join(b"%05d\n" % number for number in range(100))
    path = tmp_path / "day.gz"
    path.write_bytes(gzip.compress(data))
    file = TextFile(str(path), piece_bytes=120, block_bytes=64)
    found = [
        (piece, b"" if block is None else block.data)
        for piece, _, block in file.blocks(first_piece=3, done=frozenset({4}))
    ]
    assert found[0][0] == 3 and [piece for piece, _ in found if not _] == [3, 4]
    assert b"".join(text for _, text in found) == data[360:480]


def test_several_gzip_members_are_one_file(tmp_path):
    path = tmp_path / "day.gz"
    path.write_bytes(gzip.compress(b"a\nb") + gzip.compress(b"c\n") + gzip.compress(b"") + gzip.compress(b"d"))
    assert lines_in(read(path)[0]) == [b"a", b"bc", b"d"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("piece_bytes", [64, 1_000, 1 << 20])
def test_a_line_without_end_is_one_fault(tmp_path, packed, piece_bytes):
    data = b"before\n" + b"x" * 5_000 + b"\nafter\n"
    path = tmp_path / "day"
    path.write_bytes(gzip.compress(data) if packed else data)
    blocks = [block for of_piece in read(path, piece_bytes=piece_bytes, block_bytes=300).values() for block in of_piece]
    faults = [block.fault for block in blocks if block.fault]
    lines = lines_in([block for block in blocks if not block.fault])
    if packed and not faults:  # unpacked in larger runs than a block, it may come as the line it is
        assert lines == [b"before", b"x" * 5_000, b"after"]
    else:
        assert [fault.reason for fault in faults] == [LONG_LINE] and len(faults[0].text) <= 200
        assert lines == [b"before", b"after"]
    assert sum(block.num_lines for block in blocks) == 3


@pytest.mark.parametrize("damage", ["cut", "crc", "flipped"])
def test_a_damaged_gzip_file_is_told(tmp_path, damage):
    data = b"".join(b"%d\n" % (number * 7919 % 10_007) for number in range(5_000))
    packed = bytearray(gzip.compress(data))
    if damage == "cut":
        del packed[-2_000:]
    elif damage == "crc":
        packed[-8:] = b"\1" * 8
    else:
        packed[len(packed) // 2] ^= 0x55
    path = tmp_path / "day.gz"
    path.write_bytes(packed)
    blocks = read(path, block_bytes=500)[0]
    assert blocks[-1].fault is not None and blocks[-1].fault.reason == DAMAGED_GZIP
    whole = lines_in(blocks[:-1])
    assert whole == data.split(b"\n")[: len(whole)] or damage == "flipped"


def test_refuses_what_cannot_be_read(tmp_path):
    empty, named, folder = tmp_path / "empty", tmp_path / "text.gz", tmp_path / "folder"
    empty.write_bytes(b"")
    named.write_bytes(b"0\t1\n")
    folder.mkdir()
    for path, reason in (
        (empty, "is empty; remove it"),
        (named, "is named .gz but is not a gzip file"),
        (folder, "is a folder, not a file"),
        (tmp_path / "none", "no such file"),
    ):
        with pytest.raises(DataError, match=reason) as refusal:
            TextFile(str(path)).num_pieces()
        assert str(refusal.value).startswith(f"{path}: ")
    with pytest.raises(DataError, match="cannot be read"):
        TextFile(str(tmp_path / "none")).first_line()


def test_first_line(tmp_path):
    path = tmp_path / "day"
    for data, wanted in ((b"a\nb\n", b"a"), (b"a", b"a"), (b"\nb", b""), (gzip.compress(b""), b"")):
        path.write_bytes(data)
        assert TextFile(str(path)).first_line() == wanted
