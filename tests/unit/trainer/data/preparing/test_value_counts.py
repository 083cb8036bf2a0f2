"""Value counts: however values were cut into blocks, pieces and ranges, the sums are those of a plain count."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.mixing import mix, unmix
from trainer.data.preparing import value_counts
from trainer.data.preparing.value_counts import Counts, Run, ValueCounter, merge_runs, write_runs

DTYPES = {32: np.uint32, 64: np.uint64}


def skewed(num_rows: int, bits: int, *, seed: int = 3) -> np.ndarray:
    draw = np.random.default_rng(seed)
    values = draw.zipf(1.3, num_rows).astype(np.uint64) * np.uint64(2_654_435_761_987_654_321)
    return values >> np.uint64(64 - bits) if bits == 32 else values


def counted(blocks: list[np.ndarray], bits: int, *, with_places: bool = False) -> Counts:
    counter = ValueCounter(dtype=DTYPES[bits])
    start = 0
    for block in blocks:
        places = np.arange(start, start + len(block)) if with_places else None
        counter.add(block.astype(DTYPES[bits]), places)
        start += len(block)
    return counter.counts()


def as_dict(counts: Counts) -> dict[int, int]:
    assert (np.diff(counts.mixed.astype(object)) > 0).all()
    return dict(zip(unmix(counts.mixed).tolist(), counts.counts.tolist(), strict=True))


def runs_of(folder: Path, pieces: list[Counts], bits: int) -> list[Run]:
    """Each piece in a file of its own, behind the counts of another feature."""
    runs = []
    for number, piece in enumerate(pieces):
        path = folder / f"{number}.counts"
        other = counted([np.arange(number + 1)], bits)
        with open(path, "wb") as file:
            offset, entries = write_runs(file, [other, piece])[1]
        runs.append(
            Run(
                path=str(path),
                offset=offset,
                num_entries=entries,
                dtype=f"<u{bits // 8}",
                first_place=None if piece.first is None else number << 32,
            )
        )
    return runs


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("merge_at", [10, 1 << 20])
def test_counts_as_a_plain_counter_does(monkeypatch, bits, merge_at):
    monkeypatch.setattr(value_counts, "_MERGE_AT", merge_at)
    values = skewed(5_000, bits)
    found = counted(np.array_split(values, 13), bits, with_places=True)
    assert as_dict(found) == Counter(values.tolist())
    firsts = {value: place for place, value in reversed(list(enumerate(values.tolist())))}
    assert dict(zip(unmix(found.mixed).tolist(), found.first.tolist(), strict=True)) == firsts


def test_nothing_to_count():
    for blocks in ([], [np.array([])], [np.array([]), np.array([])]):
        assert len(counted(blocks, 32)) == 0


@settings(max_examples=60, deadline=None)
@given(
    num_pieces=st.integers(1, 5),
    bits=st.sampled_from([32, 64]),
    memory_bytes=st.integers(72, 40_000),
    min_count=st.integers(1, 4),
    seed=st.integers(0, 100),
)
def test_merging_in_ranges_changes_nothing(tmp_path_factory, num_pieces, bits, memory_bytes, min_count, seed):
    values = skewed(600, bits, seed=seed)
    pieces = [counted([part], bits, with_places=True) for part in np.array_split(values, num_pieces)]
    runs = runs_of(tmp_path_factory.mktemp("runs"), pieces, bits)
    ranges = list(merge_runs(runs, min_count=min_count, memory_bytes=memory_bytes))
    assert len(ranges) == -(-sum(len(piece) for piece in pieces) * value_counts._BYTES_PER_ENTRY // memory_bytes)
    merged = Counts.merged(ranges)
    np.testing.assert_array_equal(merged.mixed, np.concatenate([part.mixed for part in ranges]))
    assert as_dict(merged) == {value: n for value, n in Counter(values.tolist()).items() if n >= min_count}
    whole = next(merge_runs(runs, min_count=min_count, memory_bytes=1 << 30))
    np.testing.assert_array_equal(merged.first, whole.first)


def test_first_places_are_counted_over_pieces(tmp_path):
    pieces = [counted([np.array(values)], 32, with_places=True) for values in ([7, 8, 7], [9, 8], [8, 9, 7])]
    (merged,) = merge_runs(runs_of(tmp_path, pieces, 32), min_count=1, memory_bytes=1 << 20)
    found = dict(zip(unmix(merged.mixed).tolist(), merged.first.tolist(), strict=True))
    assert found == {7: 0, 8: 1, 9: 1 << 32}


def test_the_ends_of_the_range_are_inside(tmp_path):
    for bits in (32, 64):
        ends = unmix(np.array([0, 2**bits - 1], DTYPES[bits]))
        runs = runs_of(tmp_path, [counted([ends], bits)], bits)
        for memory_bytes in (72, 1 << 20):
            merged = Counts.merged(list(merge_runs(runs, min_count=1, memory_bytes=memory_bytes)))
            assert merged.mixed.tolist() == mix(ends).tolist() == [0, 2**bits - 1]


def test_no_runs():
    assert list(merge_runs([], min_count=1, memory_bytes=100)) == []
