"""Projection: from the measured stages of a preparation to the hours of the 24 days of the Criteo 1TB click logs.

The arithmetic, also printed: a stage that goes by rows takes (its core-seconds per row) x rows / cores. The dictionary
stage has one job for each feature; its work grows by the ratio of rows or of values, whichever is larger, and it ends
no sooner than the job of its largest feature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

DICTIONARY = "dictionary"
CRITEO_1TB_ROWS = 4_373_472_329
CRITEO_1TB_TEXT_BYTES = 1.2e12  # 24 files of 48 to 50 GiB each, unpacked
CORES = (2, 16, 64)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A preparation that was measured.

    Attributes:
        seconds: Of each stage.
        num_rows: Rows prepared.
        num_values: Values in its dictionaries.
        num_cores: Cores it had, all of them at work.
    """

    seconds: Mapping[str, float]
    num_rows: int
    num_values: int
    num_cores: int


def projected_hours(measured: Measured, *, num_rows: int, values: Sequence[int], num_cores: int) -> float:
    """Hours on so many cores.

    Args:
        measured: Where the times per row come from.
        num_rows: Rows of the log that is asked about.
        values: Values of each of its features.
        num_cores: Cores that are all at work.
    """
    row_ratio = num_rows / measured.num_rows
    by_rows = sum(seconds for stage, seconds in measured.seconds.items() if stage != DICTIONARY)
    total = by_rows * measured.num_cores * row_ratio / num_cores
    work = measured.seconds.get(DICTIONARY, 0.0) * measured.num_cores * dictionary_ratio(measured, num_rows, values)
    largest = work * max(values) / sum(values)
    return (total + max(work / num_cores, largest)) / 3600


def dictionary_ratio(measured: Measured, num_rows: int, values: Sequence[int]) -> float:
    """By how much the dictionary stage's work grows."""
    return max(num_rows / measured.num_rows, sum(values) / max(measured.num_values, 1))


def arithmetic(measured: Measured, *, num_rows: int, values: Sequence[int]) -> list[str]:
    """What is assumed and multiplied, in lines to print."""
    stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in measured.seconds.items())
    row_ratio = num_rows / measured.num_rows
    return [
        f"measured on {measured.num_cores} cores: {stages}",
        f"rows: {num_rows:,} / {measured.num_rows:,} = {row_ratio:.1f} times, shared evenly by all cores",
        f"dictionary: its work grows by the larger of that and of the values, {sum(values):,} / {measured.num_values:,}"
        f" = {sum(values) / max(measured.num_values, 1):.1f} times; one feature is one job, the largest holds"
        f" {max(values) / sum(values):.0%} of the values",
        f"assumed: a disk that feeds all cores ({CRITEO_1TB_TEXT_BYTES / 1e12:.1f} TB of text), files"
        " plain or at least as many as cores, memory for as many processes, and cores as fast as these",
    ]
