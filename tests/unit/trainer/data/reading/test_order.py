"""RowOrder: a permutation whatever the sizes, cut anywhere without a difference."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trainer.data.reading.order import RowOrder

BLOCK = 4_096
SIZES = (0, 1, 2, 100, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK - 5, 3 * BLOCK)
WINDOWS = (0, 1, 2, 7, BLOCK - 1, BLOCK, BLOCK + 1, 10_000, 10**9)


def whole(num_rows: int, **keys: int) -> NDArray[np.int64]:
    return RowOrder(num_rows=num_rows, **keys).rows(0, num_rows)


@pytest.mark.parametrize("num_rows", SIZES)
@pytest.mark.parametrize("window", WINDOWS)
def test_each_row_comes_once(num_rows: int, window: int) -> None:
    rows = whole(num_rows, seed=3, epoch=1, window=window)
    assert rows.dtype == np.int64
    assert np.array_equal(np.sort(rows), np.arange(num_rows))


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_any_cut_gives_the_same_order(data: st.DataObject) -> None:
    num_rows = data.draw(st.one_of(st.integers(0, 300), st.integers(BLOCK - 2, 2 * BLOCK + 2)))
    window = data.draw(st.one_of(st.integers(0, 40), st.integers(BLOCK - 2, 2 * BLOCK + 2)))
    order = RowOrder(num_rows=num_rows, seed=data.draw(st.integers(0, 2**63)), epoch=2, window=window)
    expected = order.rows(0, num_rows)
    assert np.array_equal(np.sort(expected), np.arange(num_rows))
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, num_rows), max_size=6))), num_rows]
    pieces = [order.rows(start, stop) for start, stop in zip(cuts, cuts[1:], strict=False)]
    assert np.array_equal(np.concatenate(pieces), expected)
    start = data.draw(st.integers(0, num_rows))  # and out of turn
    assert np.array_equal(order.rows(start, start + 10), expected[start : start + 10])


@given(num_rows=st.integers(0, 50), start=st.integers(0, 60), count=st.integers(0, 80), window=st.integers(0, 9))
@example(num_rows=0, start=0, count=5, window=4)
@settings(max_examples=60, deadline=None)
def test_positions_past_the_end_give_nothing(num_rows: int, start: int, count: int, window: int) -> None:
    rows = RowOrder(num_rows=num_rows, window=window).rows(start, start + count)
    assert len(rows) == max(0, min(num_rows, start + count) - start)
    assert rows.dtype == np.int64


def test_a_window_of_zero_is_file_order() -> None:
    assert np.array_equal(whole(10_000, seed=5, epoch=3), np.arange(10_000))


def test_the_order_depends_on_seed_and_epoch() -> None:
    made = [whole(9_000, seed=s, epoch=e, window=5_000) for s, e in ((1, 0), (1, 1), (2, 0), (0, 1), (1, 0))]
    assert np.array_equal(made[0], made[4])
    for i in range(4):
        for j in range(i):
            assert (made[i] == made[j]).mean() < 0.01


def test_rows_are_well_mixed_within_a_window() -> None:
    rows = whole(3 * BLOCK, seed=1, window=3 * BLOCK)
    assert abs(np.corrcoef(rows, np.arange(len(rows)))[0, 1]) < 0.05
    assert (np.abs(np.diff(rows)) == 1).mean() < 0.01


def test_a_window_reads_few_blocks() -> None:
    """Memory and reads stay bounded: a window's rows lie in as many blocks as it is long, and one more at each end."""
    order = RowOrder(num_rows=100 * BLOCK, seed=1, window=5 * BLOCK)
    for window in range(20):
        rows = order.rows(window * 5 * BLOCK, (window + 1) * 5 * BLOCK)
        assert len(np.unique(rows // BLOCK)) <= 6


def test_the_order_of_a_long_epoch_is_pinned() -> None:
    """Resumed runs of another version must go on in the same order."""
    assert RowOrder(num_rows=10_000, seed=1, epoch=0, window=100).rows(4_990, 4_995).tolist() == [
        6595,
        6594,
        6501,
        6508,
        6527,
    ]


def test_file_order_is_a_range_and_a_permutation_an_array() -> None:
    assert RowOrder(num_rows=10).numbers(3, 12) == range(3, 10)
    assert RowOrder(num_rows=10).numbers(12, 15) == range(12, 12)
    order = RowOrder(num_rows=10, window=4)
    assert np.array_equal(np.asarray(order.numbers(3, 12)), order.rows(3, 12))


@pytest.mark.parametrize("num_rows", SIZES)
@pytest.mark.parametrize("window", WINDOWS[:-1])
def test_runs_hold_what_windows_read_and_no_more(num_rows: int, window: int) -> None:
    order = RowOrder(num_rows=num_rows, seed=3, window=window)
    step = window or 1_000
    for start in range(0, num_rows, max(step, 1))[:5]:
        runs = order.runs(start, start + step)
        rows = np.concatenate([np.asarray(run, dtype=np.int64) for run in runs])
        assert np.array_equal(np.sort(rows), np.sort(order.rows(start, start + step)))
    assert order.runs(num_rows, num_rows + 5) == []


def test_a_window_can_be_prepared_ahead_and_by_another_thread() -> None:
    order, other = (RowOrder(num_rows=100_000, seed=1, window=20_000) for _ in range(2))
    threads = [threading.Thread(target=order.prepare, args=(20_000,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert np.array_equal(order.rows(0, 60_000), other.rows(0, 60_000))
    for thread in threads:
        thread.join()
    order.prepare(10**9)  # behind the end there is nothing to do


def test_a_window_is_not_held_up_by_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    order = RowOrder(num_rows=300, seed=1, window=100)
    first = order.rows(0, 100)
    begun, go_on = threading.Event(), threading.Event()
    permuted = RowOrder._permuted

    def slow(self: RowOrder, window: int) -> NDArray[np.int64]:
        begun.set()
        assert go_on.wait(10)
        return permuted(self, window)

    monkeypatch.setattr(RowOrder, "_permuted", slow)
    thread = threading.Thread(target=order.prepare, args=(100,))
    thread.start()
    assert begun.wait(10)
    assert np.array_equal(order.rows(0, 100), first)
    go_on.set()
    thread.join()
