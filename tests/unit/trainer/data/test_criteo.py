"""The click log's lines, parsed fast, against a parser of a few plain lines."""

from __future__ import annotations

import gzip
import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from trainer.data.criteo import NUM_DENSE, NUM_SPARSE, LogFile, LogRows, feature_specs, signed_log1p


def synthetic_lines(num_rows: int, *, seed: int = 0) -> list[str]:
    """Lines with missing, negative and large integers, and hashes from 0 to 2^32 - 1."""
    draw = random.Random(seed)
    values = ["0", "ffffffff", "80000000", "FFFFFFFE", "00000000", *(f"{draw.getrandbits(32):08x}" for _ in range(50))]
    lines = []
    for _ in range(num_rows):
        numbers = ["" if draw.random() < 0.2 else str(int(draw.paretovariate(0.4)) - 3) for _ in range(NUM_DENSE)]
        hashes = ["" if draw.random() < 0.2 else draw.choice(values) for _ in range(NUM_SPARSE)]
        lines.append("\t".join([str(draw.randint(0, 1)), *numbers, *hashes]))
    return lines


def plain_parse(line: str) -> tuple[int, list[float], list[int | None]]:
    """One line by the definition: label, transformed integers, hashes."""
    fields = line.split("\t")
    assert len(fields) == 40
    numbers = [int(field) if field else 0 for field in fields[1:14]]
    dense = [math.copysign(math.log1p(abs(number)), number) if number else 0.0 for number in numbers]
    return int(fields[0]), dense, [int(field, 16) if field else None for field in fields[14:]]


def parse_all(path: Path, **how: int) -> list[LogRows]:
    return [block.parse() for block in LogFile(str(path), **how).blocks()]


def assert_same(parsed: list[LogRows], lines: list[str]) -> None:
    assert sum(len(rows) for rows in parsed) == len(lines)
    labels = np.concatenate([rows.labels for rows in parsed])
    dense = np.concatenate([rows.dense for rows in parsed])
    values = np.concatenate([rows.values for rows in parsed])
    missing = np.concatenate([rows.value_missing for rows in parsed])
    for row, line in enumerate(lines):
        label, wanted_dense, wanted_values = plain_parse(line)
        assert labels[row] == label
        np.testing.assert_array_equal(dense[row], np.array(wanted_dense, np.float32))
        assert [
            None if gone else int(value) for value, gone in zip(values[row], missing[row], strict=True)
        ] == wanted_values


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("last_line_end", [False, True])
def test_parses_as_a_plain_parser_does(tmp_path: Path, packed: bool, line_end: str, last_line_end: bool) -> None:
    lines = synthetic_lines(150)
    data = (line_end.join(lines) + (line_end if last_line_end else "")).encode()
    path = tmp_path / ("day.tsv.gz" if packed else "day.tsv")
    path.write_bytes(gzip.compress(data) if packed else data)
    # Blocks of all sizes, so that lines, and \r\n pairs, are cut everywhere.
    for block_bytes in (1_000, 1_001, 4_096, 1 << 20):
        assert_same(parse_all(path, block_bytes=block_bytes), lines)


def test_several_gzip_members_are_one_file(tmp_path: Path) -> None:
    lines = synthetic_lines(60)
    pieces = ["\n".join(lines[:30]) + "\n", "\n".join(lines[30:]) + "\n"]
    path = tmp_path / "day.tsv.gz"
    path.write_bytes(b"".join(gzip.compress(piece.encode()) for piece in pieces))
    assert_same(parse_all(path), lines)


GOOD = synthetic_lines(1, seed=5)[0].split("\t")


def with_field(place: int, text: str) -> str:
    return "\t".join([*GOOD[:place], text, *GOOD[place + 1 :]])


BAD_LINES = [
    ("\t".join(GOOD[1:]), "39 fields where 40 are needed"),
    ("\t".join([*GOOD, ""]), "41 fields where 40 are needed"),
    ("", "1 field where 40 are needed"),
    (with_field(0, "2"), "the label is '2', not 0 or 1"),
    (with_field(0, ""), "the label is '', not 0 or 1"),
    (with_field(0, "01"), "the label is '01'"),
    (with_field(3, "1.5"), "I3 is '1.5', not an integer"),
    (with_field(3, "1a"), "I3 is '1a', not an integer"),
    (with_field(3, "--1"), "I3 is '--1', not an integer"),
    (with_field(13, "-"), "I13 is '-', not an integer"),
    (with_field(1, "9" * 30), "I1 is '999999999999999999999999999999', beyond 64 bits"),
    (with_field(14, "xyz"), "C1 is 'xyz', not 1 to 8 hex digits"),
    (with_field(20, "0" * 9), "C7 is '000000000', not 1 to 8 hex digits"),
    (with_field(39, "-1"), "C26 is '-1', not 1 to 8 hex digits"),
    (with_field(39, "12\0"), "NUL byte"),
    (with_field(39, "1 "), "C26 is '1 ', not 1 to 8 hex digits"),
    (with_field(39, '"1"'), "C26 is '\"1\"', not 1 to 8 hex digits"),
    (with_field(39, "é"), "C26 is 'é', not 1 to 8 hex digits"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD_LINES)
@pytest.mark.parametrize("place", [0, 7, 29])
def test_names_the_bad_line(tmp_path: Path, bad: str, reason: str, place: int) -> None:
    lines = synthetic_lines(30)
    lines[place] = bad
    path = tmp_path / "day_3.tsv"
    path.write_text("\n".join(lines) + "\n")
    for block_bytes in (2_000, 1 << 20):
        with pytest.raises(DataError) as refusal:
            parse_all(path, block_bytes=block_bytes)
        assert str(refusal.value).startswith(f"{path}, line {place + 1}: ")
        assert reason in str(refusal.value)


def test_fields_missing_in_one_line_and_too_many_in_another(tmp_path: Path) -> None:
    lines = synthetic_lines(10)
    lines[4], lines[6] = "\t".join(GOOD[:39]), "\t".join([*GOOD, "1"])
    path = tmp_path / "day.tsv"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match="line 5: 39 fields"):
        parse_all(path)


@settings(max_examples=60, deadline=None)
@given(
    place=st.integers(0, 39),
    text=st.text(alphabet="0123456789abcdefABCDEF-\t\n\r+ .\"'\0g", max_size=12),
)
def test_fast_and_slow_look_agree(tmp_path_factory: pytest.TempPathFactory, place: int, text: str) -> None:
    lines = [*synthetic_lines(3), with_field(place, text), *synthetic_lines(3)]
    path = tmp_path_factory.mktemp("log") / "day.tsv"
    path.write_bytes(("\n".join(lines) + "\n").encode())
    blocks = list(LogFile(str(path)).blocks())
    try:
        for block in blocks:
            block.check_lines()
    except DataError as slow:
        with pytest.raises(DataError) as fast:
            parse_all(path)
        assert str(fast.value) == str(slow)
    else:
        assert_same(parse_all(path), path.read_text().splitlines())


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("day.tsv", b"", "holds no line"),
        ("day.tsv.gz", gzip.compress(b""), "holds no line"),
        ("day.tsv.gz", b"0\t1\n", "named .gz but is not a gzip file"),
        ("day.tsv.gz", gzip.compress("\n".join(synthetic_lines(200)).encode())[:-2_000], "cut-off gzip file"),
        ("day.tsv.gz", gzip.compress("\n".join(synthetic_lines(20)).encode())[:-8] + b"\0" * 8, "damaged"),
        ("day.tsv", b"0" * 3_000, "a line of over 1,000 bytes"),
    ],
)
def test_refuses_damaged_files(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError, match=reason) as refusal:
        parse_all(path, block_bytes=1_000)
    assert str(path) in str(refusal.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        parse_all(tmp_path / "none.tsv")


def test_signed_log1p() -> None:
    raw = np.array([[0, 1, -1, 5, 2**62]])
    dense = signed_log1p(raw, np.array([[False, False, False, True, False]]))
    assert dense.dtype == np.float32
    np.testing.assert_allclose(dense, [[0, math.log(2), -math.log(2), 0, math.log(2**62)]], rtol=1e-6)


def test_feature_specs() -> None:
    specs = feature_specs(range(2, 28))
    assert [spec.name for spec in specs[:2]] == ["I1", "I2"] and specs[-1].name == "C26"
    assert [spec.rows for spec in specs[13:]] == list(range(2, 28))
    assert {spec.file for spec in specs} == {"dense", "sparse"}
