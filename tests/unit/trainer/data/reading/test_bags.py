"""Bags: cut where they lie, put in another order, and made from their first id."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.reading.bags import BagExpander, Bags, cut_bags, joined

LENGTHS = st.lists(st.integers(0, 4), max_size=12)


def stored(lengths: list[int]) -> tuple[np.ndarray, np.ndarray, list[list[int]]]:
    offsets = np.concatenate([[0], np.cumsum(np.array(lengths, dtype=np.int64))]).astype(np.int64)
    values = np.arange(100, 100 + offsets[-1], dtype=np.int32)
    return values, offsets, [values[a:b].tolist() for a, b in zip(offsets, offsets[1:], strict=False)]


def spelled(bags: Bags) -> list[list[int]]:
    assert (bags.values.dtype, bags.lengths.dtype) == (np.int32, np.int32)
    assert bags.lengths.sum() == len(bags.values)
    ends = np.cumsum(bags.lengths)
    return [bag.tolist() for bag in np.split(bags.values, ends[:-1])] if len(ends) else []


@given(lengths=LENGTHS, data=st.data())
@settings(max_examples=80, deadline=None)
def test_bags_of_any_rows(lengths: list[int], data: st.DataObject) -> None:
    values, offsets, expected = stored(lengths)
    start = data.draw(st.integers(0, len(lengths)))
    stop = data.draw(st.integers(start, len(lengths)))
    assert spelled(cut_bags(values, offsets, slice(start, stop))) == expected[start:stop]
    rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=9)) if lengths else []
    found = cut_bags(values, offsets, np.array(rows, dtype=np.int64))
    assert spelled(found) == [expected[row] for row in rows]


@given(first=LENGTHS, second=LENGTHS, data=st.data())
@settings(max_examples=60, deadline=None)
def test_pieces_are_put_in_order(first: list[int], second: list[int], data: st.DataObject) -> None:
    pieces = [cut_bags(*stored(lengths)[:2], slice(0, len(lengths))) for lengths in (first, second)]
    whole = stored(first)[2] + stored(second)[2]
    assert spelled(joined(pieces)) == whole
    order = data.draw(st.permutations(range(len(whole))))
    assert spelled(joined(pieces, order=np.array(order, dtype=np.int64))) == [whole[row] for row in order]


def expand(ids: list[int], *, feature: str = "C1", bag_size: int = 5, table_rows: int = 1_000) -> np.ndarray:
    out = np.full((len(ids), bag_size), -1, dtype=np.int32)
    BagExpander(feature=feature, bag_size=bag_size, table_rows=table_rows).expand(np.array(ids, dtype=np.int32), out)
    return out


def test_a_bag_is_a_function_of_feature_and_id_alone() -> None:
    bags = expand([3, 7, 3, 999, 0])
    assert bags[:, 0].tolist() == [3, 7, 3, 999, 0]
    assert np.array_equal(bags[0], bags[2])
    assert np.array_equal(expand(list(range(20_000)), table_rows=10**6)[7], expand([7], table_rows=10**6)[0])
    assert np.array_equal(expand([3], bag_size=9)[:, :5], bags[:1]), "a longer bag begins with the shorter one"
    assert not np.array_equal(expand([3], feature="C2"), bags[:1])
    assert not np.array_equal(bags[0, 1:], bags[1, 1:])


def test_the_hash_is_pinned() -> None:
    """A run that goes on under another version must see the same bags."""
    assert expand([0, 1, 39_999_999], table_rows=40_000_000).tolist() == [
        [0, 19851828, 26137560, 6402685, 9897364],
        [1, 8901107, 20185172, 19158805, 34520093],
        [39999999, 7388222, 16233494, 17960377, 11691265],
    ]


@pytest.mark.parametrize("table_rows", [1, 2, 7, 2**31 - 1])
@pytest.mark.parametrize("bag_size", [1, 2, 100, 20_000])
def test_ids_stay_in_their_table(table_rows: int, bag_size: int) -> None:
    bags = expand([0, table_rows - 1], table_rows=table_rows, bag_size=bag_size)
    assert bags.min() >= 0 and bags.max() < table_rows
    assert bags[:, 0].tolist() == [0, table_rows - 1]


def test_ids_are_drawn_uniformly_and_independently() -> None:
    bags = expand(list(range(1_000)), table_rows=50, bag_size=101)[:, 1:]
    counts = np.bincount(bags.reshape(-1), minlength=50)
    expected = bags.size / 50
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert 20 < chi_square < 90, "49 degrees of freedom: 0.1 % lie outside on either side"
    places = np.corrcoef(bags[:, :10].T)
    assert np.abs(places - np.eye(10)).max() < 0.15
    assert abs(np.corrcoef(bags[:-1, 0], bags[1:, 0])[0, 1]) < 0.1


def test_no_rows_give_no_bags() -> None:
    assert expand([]).shape == (0, 5)
