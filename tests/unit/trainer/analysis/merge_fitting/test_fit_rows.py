"""Rows for fitting: read from a folder, evenly spaced, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from configs.errors import DataError
from modules.merge import MergeRule
from tests.support.made_predictions import made_predictions
from trainer.analysis.merge_fitting import fit_rows as of_rows
from trainer.analysis.merge_fitting.fit_rows import merged_logits, read_fit_rows, spaced
from trainer.predictions.reading import Predictions

DRAW = np.random.default_rng(6)
LABELS = DRAW.integers(0, 2, 250)
LOGITS = {"a": DRAW.normal(size=250).astype(np.float32), "b": DRAW.normal(size=250).astype(np.float32)}
PARTS = {"day_0": 140, "day_1": 110}


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return made_predictions(tmp_path / "made", LABELS, LOGITS, parts=PARTS, range_rows=60)


def test_all_rows_come_in_order(folder: str) -> None:
    rows = read_fit_rows(Predictions(folder), max_rows=1_000)
    assert (rows.members, rows.num_rows, rows.num_rows_total) == (("a", "b"), 250, 250)
    assert np.array_equal(rows.labels, LABELS)
    assert np.array_equal(rows.logits, np.stack(list(LOGITS.values()), axis=1))
    assert rows.logits.flags.f_contiguous


@pytest.mark.parametrize("max_rows", [2, 7, 100, 249])
def test_fewer_rows_are_evenly_spaced_over_the_files(folder: str, max_rows: int) -> None:
    rows = read_fit_rows(Predictions(folder), max_rows=max_rows)
    chosen = [i * 250 // max_rows for i in range(max_rows)]
    assert (rows.num_rows, rows.num_rows_total) == (max_rows, 250)
    assert np.array_equal(rows.labels, LABELS[chosen])
    assert np.array_equal(rows.logits[:, 1], LOGITS["b"][chosen])


def test_of_one_part_only_its_rows(folder: str) -> None:
    rows = read_fit_rows(Predictions(folder, parts=["day_1"]), max_rows=1_000)
    assert np.array_equal(rows.labels, LABELS[140:])


def test_a_row_stays_with_its_label_and_logits(folder: str) -> None:
    rows = read_fit_rows(Predictions(folder), max_rows=1_000)
    for some in (rows.where(rows.logits[:, 0] > 0.5), rows.at_most(40)):
        for label, logits in zip(some.labels, some.logits, strict=True):
            (place,) = np.flatnonzero(LOGITS["a"] == logits[0])
            assert (LABELS[place], LOGITS["b"][place]) == (label, logits[1])
    assert rows.at_most(250) is rows and rows.at_most(40).num_rows == 40


def test_spaced_rows_rise_and_end_before_the_end() -> None:
    assert spaced(10, 4).tolist() == [0, 2, 5, 7]
    assert spaced(3, 9).tolist() == [0, 1, 2]
    far = spaced(89_137_319, 5_000_000)
    assert (np.diff(far) > 0).all() and far[-1] < 89_137_319


def test_rows_without_labels_are_refused(tmp_path: Path) -> None:
    folder = made_predictions(tmp_path / "made", None, LOGITS)
    with pytest.raises(DataError, match="has rows without a label, and a fit needs labels"):
        read_fit_rows(Predictions(folder), max_rows=10)


def test_one_class_is_refused(tmp_path: Path) -> None:
    folder = made_predictions(tmp_path / "made", np.zeros(250), LOGITS)
    with pytest.raises(DataError, match="250 rows with 0 clicks: .* take rows of more parts$"):
        read_fit_rows(Predictions(folder), max_rows=1_000)


def test_a_logit_that_is_no_number_is_named(tmp_path: Path) -> None:
    bad = {**LOGITS, "b": np.where(np.arange(250) == 201, np.nan, LOGITS["b"])}
    folder = made_predictions(tmp_path / "made", LABELS, bad, parts=PARTS, range_rows=60, figures=False)
    with pytest.raises(DataError, match="member b: logit nan at row 61 of day_1"):
        read_fit_rows(Predictions(folder), max_rows=1_000)


def test_merging_chunk_by_chunk_is_merging(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = MergeRule(rule="weights", members=("a", "b"), weights=(0.3, 0.7))
    logits = np.asfortranarray(np.stack(list(LOGITS.values()), axis=1))
    whole = rule.logits(torch.from_numpy(logits)).numpy()
    monkeypatch.setattr(of_rows, "CHUNK_ROWS", 33)
    assert np.array_equal(merged_logits(rule, logits), whole)
