"""Completeness: every way in which ranges are not all rows once is named."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.predictions.completeness import WholePart, problems_of
from trainer.predictions.manifest import PredictionFile
from trainer.predictions.row_hash import hash_range

PARTS = {"day_1": WholePart(num_rows=2_500, label_sum=30), "day_0": WholePart(num_rows=800, label_sum=None)}


def piece(part: str, first_row: int, num_rows: int, label_sum: int | None = 10) -> PredictionFile:
    return PredictionFile(
        path=f"{part}-{first_row:012d}.parquet",
        part=part,
        first_row=first_row,
        num_rows=num_rows,
        label_sum=label_sum,
        row_hash=f"{hash_range(part, first_row=first_row, num_rows=num_rows):016x}",
        num_bytes=1,
        sha256="",
    )


WHOLE = [piece("day_1", 0, 1_000), piece("day_1", 1_000, 1_000), piece("day_1", 2_000, 500), piece("day_0", 0, 800)]


@given(order=st.permutations(WHOLE))
@settings(max_examples=20, deadline=None)
def test_all_rows_once_in_any_order_are_whole(order: list[PredictionFile]) -> None:
    assert problems_of(order, PARTS) == []


def test_parts_without_rows_or_labels() -> None:
    assert problems_of([], {"empty": WholePart(num_rows=0, label_sum=0)}) == []
    assert problems_of([piece("p", 0, 3, label_sum=None)], {"p": WholePart(num_rows=3, label_sum=None)}) == []


@pytest.mark.parametrize(
    ("pieces", "told"),
    [
        (WHOLE[1:], ["rows 0 to 999 of day_1 are missing"]),
        ([WHOLE[0], *WHOLE[2:]], ["rows 1,000 to 1,999 of day_1 are missing"]),
        ([*WHOLE[:2], WHOLE[3]], ["rows 2,000 to 2,499 of day_1 are missing"]),
        (WHOLE[:3], ["rows 0 to 799 of day_0 are missing"]),
        (
            [*WHOLE, dataclasses.replace(WHOLE[1], path="again")],
            ["rows 1,000 to 1,999 of day_1 are in day_1-000000001000.parquet and in again"],
        ),
        (
            [*WHOLE, piece("day_1", 500, 100)],
            ["rows 500 to 599 of day_1 are in day_1-000000000000.parquet and in day_1-000000000500.parquet"],
        ),
        (
            [*WHOLE, piece("day_0", 800, 5)],
            ["day_0-000000000800.parquet: ends at row 804 of day_0, which has 800 rows"],
        ),
        (
            [*WHOLE, piece("day_2", 0, 5)],
            ["day_2-000000000000.parquet: is of part 'day_2', which is not among the parts"],
        ),
        (
            [*WHOLE[1:], piece("day_1", 0, 1_000, label_sum=11)],
            ["labels of day_1 add up to 31, in the data to 30"],
        ),
        (
            [*WHOLE[1:], piece("day_1", 0, 1_000, label_sum=None)],
            ["1 files of day_1 have no labels, and the data have"],
        ),
        (
            [dataclasses.replace(WHOLE[0], row_hash="0" * 16), *WHOLE[1:]],
            ["the row ids of day_1 are not 0 to 2,499, each once"],
        ),
    ],
)
def test_what_is_wrong_is_named(pieces: list[PredictionFile], told: list[str]) -> None:
    assert problems_of(pieces, PARTS) == told


def test_many_gaps_are_counted() -> None:
    every_other = [piece("p", first, 10) for first in range(0, 200, 20)]
    told = problems_of(every_other, {"p": WholePart(num_rows=200, label_sum=None)})
    assert told[:2] == ["rows 10 to 19 of p are missing", "rows 30 to 39 of p are missing"]
    assert told[5:] == ["and 5 more such"]


def test_parts_are_told_of() -> None:
    beats: list[str] = []
    problems_of(WHOLE, PARTS, beat=beats.append)
    assert beats == ["checking day_1", "checking day_0"]
