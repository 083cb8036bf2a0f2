"""TableColumns: the columns of a block of a table, as texts, made into rows by the table's schema.

Legend: R rows of the block, N of them accepted, T values of all bags of a feature.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from configs.errors import DataError
from configs.table_schema import (
    CategoricalFeature,
    KeptColumn,
    MultiFeature,
    NumericFeature,
    TableLabel,
    TableSchema,
    TableWeight,
)
from trainer.data.criteo import DENSE_TRANSFORM, NUMERIC_ID_ROWS, NUMERIC_IDS_TRANSFORM, numeric_ids, signed_log1p
from trainer.data.preparing.parsed import BadLine, BagValues, KeptValues, Layout, NumericIds, ParsedRows
from trainer.data.tables.table_values import (
    Numbers,
    Values,
    fingerprints_of,
    fixed_texts_of,
    numbers_of,
    time_parts_of,
    whole_numbers_of,
)

_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
_LARGEST_FLOAT64 = float(np.finfo(np.float64).max)
_SHOWN_CHARACTERS = 40
_SHOWN_COLUMNS = 20

UNKNOWN_LABEL = "label is neither positive nor negative"
UNKNOWN_PART = "split is of no part"
BAD_WEIGHT = "weight is no number from 0 up"
NOT_A_NUMBER = "not a number"
TOO_LARGE = "too large a number"
NOT_WHOLE = "not a whole number of 64 bits"
NUL_CHARACTER = "text with a NUL character"
NOT_A_TIME = "not a time as time_format has it"


class TableColumns:
    """What a schema makes of columns of text, where null is missing; those of multi-valued features may be lists.

    Args:
        schema: What the columns are.
        has_labels: Whether the label, which the schema then names, is read.
    """

    def __init__(self, schema: TableSchema, *, has_labels: bool) -> None:
        self._schema = schema
        self._label = schema.label if has_labels else None
        self._dense = {name: feature for name, feature in schema.numeric.items() if feature.transform != "ids"}
        self._discretised = {name: feature for name, feature in schema.numeric.items() if feature.transform == "ids"}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns that are read, each once."""
        read = {key: column for key, column in self._schema.columns_of().items() if key != "label" or self._label}
        return tuple(dict.fromkeys(read.values()))

    @cached_property
    def may_be_lists(self) -> frozenset[str]:
        """The columns that only multi-valued features read."""
        columns = self._schema.columns_of().items()
        others = {column for key, column in columns if not key.startswith("multi.")}
        return frozenset(self.names) - others

    @cached_property
    def layout(self) -> Layout:
        """What the rows hold."""
        schema = self._schema
        return Layout(
            dense=tuple((name, _transform_in_words(feature)) for name, feature in self._dense.items()),
            ids=tuple(schema.categorical),
            value_bits=64,
            numeric_ids=tuple(
                NumericIds(name=name, rows=NUMERIC_ID_ROWS, transform=_transform_in_words(feature))
                for name, feature in self._discretised.items()
            ),
            bags=tuple(schema.multi),
            has_labels=self._label is not None,
            has_weights=schema.weight is not None,
            parts=tuple(schema.split.parts) if schema.split else (),
            hashed_text=(
                *(name for name, feature in schema.categorical.items() if _holds_text(feature)),
                *(name for name, feature in schema.multi.items() if _holds_text(feature)),
            ),
            kept=tuple(
                KeptValues(name=name, dtype="int64" if kept.type == "integer" else f"S{kept.max_bytes}")
                for name, kept in schema.keep.items()
            ),
            num_header_lines=int(schema.table.format == "csv" and not schema.table.columns),
        )

    def as_dict(self) -> dict[str, Any]:
        """All that decides what comes out, as a manifest keeps it; equal settings are equal dicts."""
        schema = json.loads(json.dumps(dataclasses.asdict(self._schema)))
        if not schema["keep"]:  # as in folders that were prepared before there was such a thing
            del schema["keep"]
        # Dicts are equal in any order; that of the features and parts is that of the arrays.
        order = [*self.layout.parts, *self._schema.numeric, *self._schema.categorical, *self._schema.multi]
        return {
            "format": f"table_{schema['table']['format']}",
            "labels": self.layout.has_labels,
            "order": order,
            "schema": schema,
        }

    def check(self, path: str, there: Sequence[str]) -> None:
        """Makes sure that a file has the columns.

        Raises:
            DataError: it lacks one; names those there are, and the nearest.
        """
        for name in self.names:
            if name not in there:
                near = difflib.get_close_matches(name, there, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ";"
                known = ", ".join(there[:_SHOWN_COLUMNS]) + (", ..." if len(there) > _SHOWN_COLUMNS else "")
                raise DataError(f"{path}: has no column {name!r}{hint} correct the schema, the file has {known}")

    def parse(self, frame: pl.DataFrame, *, lines: NDArray[np.int64], line_text: Callable[[int], bytes]) -> ParsedRows:
        """The rows of a block.

        Args:
            frame: A row for each of `lines`, with the columns `names`.
            lines: int64 [R], each row's line in the block.
            line_text: A line, shortened.
        """
        faults = _Faults(frame.height)
        schema = self._schema
        labels = None if self._label is None else _labels(self._label, frame, faults)
        weights = None if schema.weight is None else _weights(schema.weight, frame, faults)
        part = self._parts(frame, faults)
        dense = [_dense(name, feature, frame, faults) for name, feature in self._dense.items()]
        discretised = [_ids(name, feature, frame, faults) for name, feature in self._discretised.items()]
        single = {name: _single(name, feature, frame, faults) for name, feature in schema.categorical.items()}
        bags = {name: _bag(name, feature, frame, faults) for name, feature in schema.multi.items()}
        passing = [_kept(name, column, frame, faults) for name, column in schema.keep.items()]
        found = {name: column.texts for name, column in single.items()}
        found |= {name: bag.texts for name, bag in bags.items()}
        kept = faults.none
        num_rows = int(kept.sum())
        return ParsedRows(
            num_rows=num_rows,
            labels=None if labels is None else labels[kept],
            dense=np.ascontiguousarray(_stacked(dense, kept, np.float32).T),
            values=_stacked([column.values for column in single.values()], kept, np.uint64),
            missing=_stacked([column.missing for column in single.values()], kept, np.bool_),
            numeric_ids=np.ascontiguousarray(_stacked(discretised, kept, np.int32).T) if discretised else None,
            bags=tuple(bag.of_rows(kept) for bag in bags.values()),
            weights=None if weights is None else weights[kept],
            part=None if part is None else part[kept],
            kept=tuple(column[kept] for column in passing),
            texts={name: texts for name, texts in found.items() if name in self.layout.hashed_text},
            bad=faults.lines(lines, line_text),
        )

    def _parts(self, frame: pl.DataFrame, faults: _Faults) -> NDArray[np.int16] | None:
        split = self._schema.split
        if split is None:
            return None
        texts = frame[split.column]
        part = np.full(frame.height, -1, np.int16)
        for number, values in enumerate(split.parts.values()):
            part[_is_in(texts, values)] = number
        faults.mark(part < 0, UNKNOWN_PART, texts)
        return part


@dataclass(frozen=True, kw_only=True)
class _Single:
    """A categorical feature of one value; 0 where missing or bad."""

    values: NDArray[np.uint64]  # [R]
    missing: NDArray[np.bool_]  # [R]
    texts: dict[int, str]


@dataclass(frozen=True, kw_only=True)
class _Bag:
    """A multi-valued feature."""

    rows: NDArray[np.int64]  # [T], of each value
    values: NDArray[np.uint64]  # [T]
    texts: dict[int, str]

    def of_rows(self, kept: NDArray[np.bool_]) -> BagValues:
        """The bags of some rows, bool [R]."""
        lengths = np.bincount(self.rows, minlength=len(kept)).astype(np.int32)
        return BagValues(lengths=lengths[kept], values=self.values[kept[self.rows]])


class _Faults:
    """The first fault of every row."""

    def __init__(self, num_rows: int) -> None:
        self._kinds: list[tuple[str, pl.Series]] = []
        self._kind = np.full(num_rows, -1, np.int32)

    @property
    def none(self) -> NDArray[np.bool_]:
        """Which rows have none, bool [R]."""
        return self._kind < 0

    def mark(self, bad: NDArray[np.bool_], reason: str, column: pl.Series) -> None:
        """Marks rows, bool [R], on account of what the column holds there."""
        if bad.any():
            self._kind[bad & self.none] = len(self._kinds)
            self._kinds.append((reason, column))

    def lines(self, lines: NDArray[np.int64], line_text: Callable[[int], bytes]) -> tuple[BadLine, ...]:
        """The marked rows as bad lines."""
        found = {}
        for number, (reason, column) in enumerate(self._kinds):
            rows = np.flatnonzero(self._kind == number)
            for row, value in zip(rows.tolist(), column.gather(rows).to_list(), strict=True):
                line = int(lines[row])
                detail = f"{column.name}: {_shown(value)}"
                found[row] = BadLine(line=line, reason=reason, detail=detail, text=line_text(line))
        return tuple(found[row] for row in sorted(found))


def _labels(label: TableLabel, frame: pl.DataFrame, faults: _Faults) -> NDArray[np.int32]:
    texts = frame[label.column]
    if label.threshold is None:
        positive = _is_in(texts, label.positive)
        faults.mark(~positive & ~_is_in(texts, label.negative), UNKNOWN_LABEL, texts)
        return positive.astype(np.int32)
    found = numbers_of(texts)
    faults.mark(found.bad, f"label {NOT_A_NUMBER}", texts)
    return (found.numbers >= label.threshold).astype(np.int32)


def _weights(weight: TableWeight, frame: pl.DataFrame, faults: _Faults) -> NDArray[np.float32]:
    texts = frame[weight.column]
    found = numbers_of(texts)
    bad = found.bad | (found.numbers < 0) | (found.numbers > _LARGEST_FLOAT32)
    faults.mark(bad, BAD_WEIGHT, texts)
    return np.where(bad, 0.0, found.numbers).astype(np.float32)


def _numbers(name: str, feature: NumericFeature, frame: pl.DataFrame, faults: _Faults) -> Numbers:
    """Moved and scaled numbers; `bad` says where there is none, missing or not."""
    texts = frame[feature.column or name]
    missing = _is_missing(texts, feature.missing)
    found = numbers_of(texts)
    faults.mark(found.bad & ~missing, f"{name} is {NOT_A_NUMBER}", texts)
    with np.errstate(over="ignore"):
        scaled = (found.numbers - feature.offset) / feature.scale
    return Numbers(numbers=scaled, bad=found.bad | missing)


def _dense(name: str, feature: NumericFeature, frame: pl.DataFrame, faults: _Faults) -> NDArray[np.float32]:
    found = _numbers(name, feature, frame, faults)
    numbers = found.numbers
    # The division may have made it infinite.
    limit = _LARGEST_FLOAT32 if feature.transform == "identity" else _LARGEST_FLOAT64
    too_large = ~(np.abs(numbers) <= limit) & ~found.bad
    faults.mark(too_large, f"{name} is {TOO_LARGE}", frame[feature.column or name])
    none = found.bad | too_large
    numbers = np.where(none, 0.0, numbers)
    return signed_log1p(numbers, none) if feature.transform == DENSE_TRANSFORM else numbers.astype(np.float32)


def _ids(name: str, feature: NumericFeature, frame: pl.DataFrame, faults: _Faults) -> NDArray[np.int32]:
    found = _numbers(name, feature, frame, faults)
    too_large = ~(np.abs(found.numbers) < 2.0**63) & ~found.bad
    faults.mark(too_large, f"{name} is {TOO_LARGE}", frame[feature.column or name])
    none = found.bad | too_large
    return numeric_ids(np.floor(np.where(none, 0.0, found.numbers)).astype(np.int64), found.bad)


def _single(name: str, feature: CategoricalFeature, frame: pl.DataFrame, faults: _Faults) -> _Single:
    texts = frame[feature.column or name]
    missing = _is_missing(texts, feature.missing)
    found = _values(feature, texts.filter(pl.Series(~missing)))
    values, bad = np.zeros(len(texts), np.uint64), np.zeros(len(texts), np.bool_)
    values[~missing], bad[~missing] = found.values, found.bad
    faults.mark(bad, f"{name} is {NOT_A_TIME if feature.part_of_time else NOT_WHOLE}", texts)
    return _Single(values=values, missing=missing, texts=found.texts)


def _bag(name: str, feature: MultiFeature, frame: pl.DataFrame, faults: _Faults) -> _Bag:
    column = frame[feature.column or name]
    if isinstance(column.dtype, pl.List):
        lengths = column.list.len().fill_null(0).to_numpy()
        rows, lists = np.arange(len(column)), column
    else:
        rows = np.flatnonzero(~_is_missing(column, feature.missing))
        lists = column.gather(rows).str.split(feature.separator)
        lengths = lists.list.len().to_numpy()
    tokens = lists.filter(lists.list.len().fill_null(0) > 0).explode()
    rows = np.repeat(rows, lengths)
    there = ~_is_missing(tokens, feature.missing)
    rows, tokens = rows[there], tokens.filter(pl.Series(there))
    found = _values(feature, tokens)
    bad = np.zeros(frame.height, np.bool_)
    bad[rows[found.bad]] = True
    faults.mark(bad, f"{name} has {NOT_WHOLE}", column)
    return _Bag(rows=rows, values=found.values, texts=found.texts)


def _kept(name: str, kept: KeptColumn, frame: pl.DataFrame, faults: _Faults) -> NDArray:
    """A column that passes through: int64 [R], or texts in UTF-8, of which a missing one is empty."""
    texts = frame[kept.column or name]
    if kept.type == "integer":
        found = whole_numbers_of(texts)
        faults.mark(found.bad, f"{name} is {NOT_WHOLE}", texts)
        return found.values.view(np.int64)
    texts = texts.fill_null("")
    too_long = (texts.str.len_bytes() > kept.max_bytes).to_numpy()
    faults.mark(too_long, f"{name} is longer than its max_bytes, {kept.max_bytes}", texts)
    with_nul = texts.str.contains("\0", literal=True).to_numpy()  # the array would lose one at the end
    faults.mark(with_nul, f"{name} is {NUL_CHARACTER}", texts)
    return fixed_texts_of(texts, max_bytes=kept.max_bytes)


def _values(feature: CategoricalFeature | MultiFeature, texts: pl.Series) -> Values:
    if isinstance(feature, CategoricalFeature) and feature.part_of_time:
        return time_parts_of(texts, time_format=feature.time_format, part=feature.part_of_time)
    return fingerprints_of(texts) if feature.type == "text" else whole_numbers_of(texts)


def _holds_text(feature: CategoricalFeature | MultiFeature) -> bool:
    return feature.type == "text" and not (isinstance(feature, CategoricalFeature) and feature.part_of_time)


def _is_in(texts: pl.Series, values: Sequence[str]) -> NDArray[np.bool_]:
    """Where a text is among the values; null is not."""
    return texts.is_in(list(values)).fill_null(False).to_numpy()


def _is_missing(texts: pl.Series, missing: Sequence[str]) -> NDArray[np.bool_]:
    return _is_in(texts, missing) | texts.is_null().to_numpy()


def _stacked(columns: Sequence[NDArray], kept: NDArray[np.bool_], dtype: type[np.generic]) -> NDArray:
    """The kept rows of columns one under the other: [columns, N]."""
    stacked = np.empty((len(columns), int(kept.sum())), dtype)
    for place, column in enumerate(columns):
        stacked[place] = column[kept]
    return stacked


def _transform_in_words(feature: NumericFeature) -> str:
    name = NUMERIC_IDS_TRANSFORM if feature.transform == "ids" else feature.transform
    moved = (feature.offset, feature.scale) != (0.0, 1.0)
    return f"{name} of (x - {feature.offset!r}) / {feature.scale!r}" if moved else name


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
