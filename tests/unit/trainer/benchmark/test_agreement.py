"""Agreement: two records of one benchmark, figure by figure."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student

from configs.errors import DataError
from trainer.benchmark.agreement import agreement_text, differences, welch

SPREAD = (0.0, 0.001, -0.001)


def record(**changes: Any) -> dict[str, Any]:
    def groups(auc: float, log_loss: float) -> list[dict[str, float]]:
        return [{"auc": auc + more, "log_loss_nats": log_loss + more} for more in SPREAD]

    made = {
        "name": "clicks",
        "groups": 3,
        "machine": "a machine",
        "singles": [{"pool": "kinds", "member": "deep", "groups": groups(0.75, 0.48)}],
        "strategies": {"both": {"title": "K of both"}},
        "points": [{"strategy": "both", "size": size, "groups": groups(0.76, 0.47)} for size in (2, 4)],
    }
    return made | changes


def test_welch_is_the_textbooks() -> None:
    """The standard error and the degrees of freedom of Welch (1947), written out."""
    ours, theirs = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 6.0])
    of_ours, of_theirs = ours.var(ddof=1) / 4, theirs.var(ddof=1) / 2
    degrees = (of_ours + of_theirs) ** 2 / (of_ours**2 / 3 + of_theirs**2 / 1)
    half = student.ppf(0.975, degrees) * math.sqrt(of_ours + of_theirs)
    interval = welch(ours, theirs)
    assert interval.value == pytest.approx(-1.5)
    assert (interval.low, interval.high) == pytest.approx((-1.5 - half, -1.5 + half))


def test_welch_of_values_that_do_not_spread_is_a_point_and_of_one_value_unknown() -> None:
    still = welch([1.0, 1.0], [0.5, 0.5])
    assert (still.value, still.low, still.high) == (0.5, 0.5, 0.5)
    alone = welch([1.0], [0.5, 0.6])
    assert alone.value == pytest.approx(0.45) and math.isnan(alone.low) and math.isnan(alone.high)


def test_every_figure_that_both_have_is_compared() -> None:
    here, there = record(), record()
    there["points"] = there["points"][:1]
    found = differences(here, there)
    assert [(one.name, one.metric) for one in found] == [
        ("kinds: deep", "auc"),
        ("kinds: deep", "log_loss_nats"),
        ("K of both, K = 2", "auc"),
        ("K of both, K = 2", "log_loss_nats"),
    ]
    assert all(one.interval.value == 0.0 for one in found)


def test_what_differs_more_than_trainings_do_is_named() -> None:
    here, there = record(), record()
    here["points"] = copy.deepcopy(here["points"])
    for group in here["points"][1]["groups"]:
        group["auc"] += 0.01
    text = agreement_text(here, there)
    assert "5 of 6 differences hold zero" in text
    assert "largest difference of AUC: +0.01000 ± 0.00227 (K of both, K = 4)" in text
    assert text.splitlines()[-1] == "| K of both, K = 4 | AUC | 0.77000 | 0.76000 | +0.01000 ± 0.00227 |"
    assert "| figure" not in agreement_text(there, there)


def test_two_benchmarks_are_not_compared() -> None:
    with pytest.raises(DataError, match="clicks and other are two benchmarks"):
        differences(record(), record(name="other"))
    with pytest.raises(DataError, match="no figure in common"):
        differences(record(), record(singles=[], points=[]))
