"""ExactSum: the same bits in any order and split, no further from the true sum than it says."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from trainer.metrics.exact_sum import ERROR_PER_VALUE, RANGE, ExactSum, ExactSums

any_value = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-RANGE, RANGE),
    st.floats(-1e-5, 1e-5),
    st.sampled_from([RANGE, -RANGE, 0.0, -0.0, 2.0**-29, 3 * 2.0**-29, 2.0**-68, 5e-324, 1.7e308]),
)


@given(values=st.lists(any_value, max_size=60), seed=st.integers(0, 99), cut=st.integers(0, 60))
@settings(max_examples=150, deadline=None)
def test_sums_are_the_same_in_any_order_and_split_and_as_near_as_they_say(
    values: list[float], seed: int, cut: int
) -> None:
    column = np.array(values, dtype=np.float64)
    found = ExactSum.of(column)
    assert abs(Fraction(found.units, 1 << 67) - sum(map(Fraction, values))) <= len(values) * Fraction(ERROR_PER_VALUE)
    shuffled = np.random.default_rng(seed).permutation(column)
    assert ExactSum.of(shuffled[:cut]) + ExactSum.of(shuffled[cut:]) == found
    assert ExactSum.from_limbs(found.limbs()) == found
    limbs = sum((ExactSum.of(shuffled[i::3]).limbs() for i in range(3)), np.zeros(36, np.int64))
    assert ExactSum.from_limbs(limbs) == found


@given(values=st.lists(st.tuples(any_value, st.integers(0, 3)), max_size=60), seed=st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_sums_of_groups_are_those_of_each_alone(values: list[tuple[float, int]], seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(values))
    column = np.array([value for value, _ in values])[order]
    groups = np.array([group for _, group in values], dtype=np.int64)[order]
    halves = ExactSums(4), ExactSums(4)
    for index, half in enumerate(halves):
        half.add(column[index::2], groups[index::2])
    halves[0].merge(halves[1])
    for group in range(4):
        assert halves[0].of(group) == ExactSum.of(column[groups == group])


def test_long_columns_are_summed_to_the_last_digit() -> None:
    random = np.random.default_rng(0)
    column = random.exponential(0.13, 200_000)
    column[::1000] *= 1e5
    exact = sum(map(Fraction, column.tolist()))
    found = ExactSum.of(column)
    assert found.value == float(exact)
    assert found.over(len(column)) == float(exact / len(column))
    shuffled = [random.permutation(column) for _ in range(8)]
    assert len({float(other.sum()) for other in shuffled}) > 1  # plain sums depend on order
    assert {ExactSum.of(other) for other in shuffled} == {found}
    groups = np.zeros(len(column), np.int64)
    sums = ExactSums(1)
    sums.add(column, groups)
    assert sums.of(0) == found


def test_integers_do_not_run_over() -> None:
    # As many of the largest as are let in between two settlings, without adding each.
    sums, largest = ExactSums(1), np.full(1 << 14, np.nextafter(RANGE, 0))
    sums.add(largest, np.zeros(len(largest), np.int64))
    rounds = (1 << 24) // len(largest)
    assert int(sums._coarse[0]) * rounds < 1 << 63
    assert abs(int(sums._fine[0])) * rounds < 1 << 63
    remainders = ExactSums(1)
    remainders.add(np.full(1 << 14, 2.0**-29), np.zeros(len(largest), np.int64))
    assert int(remainders._fine[0]) * rounds < 1 << 63
    assert ExactSum.of(np.full(1 << 15, 2.0**-29)).value == 2.0**-14


def test_sums_settle_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.metrics.exact_sum._MOST_IN_INT64", 20_000)
    sums, column = ExactSums(2), np.random.default_rng(0).normal(0, 300, 50_000)
    sums.add(column, np.arange(len(column)) % 2)
    assert sums._in_int64 <= 20_000
    assert [sums.of(group) for group in (0, 1)] == [ExactSum.of(column[group::2]) for group in (0, 1)]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(DataError, match="NaN or infinite"):
        ExactSum.of(np.array([1.0, value]))
    with pytest.raises(DataError, match="NaN or infinite"):
        ExactSums(1).add(np.array([1.0, value]), np.zeros(2, np.int64))


def test_nothing_sums_to_nothing() -> None:
    assert ExactSum.of(np.empty(0)) == ExactSum()
    assert ExactSum().value == 0.0
    assert ExactSum.of(np.ones(3, np.float32)).value == 3.0
