"""The jackknife of a mean is Student's interval; units that share data are no reason for a narrow one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trainer.benchmark.jackknife import jackknifed
from trainer.benchmark.points import over_groups


def test_of_a_mean_it_is_the_interval_of_independent_values() -> None:
    values = [0.3, 0.5, 0.1, 0.9]
    without = [float(np.mean(values[:at] + values[at + 1 :])) for at in range(4)]
    found, expected = jackknifed(float(np.mean(values)), without), over_groups(values)
    assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))


@pytest.mark.parametrize("without", [[], [0.4]])
def test_too_few_units_give_a_value_without_an_interval(without: list[float]) -> None:
    found = jackknifed(0.5, without)
    assert found.value == 0.5 and math.isnan(found.low) and math.isnan(found.high)
