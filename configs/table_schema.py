"""TableSchema: which columns of a table file are the label, the weight, the split, the features, or kept as they are.

The files of configs/tables/ are such; `tools/prepare_table.py --schema` reads one. Columns are named as in the header.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from configs.section import Section

UNIX_SECONDS = "unix_seconds"
_TIME_PIECES = ("%Y", "%y", "%m", "%d", "%H", "%M", "%S")
_NAME = re.compile(r"[A-Za-z0-9_]+")
_NO_DELIMITERS = ("\n", "\r", "\0")
_PREDICTION_COLUMNS = ("part", "row", "label", "merged")
_PREDICTION_PREFIXES = ("logit_", "probability_")
MOST_KEPT_BYTES = 4_096


@dataclass(frozen=True, kw_only=True)
class TableFiles(Section):
    """How the files are written."""

    format: Literal["csv", "parquet"]
    """csv: lines of text, plain or .gz; parquet: Parquet files."""

    delimiter: str = ","
    """csv: the character between fields; "\\t" is a tab."""

    quote: str = '"'
    """csv: the character around fields that hold the delimiter, doubled inside them; empty: none is special."""

    columns: tuple[str, ...] = ()
    """csv: all columns in order, where the files have no header line; empty: their first line is the header."""

    def __post_init__(self) -> None:
        self.refuse(
            _not_for_parquet(self),
            _one_character("delimiter", self.delimiter),
            _one_character("quote", self.quote) if self.quote else None,
            f"quote: {self.quote!r} is the delimiter too" if self.quote == self.delimiter else None,
            _twice("columns", self.columns),
        )


@dataclass(frozen=True, kw_only=True)
class TableLabel(Section):
    """What is predicted: 1 or 0. Without [label] the rows are unlabelled, to be scored."""

    column: str
    """The column; a row whose value is neither is a bad line."""

    positive: tuple[str, ...] = ("1",)
    """Values that mean 1, as text."""

    negative: tuple[str, ...] = ("0",)
    """Values that mean 0, as text."""

    threshold: float | None = None
    """Instead of these: a number of at least this means 1, below it 0."""

    def __post_init__(self) -> None:
        both = sorted(set(self.positive) & set(self.negative))
        lists_given = (self.positive, self.negative) != (("1",), ("0",))
        self.refuse(
            _not_empty("column", self.column),
            f"negative: {both[0]!r} is among the positive values too" if both else None,
            "positive: no value means 1; list at least one" if not self.positive else None,
            "negative: no value means 0; list at least one" if not self.negative else None,
            "threshold: given beside positive or negative; keep one of the two ways"
            if self.threshold is not None and lists_given
            else None,
        )


@dataclass(frozen=True, kw_only=True)
class TableWeight(Section):
    """What a row counts for in the loss."""

    column: str
    """The column: numbers that are not negative; another value is a bad line."""

    def __post_init__(self) -> None:
        self.refuse(_not_empty("column", self.column))


@dataclass(frozen=True, kw_only=True)
class TableSplit(Section):
    """A column that says which part a row belongs to. Without [split] the command line decides."""

    column: str
    """The column."""

    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Part -> the values of its rows, as text; a value of no part is a bad line."""

    def __post_init__(self) -> None:
        values = [value for part in self.parts.values() for value in part]
        self.refuse(
            _not_empty("column", self.column),
            None if self.parts else 'parts: name at least one, as parts = {train = ["train"], valid = ["valid"]}',
            *(f"parts.{name}: lists no value" for name, part in self.parts.items() if not part),
            *(_bad_name("parts", name) for name in self.parts),
            _twice("parts", values),
        )


@dataclass(frozen=True, kw_only=True)
class NumericFeature(Section):
    """A number: (value - offset) / scale, transformed."""

    column: str = ""
    """The column; empty: named as the feature."""

    missing: tuple[str, ...] = ("",)
    """Values that mean there is none; it becomes 0.0 after the transform, or id 0."""

    transform: Literal["signed_log1p", "identity", "ids"] = "signed_log1p"
    """signed_log1p: sign(x) ln(1 + |x|); ids: no number but a table, an id for each floor(ln(x)^2)."""

    offset: float = 0.0
    """Taken off first, as the mean."""

    scale: float = 1.0
    """Divided by next, as the standard deviation."""

    def __post_init__(self) -> None:
        self.refuse(None if self.scale > 0 else f"scale: {self.scale!r} must be above zero")


@dataclass(frozen=True, kw_only=True)
class CategoricalFeature(Section):
    """One value of a row, looked up in a table."""

    column: str = ""
    """The column; empty: named as the feature. Several features may read the same one."""

    missing: tuple[str, ...] = ("",)
    """Values that mean there is none; it gets id 0."""

    type: Literal["text", "integer"] = "text"
    """integer: whole numbers of 64 bits, quicker; another value is a bad line."""

    time_format: str = ""
    """How the value is a moment: %Y or %y, %m, %d and maybe %H, %M, %S, as "%y%m%d%H"; or unix_seconds (in UTC)."""

    part_of_time: Literal["hour", "weekday", "is_weekend"] | None = None
    """Of a moment, what to keep: hour 0 to 23, weekday 1 (Monday) to 7, is_weekend 1 on Saturday and Sunday, else 0."""

    def __post_init__(self) -> None:
        halves = bool(self.time_format) != bool(self.part_of_time)
        typed = bool(self.part_of_time) and self.type != "text"
        self.refuse(
            "part_of_time: goes together with time_format; give both or none" if halves else None,
            _bad_time(self.time_format, self.part_of_time) if self.part_of_time and self.time_format else None,
            f"type: {self.type!r} has no meaning for a part_of_time; leave it out" if typed else None,
        )


@dataclass(frozen=True, kw_only=True)
class MultiFeature(Section):
    """Any number of values of a row, looked up in a table and added up."""

    column: str = ""
    """The column; empty: named as the feature. In Parquet it may hold lists."""

    missing: tuple[str, ...] = ("",)
    """Values that are none, alone or among others."""

    type: Literal["text", "integer"] = "text"
    """As of a categorical feature."""

    separator: str = "|"
    """What stands between the values."""

    def __post_init__(self) -> None:
        self.refuse(_not_empty("separator", self.separator))


@dataclass(frozen=True, kw_only=True)
class KeptColumn(Section):
    """A column that no member reads and that score.keep passes into the predictions, as a request id."""

    column: str = ""
    """The column; empty: named as this section."""

    type: Literal["text", "integer"] = "text"
    """integer: whole numbers of 64 bits, 8 bytes a row; a row with another value, or none, is a bad line."""

    max_bytes: int = 64
    """text: bytes of the longest in UTF-8, and what each row takes; a row with a longer one is a bad line."""

    def __post_init__(self) -> None:
        own = KeptColumn.__dataclass_fields__["max_bytes"].default
        self.refuse(
            None
            if 1 <= self.max_bytes <= MOST_KEPT_BYTES
            else f"max_bytes: {self.max_bytes} must be from 1 to {MOST_KEPT_BYTES:,}",
            "max_bytes: is for text; leave it out" if self.type == "integer" and self.max_bytes != own else None,
        )


@dataclass(frozen=True, kw_only=True)
class TableSchema(Section):
    """A table: its files and what their columns are. Columns that no section names are not read."""

    table: TableFiles
    """How the files are written."""

    label: TableLabel | None = None
    """What is predicted."""

    weight: TableWeight | None = None
    """What a row counts for."""

    split: TableSplit | None = None
    """Which part a row belongs to."""

    numeric: dict[str, NumericFeature] = field(default_factory=dict)
    """The numeric features by name."""

    categorical: dict[str, CategoricalFeature] = field(default_factory=dict)
    """The categorical features of one value, by name."""

    multi: dict[str, MultiFeature] = field(default_factory=dict)
    """The categorical features of any number of values, by name."""

    keep: dict[str, KeptColumn] = field(default_factory=dict)
    """Columns kept beside the features, by the name that score.keep gives."""

    def __post_init__(self) -> None:
        names = [*self.numeric, *self.categorical, *self.multi]
        self.refuse(
            None if names else "there is no feature; name columns under [numeric], [categorical] or [multi]",
            *(
                f"{kind}.{name}: a feature of this name is there already; rename it and give its column"
                for kind, features, others in (
                    ("categorical", self.categorical, self.numeric),
                    ("multi", self.multi, {**self.numeric, **self.categorical}),
                    ("keep", self.keep, {name: None for name in names}),
                )
                for name in features
                if name in others
            ),
            *(_bad_name(kind, name) for kind, features in _kinds(self).items() for name in features),
            *(_taken_name(name) for name in self.keep),
            *(self._unknown_columns() if self.table.columns else ()),
        )

    def columns_of(self) -> dict[str, str]:
        """Which column each key of the schema reads: key, as `label` or `categorical.user` -> column."""
        single = {"label": self.label, "weight": self.weight, "split": self.split}
        columns = {key: section.column for key, section in single.items() if section is not None}
        for kind, features in _kinds(self).items():
            columns |= {f"{kind}.{name}": feature.column or name for name, feature in features.items()}
        return columns

    def _unknown_columns(self) -> list[str]:
        known = set(self.table.columns)
        return [
            f"{key}: there is no column {column!r} in table.columns"
            for key, column in self.columns_of().items()
            if column not in known
        ]


def _kinds(
    schema: TableSchema,
) -> dict[str, Mapping[str, NumericFeature | CategoricalFeature | MultiFeature | KeptColumn]]:
    return {
        "numeric": schema.numeric,
        "categorical": schema.categorical,
        "multi": schema.multi,
        "keep": schema.keep,
    }


def _taken_name(name: str) -> str | None:
    if name in _PREDICTION_COLUMNS or name.startswith(_PREDICTION_PREFIXES):
        return f"keep.{name}: predictions have such a column already; choose another name and give its column"
    if name == "weight":
        return "keep.weight: score.keep has the weight of [weight] by this name; choose another and give its column"
    return None


def _bad_name(key: str, name: str) -> str | None:
    if _NAME.fullmatch(name):
        return None
    return f"{key}: the name {name!r} may hold letters, digits and _ only; choose another"


def _not_empty(key: str, text: str) -> str | None:
    return None if text else f"{key}: is empty"


def _bad_time(time_format: str, part: str) -> str | None:
    if time_format == UNIX_SECONDS:
        return None
    given = re.findall(r"%.?", time_format)
    day = ("%y" if "%y" in given else "%Y", "%m", "%d")
    needed = [*day, "%H"] if part == "hour" or {"%M", "%S"} & set(given) else [*day]
    needed += ["%M"] if "%S" in given else []
    lacking = [name for name in needed if name not in given]
    unknown = [name for name in given if name not in _TIME_PIECES]
    if unknown:
        return f"time_format: {unknown[0]} is not one of {', '.join(_TIME_PIECES)}; or write {UNIX_SECONDS}"
    return f"time_format: {time_format!r} lacks {lacking[0]}" if lacking else None


def _one_character(key: str, text: str) -> str | None:
    if len(text) == 1 and text.isascii() and text not in _NO_DELIMITERS:
        return None
    return f"{key}: {text!r} is not one ASCII character other than a line end"


def _twice(key: str, values: Iterable[str]) -> str | None:
    doubled = [value for value, count in Counter(values).items() if count > 1]
    return f"{key}: {doubled[0]!r} is there twice" if doubled else None


def _not_for_parquet(files: TableFiles) -> str | None:
    own = TableFiles.__dataclass_fields__
    if files.format == "csv":
        return None
    given = [name for name in ("delimiter", "quote", "columns") if getattr(files, name) != own[name].default]
    return f"{given[0]}: is for csv; leave it out" if given else None
