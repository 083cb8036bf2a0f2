"""The hash of row ids: the same in any order, adds up over ranges, and tells apart what is not the same rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.predictions import row_hash
from trainer.predictions.row_hash import hash_range, hash_rows

WHOLE = hash_range("day_0", first_row=0, num_rows=1_000)


def rows(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


@given(cuts=st.lists(st.integers(0, 1_000), max_size=6), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_ranges_in_any_order_add_up_to_the_whole(cuts: list[int], seed: int) -> None:
    ends = [0, *sorted(cuts), 1_000]
    total = 0
    for first, stop in zip(ends, ends[1:], strict=False):
        shuffled = np.random.default_rng(seed).permutation(np.arange(first, stop, dtype=np.int64))
        assert hash_rows("day_0", shuffled) == hash_range("day_0", first_row=first, num_rows=stop - first)
        total += hash_rows("day_0", shuffled)
    assert total % (1 << 64) == WHOLE


@given(at=st.integers(0, 999), other=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_a_missing_doubled_or_exchanged_row_changes_it(at: int, other: int) -> None:
    numbers = np.arange(1_000, dtype=np.int64)
    assert hash_rows("day_0", np.delete(numbers, at)) != WHOLE
    assert hash_rows("day_0", np.append(numbers, at)) != WHOLE
    if at != other:
        numbers[at] = other
        assert hash_rows("day_0", numbers) != WHOLE


def test_rows_of_another_part_are_others() -> None:
    assert hash_rows("day_0", rows(1, 2)) != hash_rows("day_1", rows(1, 2))
    assert hash_rows("day_0", rows(1)) + hash_rows("day_1", rows(2)) != hash_rows("day_0", rows(2)) + hash_rows(
        "day_1", rows(1)
    )


def test_it_stays_what_it_is() -> None:
    assert f"{hash_rows('day_0', rows(0, 1, 2**40)):016x}" == "3bac6de8047028b9"
    assert hash_rows("day_0", rows()) == hash_range("day_0", first_row=5, num_rows=0) == 0


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_hash, "_CHUNK_ROWS", 7)
    assert hash_range("day_0", first_row=0, num_rows=1_000) == WHOLE
