"""Elementwise operations: sizes lie within the cache and past it, and rates come of what is read and written."""

from __future__ import annotations

import pytest

from tests.unit.trainer.analysis.hardware_bench.here import QUICK, alone
from trainer.analysis.hardware_bench.points import Point
from trainer.analysis.hardware_bench.tensor_passes import gb_per_s, measure_passes, pass_bytes

MIB = 2**20


@pytest.mark.parametrize("cache_mib", [4, 16, 32])
def test_sizes_on_both_sides_of_the_cache(cache_mib: int) -> None:
    near, far = pass_bytes(cache_mib * MIB, quick=False)
    assert near
    assert 3 * max(near) <= cache_mib * MIB
    assert all(2 * size > cache_mib * MIB for size in far)


def test_a_cache_that_is_not_known() -> None:
    near, far = pass_bytes(0, quick=False)
    assert near == []
    assert far


def test_rates_are_the_median_of_bytes_over_seconds() -> None:
    points = [Point(what="add", size={"moved_bytes": 3e9}, seconds=(s,)) for s in (1.0, 1.5, 30.0)]
    assert gb_per_s(points) == pytest.approx(2.0)
    assert gb_per_s([]) == 0.0


def test_operations_are_measured_at_each_size() -> None:
    points = measure_passes(alone(), [4_096, 8_192], QUICK)
    assert [(point.what, point.size["moved_bytes"]) for point in points] == [
        (name, tensors * size)
        for size in (4_096, 8_192)
        for name, tensors in (("copy", 2), ("relu", 2), ("add", 3), ("mul", 3))
    ]
    assert all(point.mean_seconds > 0 for point in points)
