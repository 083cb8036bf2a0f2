"""CSV tables: lines into rows by the schema; whatever a line is, it is accounted for."""

from __future__ import annotations

import csv
import gzip
import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from configs.table_schema import (
    CategoricalFeature,
    MultiFeature,
    NumericFeature,
    TableFiles,
    TableLabel,
    TableSchema,
    TableSplit,
    TableWeight,
)
from tests.support.table_pieces import check_rows, read_pieces
from trainer.data.preparing.parsed import BadLine
from trainer.data.preparing.text_files import TextBlock
from trainer.data.tables.table_csv import CsvBlock, CsvTable

HEADER = "click,age,user,site,genres,weight,part\n"
ROW = "1,7,12,a.com,x|y,0.5,old\n"
SCHEMA = TableSchema(
    table=TableFiles(format="csv"),
    label=TableLabel(column="click"),
    weight=TableWeight(column="weight"),
    split=TableSplit(column="part", parts={"train": ("old", "older"), "valid": ("new",)}),
    numeric={"age": NumericFeature(), "decade": NumericFeature(column="age", transform="ids")},
    categorical={"site": CategoricalFeature(missing=("", "?")), "user": CategoricalFeature(type="integer")},
    multi={"genres": MultiFeature()},
)
TABLE = CsvTable(SCHEMA)
COLUMNS = tuple(HEADER.strip().split(","))


def _parse(text: str | bytes, table: CsvTable = TABLE):
    data = text.encode() if isinstance(text, str) else text
    block = CsvBlock(text=TextBlock(data=data, num_lines=data.count(b"\n")), columns=COLUMNS)
    rows = table.parse(block)
    check_rows(rows, table.layout, num_lines=block.num_lines)
    return rows


def _reasons(text: str | bytes) -> list[tuple[int, str]]:
    return [(bad.line, bad.reason) for bad in _parse(text).bad]


def test_a_row_is_what_the_schema_says():
    rows = _parse(ROW + "0,,,?,,2,new\n")
    assert rows.labels.tolist() == [1, 0]
    assert rows.weights.tolist() == [0.5, 2.0]
    assert rows.part.tolist() == [0, 1] and TABLE.layout.parts == ("train", "valid")
    assert rows.dense[:, 0].tolist() == [np.float32(math.log(8)), 0.0]
    assert rows.numeric_ids[1, 0] == 0 and rows.numeric_ids[0, 0] >= 2
    assert TABLE.layout.ids == ("site", "user")
    assert rows.missing.tolist() == [[False, True], [False, True]]
    assert rows.values[1].tolist() == [12, 0]
    assert rows.texts["site"][int(rows.values[0, 0])] == "a.com"
    assert rows.bags[0].lengths.tolist() == [2, 0]
    assert [rows.texts["genres"][value] for value in rows.bags[0].values.tolist()] == ["x", "y"]
    assert TABLE.layout.hashed_text == ("site", "genres") == tuple(rows.texts)


def test_fingerprints_are_those_of_every_file():
    """BLAKE2b of 8 bytes, little-endian: prepared data and dictionaries of other days depend on it."""
    assert _parse(ROW).values[0].tolist() == [7303567302691916522]


def test_negative_integers_keep_their_bits():
    rows = _parse("1,7,-5,a,x,1,old\n")
    assert rows.values[1].view(np.int64).tolist() == [-5]


def test_integers_past_float_and_32_bits_survive():
    rows = _parse("1,7,9007199254740993,a,x,1,old\n")
    assert rows.values[1].tolist() == [9007199254740993]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "an empty line"),
        ("1,7,12,a.com,x|y,0.5", "not as many fields as the table has columns"),
        ("1,7,12,a.com,x|y,0.5,old,", "not as many fields as the table has columns"),
        ("2,7,12,a.com,x|y,0.5,old", "label is neither positive nor negative"),
        (",7,12,a.com,x|y,0.5,old", "label is neither positive nor negative"),
        ("1,x,12,a.com,x|y,0.5,old", "age is not a number"),
        ("1,nan,12,a.com,x|y,0.5,old", "age is not a number"),
        ("1,1e999,12,a.com,x|y,0.5,old", "age is not a number"),
        ("1,1e30,12,a.com,x|y,0.5,old", "decade is too large a number"),
        ("1,7,1.5,a.com,x|y,0.5,old", "user is not a whole number of 64 bits"),
        ("1,7,9223372036854775808,a.com,x|y,0.5,old", "user is not a whole number of 64 bits"),
        ("1,7,12,a.com,x|y,-0.5,old", "weight is no number from 0 up"),
        ("1,7,12,a.com,x|y,,old", "weight is no number from 0 up"),
        ("1,7,12,a.com,x|y,1e39,old", "weight is no number from 0 up"),
        ("1,7,12,a.com,x|y,0.5,future", "split is of no part"),
        ('1,7,12,"a.com,x|y,0.5,old', "a quote that is not closed"),
        ('1,7,12,a.com,x|y,0.5,"old', "a quote that is not closed"),
        ('1,7,12,a"co"m,x|y,0.5,old', "a quote inside a field"),
        ('1,7,12,"a"com,x|y,0.5,old', "a quote inside a field"),
        ('1,7,12,a.com"",x|y,0.5,old', "a quote inside a field"),
        ("1,7,12\r,a.com,x|y,0.5,old", "a carriage return inside the line"),
        ("1,7,12,a\0com,x|y,0.5,old", "a NUL byte"),
        ("1,7,12,a\udcffcom,x|y,0.5,old", "not UTF-8 text"),
        ("\ufeff1,7,12,a.com,x|y,0.5,old", "a byte order mark"),
    ],
)
def test_a_bad_line_is_told_with_its_place_and_costs_no_other(line, reason):
    text = (ROW + line + "\n" + ROW).encode(errors="surrogateescape")
    rows = _parse(text)
    (bad,) = rows.bad
    assert (bad.line, bad.reason) == (1, reason)
    assert bad.text == line.encode(errors="surrogateescape")
    good = _parse(ROW + ROW)
    assert np.array_equal(rows.values, good.values) and np.array_equal(rows.dense, good.dense)
    assert np.array_equal(rows.bags[0].values, good.bags[0].values)


def test_faults_of_the_line_and_of_values_are_told_in_order():
    assert _reasons("9" + ROW[1:] + "\n" + ROW + "1,x" + ROW[3:]) == [
        (0, "label is neither positive nor negative"),
        (1, "an empty line"),
        (3, "age is not a number"),
    ]


def test_quoted_fields_hold_delimiters_and_quotes():
    rows = _parse('1,7,12,"a,""b""",x,0.5,old\n"1","7","12","","x","0.5","old"\n')
    assert list(rows.texts["site"].values()) == ['a,"b"']
    assert rows.missing[0].tolist() == [False, True]


def test_quotes_are_ordinary_where_the_schema_says_so():
    schema = TableSchema(table=TableFiles(format="csv", quote=""), categorical={"site": CategoricalFeature()})
    rows = _parse('1,7,12,"a,x,0.5,old\n', CsvTable(schema))
    assert list(rows.texts["site"].values()) == ['"a']


def test_windows_line_ends_are_none_of_the_text():
    assert _parse((ROW * 2).replace("\n", "\r\n")).part.tolist() == [0, 0]


def test_all_lines_bad_and_no_line():
    assert len(_parse("x\n" * 3).bad) == 3
    assert _parse("").num_rows == 0


def test_a_label_by_threshold():
    schema = TableSchema(
        table=TableFiles(format="csv"),
        label=TableLabel(column="age", threshold=4.0),
        categorical={"site": CategoricalFeature()},
    )
    rows = _parse("".join(f"1,{age},1,a,x,1,old\n" for age in ("3.9", "4", "4.5", "", "nan")), CsvTable(schema))
    assert rows.labels.tolist() == [0, 1, 1]
    assert [bad.line for bad in rows.bad] == [3, 4]


def test_without_labels_the_column_need_not_be_there(tmp_path):
    path = tmp_path / "new.csv"
    path.write_text(HEADER.replace("click,", "") + ROW[2:])
    (rows,) = read_pieces(CsvTable(SCHEMA, has_labels=False), path)
    assert rows.num_rows == 1 and rows.labels is None


@pytest.mark.parametrize(
    ("time_format", "value", "hour", "weekday", "is_weekend"),
    [
        ("%y%m%d%H", "14102107", 7, 2, 0),  # a Tuesday
        ("%y%m%d%H", "14102423", 23, 5, 0),
        ("%y%m%d%H", "14102500", 0, 6, 1),
        ("%Y-%m-%d %H:%M:%S", "2014-10-26 23:59:59", 23, 7, 1),
        ("unix_seconds", "0", 0, 4, 0),
        ("unix_seconds", "-1", 23, 3, 0),
    ],
)
def test_parts_of_a_time(time_format, value, hour, weekday, is_weekend):
    parts = {
        part: CategoricalFeature(column="user", time_format=time_format, part_of_time=part)
        for part in ("hour", "weekday", "is_weekend")
    }
    table = CsvTable(TableSchema(table=TableFiles(format="csv"), categorical=parts))
    rows = _parse(f"1,7,{value},a,x,1,old\n1,7,noon,a,x,1,old\n1,7,,a,x,1,old\n1,7,{10**18},a,x,1,old\n", table)
    assert rows.values.tolist() == [[hour, 0], [weekday, 0], [is_weekend, 0]]
    assert rows.missing.tolist() == [[False, True]] * 3
    assert [(bad.line, bad.reason) for bad in rows.bad] == [
        (1, "hour is not a time as time_format has it"),
        (3, "hour is not a time as time_format has it"),
    ]
    assert table.layout.hashed_text == ()


def test_a_date_alone_has_a_weekday():
    feature = CategoricalFeature(column="user", time_format="%Y-%m-%d", part_of_time="weekday")
    table = CsvTable(TableSchema(table=TableFiles(format="csv"), categorical={"day": feature}))
    assert _parse("1,7,2014-10-21,a,x,1,old\n1,7,2014-10-32,a,x,1,old\n", table).values.tolist() == [[2]]


def test_numbers_are_moved_and_scaled_before_the_transform():
    numeric = {
        "plain": NumericFeature(column="age", transform="identity", offset=2.0, scale=4.0),
        "log": NumericFeature(column="age", offset=2.0, scale=4.0),
    }
    table = CsvTable(TableSchema(table=TableFiles(format="csv"), numeric=numeric))
    rows = _parse("1,10,1,a,x,1,old\n1,-6,1,a,x,1,old\n1,,1,a,x,1,old\n", table)
    assert rows.dense[:, 0].tolist() == [2.0, -2.0, 0.0]
    assert rows.dense[:, 1] == pytest.approx([math.log(3), -math.log(3), 0.0])
    assert table.layout.dense[0] == ("plain", "identity of (x - 2.0) / 4.0")


def test_integers_in_bags_and_their_faults():
    schema = TableSchema(
        table=TableFiles(format="csv"), multi={"genres": MultiFeature(type="integer", missing=("", "0"))}
    )
    rows = _parse("".join(f"1,7,1,a,{tags},1,old\n" for tags in ("1|2|1", "0", "", "3|x", "4||0|5")), CsvTable(schema))
    assert [(bad.line, bad.detail) for bad in rows.bad] == [(3, "genres: '3|x'")]
    assert rows.bags[0].lengths.tolist() == [3, 0, 0, 2]
    assert rows.bags[0].values.tolist() == [1, 2, 1, 4, 5]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ending", ["\n", "\r\n", ""])
def test_files_are_read_in_pieces_without_their_header(tmp_path, packed, ending):
    text = HEADER + "".join(f"{row % 2},7,{row},a.com,x|y,0.5,old\n" for row in range(200))
    data = (text.replace("\n", ending) if ending else text.removesuffix("\n")).encode()
    path = tmp_path / ("log.csv.gz" if packed else "log.csv")
    path.write_bytes(gzip.compress(data) if packed else data)
    table = pickle.loads(pickle.dumps(CsvTable(SCHEMA, piece_bytes=1000)))
    parsed = read_pieces(table, path)
    assert len(parsed) > 3
    assert np.concatenate([rows.values[1] for rows in parsed]).tolist() == list(range(200))
    assert not any(rows.bad for rows in parsed)


def test_a_restart_takes_no_row_for_the_header(tmp_path):
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress((HEADER + ROW * 100).encode()))
    table = CsvTable(SCHEMA, piece_bytes=1000)
    whole, rest = (
        [
            piece
            for piece, _, block in table.blocks(str(path), first_piece=0, done=done)
            if block
            for _ in range(block.num_lines)
        ]
        for done in (frozenset(), frozenset({0}))
    )
    assert len(whole) == 100
    assert rest == [piece for piece in whole if piece != 0]


def test_columns_are_found_by_name_in_every_file(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("\ufeffpart,unused,weight,genres,site,user,age,click\nnew,?,1,x,b.com,5,3,1\n")
    (rows,) = read_pieces(TABLE, path)
    assert (rows.values[1].tolist(), rows.part.tolist(), rows.labels.tolist()) == ([5], [1], [1])


def test_without_a_header_the_schema_names_the_columns(tmp_path):
    path = tmp_path / "log.tsv"
    path.write_text("1\t5\n0\t6\n")
    schema = TableSchema(
        table=TableFiles(format="csv", delimiter="\t", columns=("y", "user")),
        label=TableLabel(column="y"),
        categorical={"user": CategoricalFeature(type="integer")},
    )
    (rows,) = read_pieces(CsvTable(schema), path)
    assert rows.values.tolist() == [[5, 6]]


def test_a_header_alone_gives_no_block(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(HEADER)
    assert read_pieces(TABLE, path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER.replace("user", "usr").encode() + ROW.encode(), "has no column 'user'; did you mean 'usr'"),
        (b"", "is empty"),
        (b"\n1,2\n", "its header line is empty or cannot be read"),
        (b"\xff\xfe\n", "its header line is not UTF-8"),
        (HEADER.replace("age", "user").encode(), "its header names 'user' twice"),
    ],
)
def test_files_that_are_refused(tmp_path, content, message):
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        TABLE.num_pieces(str(path))


def test_a_line_found_bad_in_reading_is_passed_on():
    fault = BadLine(line=0, reason="damaged", detail="", text=b"")
    rows = TABLE.parse(CsvBlock(text=TextBlock(data=b"", num_lines=1, fault=fault), columns=COLUMNS))
    check_rows(rows, TABLE.layout, num_lines=1)
    assert rows.bad == (fault,)


def test_equal_settings_are_equal_dicts_and_order_counts():
    assert json.loads(json.dumps(TABLE.as_dict())) == CsvTable(SCHEMA).as_dict()
    flipped = dict(reversed(SCHEMA.categorical.items()))
    other = TableSchema(**{**vars(SCHEMA), "categorical": flipped})
    assert CsvTable(other).as_dict() != TABLE.as_dict()
    assert CsvTable(SCHEMA, has_labels=False).as_dict() != TABLE.as_dict()


PIECES = st.sampled_from(
    [
        *["1", "7", "12", "a.com", "x|y", "0.5", "old"],
        ",",
        '"',
        '""',
        '"a,b"',
        "\n",
        "\r",
        "\0",
        "|",
        "é",
        "\ufeff",
        "-",
        "1e999",
        "nan",
        "?",
    ]
).map(str.encode) | st.binary(max_size=3)


@st.composite
def _mutated(draw) -> bytes:
    """A few good rows with bytes taken out and others put in."""
    data = ROW.encode() * draw(st.integers(0, 4))
    for _ in range(draw(st.integers(0, 5))):
        fields = [place for place in range(len(data) + 1) if data[place - 1 : place] in (b"", b",", b"\n")]
        start = draw(st.integers(0, len(data)) | st.sampled_from(fields))
        stop = draw(st.integers(start, min(len(data), start + 12)))
        data = data[:start] + draw(PIECES) + data[stop:]
    return data + b"\n" if data and not data.endswith(b"\n") else data


@settings(max_examples=400, deadline=None)
@given(data=_mutated())
def test_every_mutated_line_is_a_row_or_bad_and_rows_are_what_the_line_says(data):
    rows = _parse(data)
    bad = {fault.line for fault in rows.bad}
    lines = [line for number, line in enumerate(data.split(b"\n")[:-1]) if number not in bad]
    for number, line in enumerate(lines):
        (fields,) = csv.reader([line.decode().removesuffix("\r")], strict=True)
        click, _, user, site, genres, weight, part = fields
        assert rows.labels[number] == int(click)
        assert rows.missing[:, number].tolist() == [site in ("", "?"), user == ""]
        if site not in ("", "?"):
            assert rows.texts["site"][int(rows.values[0, number])] == site
        assert rows.values[1].view(np.int64)[number] == int(user or 0)
        assert rows.weights[number] == np.float32(weight)
        assert part in SCHEMA.split.parts[TABLE.layout.parts[rows.part[number]]]
        assert rows.bags[0].lengths[number] == sum(token != "" for token in genres.split("|"))
