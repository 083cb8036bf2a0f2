"""Slices: values, what is missing, the rest; figures of exactly their rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.unit.trainer.analysis.worth.made_rows import made_rows
from trainer.analysis.ensemble_report.columns import read_column
from trainer.analysis.ensemble_report.slices import MISSING, REST, Slice, by_value, slices
from trainer.analysis.worth.block_bootstrap import draw_blocks
from trainer.analysis.worth.study_rows import StudyRows
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


def sliced(rows: StudyRows, values: np.ndarray) -> Sequence[Slice]:
    columns = {"merged": read_column(rows, "m0"), "best": read_column(rows, "m1")}
    return slices(rows, by_value(values), draw_blocks(len(rows.block_starts), seed=1), **columns)


@pytest.mark.parametrize(
    ("size", "positives", "apart", "is_too_few", "has_auc"),
    [
        (1, 0, 1, True, False),
        (29, 9, 20, True, False),
        (200, 4, 1, True, False),
        (60, 30, 1, True, True),  # side by side, in 9 blocks
        (30, 5, 20, False, True),
    ],
)
def test_a_slice_of_few_rows_has_no_interval(
    size: int, positives: int, apart: int, is_too_few: bool, has_auc: bool
) -> None:
    rows = made_rows(num_rows=900)
    here = np.arange(size) * apart
    rows.labels[here] = np.arange(size) < positives
    values = np.full(900, "other")
    values[here] = "few"
    found = {one.value: one for one in sliced(rows, values)}
    few = found["few"]
    assert few.num_rows == size and few.is_too_few == is_too_few and not found["other"].is_too_few
    assert np.isnan([few.difference.low, few.difference.high]).all() == is_too_few
    assert np.isfinite(few.difference.value) and few.merged.log_loss_nats > 0
    assert np.isfinite([few.merged.auc, few.best.auc]).all() == has_auc
