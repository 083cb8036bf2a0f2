"""Slices: values, what is missing, the rest; figures of exactly their rows."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.trainer.analysis.worth.made_rows import made_rows
from trainer.analysis.ensemble_report.columns import read_column
from trainer.analysis.ensemble_report.slices import MISSING, REST, by_value, slices
from trainer.analysis.worth.block_bootstrap import draw_blocks
from trainer.metrics.exact import metrics_of_logits


def test_frequent_values_stand_alone_and_the_rest_together() -> None:
    values = np.repeat(np.arange(20), np.arange(20, 0, -1))
    grouping = by_value(values, most=3)
    assert grouping.names == ("0", "1", "2", REST)
    assert np.bincount(grouping.codes).tolist() == [20, 19, 18, 210 - 57]


def test_one_value_is_no_rest_and_missing_is_a_value() -> None:
    grouping = by_value(np.array(["a", None, "b", "a", None, "a"], dtype=object), most=2)
    assert grouping.names == ("a", MISSING, "b")
    assert grouping.codes.tolist() == [0, 1, 2, 0, 1, 0]
    assert by_value(np.array([1.5, np.nan, 1.5])).names == ("1.5", MISSING)


def test_figures_are_those_of_the_slices_rows() -> None:
    rows = made_rows(num_rows=900)
    values = np.random.default_rng(1).integers(0, 3, 900)
    columns = {"merged": read_column(rows, "m0"), "best": read_column(rows, "m1")}
    found = slices(rows, by_value(values), draw_blocks(len(rows.block_starts), seed=1), **columns)
    assert sum(one.num_rows for one in found) == 900
    for one in found:
        here = values == int(one.value)
        for figures, member in ((one.merged, 0), (one.best, 1)):
            exact = metrics_of_logits(rows.labels[here], rows.logits[here, member])
            for name in ("num_rows", "label_rate", "log_loss_nats", "ne", "calibration", "auc", "brier"):
                assert getattr(figures, name) == pytest.approx(getattr(exact, name), abs=1e-12)
        losses = columns["merged"].losses[here] - columns["best"].losses[here]
        assert one.difference.value == pytest.approx(losses.mean(), abs=1e-12)
        error = losses.std() / np.sqrt(here.sum())
        assert (one.difference.high - one.difference.low) / 2 == pytest.approx(1.96 * error, rel=0.25)


def test_a_slice_of_one_class_has_no_auc() -> None:
    rows = made_rows(num_rows=200)
    one, other = slices(
        rows,
        by_value(rows.labels.copy()),
        draw_blocks(len(rows.block_starts), seed=1),
        merged=read_column(rows, "m0"),
        best=read_column(rows, "m1"),
    )
    assert np.isnan(one.merged.auc) and np.isnan(other.merged.auc) and one.merged.log_loss_nats > 0
