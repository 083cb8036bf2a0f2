"""Texts of a table's columns as what they stand for: numbers, fingerprints, whole numbers, parts of a time.

What is not of its kind is told as such, never mended.

Legend: N texts, none of them missing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from configs.table_schema import UNIX_SECONDS

_FINGERPRINT_BYTES = 8
_SATURDAY = 6  # the library counts from Monday, 1


@dataclass(frozen=True, kw_only=True)
class Values:
    """Values of 64 bits, where `bad` is False; and the texts some of them stand for."""

    values: NDArray[np.uint64]  # [N]
    bad: NDArray[np.bool_]  # [N]
    texts: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """Numbers, where `bad` is False."""

    numbers: NDArray[np.float64]  # [N]
    bad: NDArray[np.bool_]  # [N]


def numbers_of(texts: pl.Series) -> Numbers:
    """Finite numbers; nan, infinities and what is no number are bad."""
    numbers = texts.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy()
    bad = ~np.isfinite(numbers)
    return Numbers(numbers=np.where(bad, 0.0, numbers), bad=bad)


def fingerprints_of(texts: pl.Series) -> Values:
    """The first 64 bits of BLAKE2b of each text in UTF-8: the same on every machine, in every file."""
    distinct = texts.unique(maintain_order=True)
    words = distinct.to_list()
    digests = (hashlib.blake2b(word.encode(), digest_size=_FINGERPRINT_BYTES).digest() for word in words)
    prints = np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)
    return Values(
        values=_each(texts, distinct, prints),
        bad=np.zeros(len(texts), np.bool_),
        texts=dict(zip(prints.tolist(), words, strict=True)),
    )


def whole_numbers_of(texts: pl.Series) -> Values:
    """Whole numbers of 64 bits with a sign, their bits taken as they are."""
    numbers = texts.cast(pl.Int64, strict=False)
    return Values(values=numbers.fill_null(0).to_numpy().view(np.uint64), bad=numbers.is_null().to_numpy())


def fixed_texts_of(texts: pl.Series, *, max_bytes: int) -> NDArray[np.bytes_]:
    """The texts in UTF-8, S<max_bytes> [N]; of longer ones the beginning."""
    return np.array([text.encode()[:max_bytes] for text in texts.to_list()], f"S{max_bytes}")


def time_parts_of(texts: pl.Series, *, time_format: str, part: str) -> Values:
    """A part of moments in `time_format`, or in seconds since 1970 in UTC.

    Args:
        texts: The moments.
        time_format: As of a categorical feature.
        part: hour (0 to 23), weekday (1 Monday to 7) or is_weekend (1 on Saturday and Sunday, else 0).
    """
    distinct = texts.unique(maintain_order=True)
    if time_format == UNIX_SECONDS:
        # Past the year 9999 both ways there is no calendar to ask.
        seconds = distinct.cast(pl.Int64, strict=False)
        seconds = pl.select(pl.when(seconds.is_between(-62_135_596_800, 253_402_300_799)).then(seconds)).to_series()
        moments = (seconds * 1_000_000).cast(pl.Datetime("us"))
    else:
        # A moment without minutes is none for the library: it begins the hour, or the day.
        rest, zeros = _begin(time_format)
        moments = (distinct + zeros).str.to_datetime(time_format + rest, strict=False)
    found = moments.dt.hour() if part == "hour" else moments.dt.weekday()
    if part == "is_weekend":
        found = found >= _SATURDAY
    bad = texts.is_in(distinct.filter(found.is_null()).to_list()).to_numpy()
    return Values(values=_each(texts, distinct, found.fill_null(0).cast(pl.UInt64).to_numpy()), bad=bad)


def _begin(time_format: str) -> tuple[str, str]:
    """What a format lacks of hours and minutes, and their zeros."""
    if "%M" in time_format:
        return "", ""
    return (" %M", " 00") if "%H" in time_format else (" %H:%M", " 00:00")


def _each(texts: pl.Series, distinct: pl.Series, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The value of each text, given those of the distinct ones."""
    if not len(distinct):
        return np.empty(0, np.uint64)
    return texts.replace_strict(distinct, pl.Series(values), return_dtype=pl.UInt64).to_numpy()
