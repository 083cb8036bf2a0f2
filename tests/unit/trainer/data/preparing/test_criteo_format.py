"""The click log's lines: rows as a plain reader finds them, and every other line named with its reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from tests.support.click_log import plain_dense, plain_log, synthetic_lines, write_log
from trainer.data.criteo import NUMERIC_ID_ROWS, numeric_ids
from trainer.data.preparing.criteo_format import CriteoFormat, first_line_has_label
from trainer.data.preparing.parsed import ParsedRows
from trainer.data.preparing.text_files import TextBlock

GOOD = synthetic_lines(1, seed=5)[0].split("\t")
NEIGHBOURS = synthetic_lines(3, seed=6)


def with_field(place: int, text: str) -> str:
    return "\t".join([*GOOD[:place], text, *GOOD[place + 1 :]])


def parse(data: bytes, log: CriteoFormat) -> ParsedRows:
    return log.parse(TextBlock(data=data, num_lines=data.count(b"\n")))


def assert_as_plain(data: bytes, log: CriteoFormat) -> None:
    """The block against the plain reader."""
    bits = 32 if log.numerics == "raw" else 64
    wanted = plain_log(data, tokens=log.tokens, labelled=log.has_labels, bits=bits)
    rows = parse(data, log)
    assert [bad.line + 1 for bad in rows.bad] == list(wanted.bad)
    assert rows.num_rows == len(wanted.rows)
    if log.has_labels:
        assert rows.labels is not None and rows.labels.tolist() == [row.label for row in wanted.rows]
    else:
        assert rows.labels is None
    numbers = [[0 if x is None else x for x in row.numbers] for row in wanted.rows]
    if log.numerics == "raw":
        assert rows.dense.dtype == np.int32 and rows.dense.tolist() == numbers or not numbers
    elif log.numerics in ("dense", "both"):
        np.testing.assert_array_equal(rows.dense, plain_dense(wanted.rows))
    if log.numerics in ("ids", "both"):
        assert rows.numeric_ids is not None and rows.numeric_ids.shape == (rows.num_rows, 13)
        for got, row in zip(rows.numeric_ids, wanted.rows, strict=True):
            gone = np.array([x is None for x in row.numbers])
            np.testing.assert_array_equal(got, numeric_ids(np.array([x or 0 for x in row.numbers]), gone))
    values = rows.values if log.tokens == "hex" else rows.values.view(np.int64)
    found = np.where(rows.missing, None, values.astype(object)).T.tolist()
    assert found == [list(row.values) for row in wanted.rows]


@pytest.mark.parametrize("tokens", ["hex", "int"])
@pytest.mark.parametrize("numerics", ["dense", "ids", "both", "raw"])
@pytest.mark.parametrize("has_labels", [True, False])
def test_parses_as_a_plain_reader_does(tokens, numerics, has_labels):
    lines = synthetic_lines(150, tokens=tokens, labelled=has_labels)
    log = CriteoFormat(tokens=tokens, numerics=numerics, has_labels=has_labels)
    for line_end in ("\n", "\r\n"):
        assert_as_plain((line_end.join(lines) + line_end).encode(), log)


BAD_LINES = [
    ("\t".join(GOOD[1:]), "not 40 fields", "39 fields"),
    ("\t".join([*GOOD, ""]), "not 40 fields", "41 fields"),
    ("", "not 40 fields", "1 field"),
    (with_field(0, "2"), "label not 0 or 1", "'2'"),
    (with_field(0, ""), "label not 0 or 1", "''"),
    (with_field(0, "01"), "label not 0 or 1", "'01'"),
    (with_field(3, "1.5"), "I3 not an integer", "'1.5'"),
    (with_field(3, "1a"), "I3 not an integer", "'1a'"),
    (with_field(3, "--1"), "I3 not an integer", "'--1'"),
    (with_field(3, "+1"), "I3 not an integer", "'+1'"),
    (with_field(3, " 1"), "I3 not an integer", "' 1'"),
    (with_field(13, "-"), "I13 not an integer", "'-'"),
    (with_field(1, "9" * 30), "I1 beyond 64 bits", "'" + "9" * 30 + "'"),
    (with_field(1, "9" * 5_000), "I1 beyond 64 bits", "'" + "9" * 40 + "...'"),
    (with_field(1, str(2**63)), "I1 beyond 64 bits", f"'{2**63}'"),
    (with_field(14, "xyz"), "C1 not 1 to 8 hex digits", "'xyz'"),
    (with_field(14, "0x1"), "C1 not 1 to 8 hex digits", "'0x1'"),
    (with_field(20, "0" * 9), "C7 not 1 to 8 hex digits", "'000000000'; integers need --tokens int"),
    (with_field(39, "-1"), "C26 not 1 to 8 hex digits", "'-1'; integers need --tokens int"),
    (with_field(39, "+1"), "C26 not 1 to 8 hex digits", "'+1'"),
    (with_field(39, "12\0"), "a NUL byte", "the file is damaged there"),
    (with_field(39, "1 "), "C26 not 1 to 8 hex digits", "'1 '"),
    (with_field(39, '"1"'), "C26 not 1 to 8 hex digits", "'\"1\"'"),
    (with_field(39, "1\r\r"), "a carriage return", "before the end of the line"),
    (with_field(3, "\r1"), "a carriage return", "before the end of the line"),
    (with_field(0, "\ufeff1"), "not ASCII text", None),
    (with_field(39, "é"), "not ASCII text", None),
]


@pytest.mark.parametrize(("bad", "reason", "detail"), BAD_LINES)
def test_names_the_bad_line_wherever_it_stands(bad, reason, detail):
    """The reason must not depend on the lines beside it, or on how a file was cut."""
    for before, after in ((0, 3), (3, 0), (2, 1)):
        for other in (None, "1\t2", with_field(39, "\0"), with_field(0, "x")):
            lines = [*NEIGHBOURS[:before], bad, *NEIGHBOURS[:after], *([other] if other is not None else [])]
            rows = parse(("\n".join(lines) + "\n").encode(), CriteoFormat())
            assert rows.num_rows == 3 and len(rows.bad) == 1 + (other is not None)
            found = rows.bad[0]
            assert (found.line, found.reason) == (before, reason)
            assert found.detail == detail or detail is None
            assert found.text == bad.encode().removesuffix(b"\r")[:200]


def test_int_tokens_and_32_bit_numbers_have_limits_too():
    for log, place, text, reason in (
        (CriteoFormat(tokens="int"), 14, "1f", "C1 not an integer"),
        (CriteoFormat(tokens="int"), 14, str(2**63), "C1 beyond 64 bits"),
        (CriteoFormat(numerics="raw"), 1, str(2**31), "I1 beyond 32 bits"),
        (CriteoFormat(numerics="raw"), 1, str(-(2**31) - 1), "I1 beyond 32 bits"),
    ):
        good = synthetic_lines(1, tokens=log.tokens)[0].split("\t")
        good[place] = text
        (bad,) = parse(("\t".join(good) + "\n").encode(), log).bad
        assert bad.reason == reason


def test_a_field_missing_in_one_line_and_too_many_in_another():
    """Where the tabs of all lines add up to the right number."""
    lines = synthetic_lines(10)
    lines[4], lines[6] = "\t".join(GOOD[:39]), "\t".join([*GOOD, "1"])
    rows = parse(("\n".join(lines) + "\n").encode(), CriteoFormat())
    assert [(bad.line, bad.detail) for bad in rows.bad] == [(4, "39 fields"), (6, "41 fields")]
    assert rows.num_rows == 8


@settings(max_examples=400, deadline=None)
@given(
    place=st.integers(0, 39),
    text=st.text(alphabet="0123456789abcdefABCDEF-\t\n\r+ .,_x\"'\0gé", max_size=12),
    how=st.sampled_from([("hex", "dense"), ("int", "both"), ("hex", "raw"), ("int", "ids")]),
)
@example(place=39, text="12\r", how=("hex", "dense"))
@example(place=39, text="12\r\r", how=("hex", "dense"))
@example(place=3, text="0" * 5_000 + "1", how=("hex", "dense"))
@example(place=3, text="-" + "0" * 5_000 + "1", how=("hex", "raw"))
@example(place=39, text="0" * 5_000 + "1", how=("int", "both"))
@example(place=39, text="-0", how=("hex", "dense"))
@example(place=0, text="\ufeff1", how=("hex", "dense"))
@example(place=13, text="-0", how=("hex", "dense"))
@example(place=13, text="1e3", how=("hex", "dense"))
def test_any_field_is_taken_as_the_plain_reader_takes_it(place, text, how):
    tokens, numerics = how
    before, after, good = synthetic_lines(3, seed=1, tokens=tokens), synthetic_lines(3, seed=2, tokens=tokens), GOOD
    if tokens == "int":
        good = synthetic_lines(1, seed=3, tokens=tokens)[0].split("\t")
    line = "\t".join([*good[:place], text, *good[place + 1 :]])
    assert_as_plain(
        ("\n".join([*before, line, *after]) + "\n").encode(), CriteoFormat(tokens=tokens, numerics=numerics)
    )
    assert_as_plain(("\n".join([line, *after]) + "\n").encode(), CriteoFormat(tokens=tokens, numerics=numerics))


def test_layouts():
    assert [name for name, _ in CriteoFormat().layout.dense] == [f"I{number}" for number in range(1, 14)]
    both = CriteoFormat(numerics="both", tokens="int", has_labels=False).layout
    assert len(both.dense) == 13 and both.value_bits == 64 and not both.has_labels
    assert {numeric.rows for numeric in both.numeric_ids} == {NUMERIC_ID_ROWS}
    assert CriteoFormat(numerics="ids").layout.dense == ()


def test_a_label_is_looked_for(tmp_path: Path):
    with_label = write_log(tmp_path / "a", synthetic_lines(2))
    without = write_log(tmp_path / "b.gz", synthetic_lines(2, labelled=False))
    neither = write_log(tmp_path / "c", ["1,2,3"])
    assert [first_line_has_label(path) for path in (with_label, without, neither)] == [True, False, None]
    with pytest.raises(DataError, match="its first line has a label, but none is expected; prepare such files apart"):
        CriteoFormat(has_labels=False).num_pieces(with_label)
    with pytest.raises(DataError, match="its first line has no label, but one is expected"):
        CriteoFormat().num_pieces(without)
    assert CriteoFormat(piece_bytes=100).num_pieces(with_label) == -(-Path(with_label).stat().st_size // 100)
    assert CriteoFormat(has_labels=False).num_pieces(without) is None
