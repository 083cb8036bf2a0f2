"""Row ranges: cut from row numbers, each row once."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.reading.source import SourcePart
from trainer.predictions.row_ranges import cut_ranges


@given(sizes=st.lists(st.integers(0, 30), max_size=5), range_rows=st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_ranges_hold_each_row_once(sizes: list[int], range_rows: int) -> None:
    parts = [SourcePart(name=f"p{i}", num_rows=size, files={}) for i, size in enumerate(sizes)]
    ranges = cut_ranges(parts, range_rows=range_rows)
    assert [row for piece in ranges for row in piece.source_rows] == list(range(sum(sizes)))
    assert all(0 < piece.num_rows <= range_rows and piece.first_row % range_rows == 0 for piece in ranges)
    starts = {f"p{i}": sum(sizes[:i]) for i in range(len(sizes))}
    assert all(piece.source_row == starts[piece.part] + piece.first_row for piece in ranges)
    assert len({piece.name for piece in ranges}) == len(ranges)
    assert all(piece.name == f"{piece.part}-{piece.first_row:012d}" for piece in ranges)
