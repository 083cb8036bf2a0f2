"""A table's schema: what it means, and that every mistake in one is named with its key."""

from __future__ import annotations

import pytest

from configs.errors import ConfigError
from configs.loader import read_table_schema

SMALL = '[table]\nformat = "csv"\n[categorical]\nuser = {}\n'


def _read(tmp_path, text: str):
    path = tmp_path / "shop.toml"
    path.write_text(text)
    return read_table_schema(str(path))


def _problems(tmp_path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        _read(tmp_path, text)
    first, *problems = str(caught.value).splitlines()
    assert first.startswith("shop.toml has ")
    return [problem.strip() for problem in problems]


def test_the_smallest_schema(tmp_path):
    schema = _read(tmp_path, SMALL)
    assert schema.label is None and schema.table.delimiter == ","
    assert schema.columns_of() == {"categorical.user": "user"}


def test_a_feature_reads_the_column_it_names(tmp_path):
    schema = _read(tmp_path, SMALL + 'day = {column = "user"}\n[label]\ncolumn = "click"\n')
    assert schema.columns_of() == {"label": "click", "categorical.user": "user", "categorical.day": "user"}


def test_features_keep_the_order_of_the_file(tmp_path):
    schema = _read(tmp_path, SMALL + "zebra = {}\nape = {}\n")
    assert list(schema.categorical) == ["user", "zebra", "ape"]


def test_all_problems_are_told_at_once(tmp_path):
    problems = _problems(
        tmp_path,
        '[table]\nformat = "cvs"\ndelimter = ";"\n[label]\nthreshold = 1.0\n'
        '[categorical]\nuser = {tipe = "text"}\n[numeric]\nage = {scale = 0.0, offset = 2020-01-01}\n',
    )
    assert problems == [
        "table.format: 'cvs' is not one of csv, parquet; did you mean 'csv'?",
        "table.delimter: no such key; did you mean 'delimiter'?",
        "label.column: missing; this key must be given",
        "categorical.user.tipe: no such key; did you mean 'type'?",
        "numeric.age.offset: 2020-01-01 is a date or time, which no key takes; write text in double quotes",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[table]\nformat = "csv"\n', "there is no feature"),
        (SMALL + "[numeric]\nuser = {}\n", "categorical.user: a feature of this name is there already"),
        (SMALL + "[multi]\nuser = {}\n", "multi.user: a feature of this name is there already"),
        (SMALL + "[keep]\nuser = {}\n", "keep.user: a feature of this name is there already"),
        (SMALL + "[keep]\nlabel = {}\n", "keep.label: predictions have such a column already"),
        (SMALL + "[keep]\nlogit_a = {}\n", "keep.logit_a: predictions have such a column already"),
        (SMALL + "[keep]\nweight = {}\n", "keep.weight: score.keep has the weight of [weight] by this name"),
        (SMALL + '[keep]\n"a b" = {}\n', "keep: the name 'a b' may hold letters"),
        (SMALL + "[keep]\nid = {max_bytes = 0}\n", "keep.id.max_bytes: 0 must be from 1 to 4,096"),
        (SMALL + '[keep]\nid = {type = "integer", max_bytes = 9}\n', "keep.id.max_bytes: is for text; leave it out"),
        (
            '[table]\nformat = "csv"\ncolumns = ["user"]\n[categorical]\nuser = {}\n[keep]\nid = {}\n',
            "keep.id: there is no column 'id' in table.columns",
        ),
        (SMALL + '"a.b" = {}\n', "categorical: the name 'a.b' may hold letters, digits and _ only"),
        (SMALL + "[numeric]\nage = {scale = -1.0}\n", "numeric.age.scale: -1.0 must be above zero"),
        (SMALL + '[multi]\ntags = {separator = ""}\n', "multi.tags.separator: is empty"),
        (SMALL + '[label]\ncolumn = ""\n', "label.column: is empty"),
        (SMALL + '[label]\ncolumn = "y"\npositive = ["0"]\n', "label.negative: '0' is among the positive values too"),
        (
            SMALL + '[label]\ncolumn = "y"\npositive = ["2"]\nthreshold = 1.0\n',
            "label.threshold: given beside positive",
        ),
        (SMALL + '[split]\ncolumn = "part"\n', "split.parts: name at least one"),
        (SMALL + '[split]\ncolumn = "p"\nparts = {a = ["1"], b = ["1"]}\n', "split.parts: '1' is there twice"),
        (SMALL + '[split]\ncolumn = "p"\nparts = {"a/b" = ["1"]}\n', "split.parts: the name 'a/b' may hold"),
        (SMALL + 'day = {part_of_time = "weekday"}\n', "categorical.day.part_of_time: goes together with time_format"),
        (SMALL + 'day = {part_of_time = "hour", time_format = "%Y-%m-%d"}\n', "time_format: '%Y-%m-%d' lacks %H"),
        (SMALL + 'day = {part_of_time = "weekday", time_format = "%m-%d"}\n', "time_format: '%m-%d' lacks %Y"),
        (SMALL + 'day = {part_of_time = "weekday", time_format = "%Y%m%d%p"}\n', "time_format: %p is not one of"),
        (
            SMALL + 'day = {part_of_time = "weekday", time_format = "unix_seconds", type = "integer"}\n',
            "categorical.day.type: 'integer' has no meaning",
        ),
        ('[table]\nformat = "parquet"\ndelimiter = ";"\n[multi]\na = {}\n', "table.delimiter: is for csv"),
        ('[table]\nformat = "csv"\ndelimiter = "ab"\n[multi]\na = {}\n', "table.delimiter: 'ab' is not one ASCII"),
        ('[table]\nformat = "csv"\ndelimiter = "\\n"\n[multi]\na = {}\n', "table.delimiter: '\\n' is not one ASCII"),
        ('[table]\nformat = "csv"\nquote = ","\n[multi]\na = {}\n', "table.quote: ',' is the delimiter too"),
        ('[table]\nformat = "csv"\ncolumns = ["a", "a"]\n[multi]\na = {}\n', "table.columns: 'a' is there twice"),
        ('[table]\nformat = "csv"\ncolumns = ["a"]\n[multi]\nb = {}\n', "multi.b: there is no column 'b'"),
    ],
)
def test_what_is_refused(tmp_path, text, problem):
    (found,) = _problems(tmp_path, text)
    assert problem in found


def test_a_schema_that_is_not_there_names_those_that_are():
    with pytest.raises(ConfigError, match="shop.toml: no such file; there are .*adult.toml"):
        read_table_schema("shop.toml")
