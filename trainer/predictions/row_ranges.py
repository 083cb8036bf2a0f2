"""RowRange: rows of one part that lie together and become one prediction file, cut from row numbers alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.data.reading.source import SourcePart


@dataclass(frozen=True, kw_only=True)
class RowRange:
    """Rows [first_row, first_row + num_rows) of a part; one prediction file."""

    part: str
    first_row: int
    num_rows: int
    source_row: int  # number of its first row in the source

    @property
    def name(self) -> str:
        """What its file and its record are called, without what follows the dot."""
        return f"{self.part}-{self.first_row:012d}"

    @property
    def source_rows(self) -> range:
        """Its rows as the source numbers them."""
        return range(self.source_row, self.source_row + self.num_rows)


def cut_ranges(parts: Sequence[SourcePart], *, range_rows: int) -> tuple[RowRange, ...]:
    """All rows of the parts, cut part by part into ranges of `range_rows`; the last of a part may be shorter."""
    ranges, before = [], 0
    for part in parts:
        for first in range(0, part.num_rows, range_rows):
            count = min(range_rows, part.num_rows - first)
            ranges.append(RowRange(part=part.name, first_row=first, num_rows=count, source_row=before + first))
        before += part.num_rows
    return tuple(ranges)
