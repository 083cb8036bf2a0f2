"""Mixing: one to one, and the same for ever."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.click_log import murmur32
from trainer.data.mixing import mix, salted, scaled, unmix

M64 = 2**64 - 1


def splitmix64(value: int) -> int:
    """The finaliser of splitmix64 as its authors wrote it."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & M64
    value = (value ^ value >> 27) * 0x94D049BB133111EB & M64
    return value ^ value >> 31


@given(st.lists(st.integers(0, 2**32 - 1), max_size=20))
def test_32_bits(values):
    given_values = np.array(values, np.uint32)
    assert mix(given_values).tolist() == [murmur32(value) for value in values]
    np.testing.assert_array_equal(unmix(mix(given_values)), given_values)
    assert mix(given_values).dtype == np.uint32


@given(st.lists(st.integers(0, M64), max_size=20))
def test_64_bits(values):
    given_values = np.array(values, np.uint64)
    assert mix(given_values).tolist() == [splitmix64(value) for value in values]
    np.testing.assert_array_equal(unmix(mix(given_values)), given_values)


def test_mixing_leaves_its_argument_alone():
    values = np.arange(5, dtype=np.uint64)
    mix(values), unmix(values), salted(values, 3)
    assert values.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_consecutive_values_are_spread_evenly(dtype):
    slots = scaled(mix(np.arange(100_000, dtype=dtype)), 100)
    counts = np.bincount(slots, minlength=100)
    assert len(counts) == 100 and counts.min() > 800 and counts.max() < 1_200


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_scaling_keeps_the_order_and_stays_inside(dtype):
    highest = np.iinfo(dtype).max
    mixed = np.array([0, 1, highest // 3, highest // 2, highest - 1, highest], dtype)
    for size in (1, 2, 1_000_003, 2**32):
        slots = scaled(mixed, size)
        assert (np.diff(slots) >= 0).all() and slots[0] == 0 and slots[-1] == size - 1


def test_salts_make_other_orders():
    values = np.arange(1_000, dtype=np.uint32)
    assert not np.array_equal(salted(values, 1), salted(values, 2))
    np.testing.assert_array_equal(salted(values, 2**40 + 1), salted(values, 1))  # as many bits as there are
