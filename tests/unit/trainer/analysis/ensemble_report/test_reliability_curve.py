"""The reliability curve: bins, ties, and Wilson's interval."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from trainer.analysis.ensemble_report.reliability_curve import reliability_curve, wilson


def test_bins_hold_all_rows_in_order_and_about_equally_many() -> None:
    draw = np.random.default_rng(0)
    chances = draw.random(1_003)
    labels = (draw.random(1_003) < chances).astype(np.int8)
    found = reliability_curve(labels, chances, num_bins=10)
    assert len(found) == 10 and sum(one.num_rows for one in found) == 1_003
    assert all(abs(one.num_rows - 100.3) < 1.5 for one in found)
    order, first = np.argsort(chances), 0
    for one in found:
        rows = order[first : first + one.num_rows]
        assert one.predicted == pytest.approx(chances[rows].mean())
        assert one.observed == pytest.approx(labels[rows].mean())
        first += one.num_rows


def test_equal_predictions_share_a_bin() -> None:
    labels = np.array([0, 1] * 50)
    assert [one.num_rows for one in reliability_curve(labels, np.full(100, 0.3))] == [100]
    found = reliability_curve(labels, np.repeat([0.1, 0.9], [90, 10]))
    assert [one.num_rows for one in found] == [90, 10]
    assert [one.predicted for one in found] == pytest.approx([0.1, 0.9])


@pytest.mark.parametrize(("positives", "rows"), [(0, 10), (3, 17), (250, 1_000), (40, 40)])
def test_wilson_is_scipys(positives: int, rows: int) -> None:
    wanted = binomtest(positives, rows).proportion_ci(method="wilson")
    assert wilson(positives, rows) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
