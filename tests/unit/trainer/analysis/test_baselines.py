"""Logistic regression and gradient boosting on rows with a planted truth."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from configs.errors import DataError
from tests.support.planted_rows import few_settings, planted, truth
from trainer.analysis.baselines import (
    FITS,
    bucketing,
    cut_in_time,
    fit_boosting,
    fit_logistic,
    numeric_buckets,
    read_rows,
    search_settings,
)
from trainer.analysis.intervals import auc_estimate
from trainer.metrics.exact import log_losses


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    few_settings(monkeypatch)


@pytest.fixture
def data(tmp_path: Path) -> str:
    return planted(tmp_path / "data")


@pytest.mark.parametrize("fit", [fit_logistic, fit_boosting])
def test_a_baseline_finds_what_was_planted_and_sees_no_label_it_is_judged_on(data, fit):
    train, valid = read_rows(data, ["train"]), read_rows(data, ["valid"])
    fitted = fit(train, valid).probabilities
    best = auc_estimate(valid.labels, truth(valid)).value
    assert best - 0.05 < auc_estimate(valid.labels, fitted).value < best + 0.01
    rate = np.full(len(valid), train.labels.mean())
    whole = valid.labels.astype(np.int64)
    assert log_losses(whole, fitted).mean() < log_losses(whole, rate).mean() - 0.05
    valid.labels[:] = 1 - valid.labels
    np.testing.assert_array_equal(fit(train, valid).probabilities, fitted)


@pytest.mark.parametrize("name", FITS)
def test_rows_without_numeric_features_do_and_each_fit_is_told(tmp_path, name):
    data = planted(tmp_path / "data", numerics="none")
    train, valid = read_rows(data, ["train"]), read_rows(data, ["valid"])
    assert train.dense.shape == (3_000, 0)
    told: list[int] = []
    fitted = FITS[name](train, valid, told.append)
    best = auc_estimate(valid.labels, truth(valid)).value
    assert best - 0.03 < auc_estimate(valid.labels, fitted.logits).value < best + 0.01
    assert told == [2, 1]


def test_buckets_are_the_numbers_floored_log_squared():
    numbers = np.array([[0, 1, 2, 3, -1, -2, 10, 65_535]])
    dense = (np.sign(numbers) * np.log1p(np.abs(numbers))).astype(np.float32)
    assert numeric_buckets(dense).tolist() == [[0, 1, 2, 1, -1, -2, 5, 122]]


def test_only_columns_of_whole_numbers_are_bucketed_as_such_and_others_by_their_quantiles():
    draw = np.random.default_rng(1)
    whole = np.log1p(draw.integers(0, 2**31, 4_000)).astype(np.float32)
    standardised, skewed, large = draw.normal(size=4_000), np.exp(draw.normal(size=4_000)) / 9, np.full(4_000, 5e4)
    dense = np.stack([whole, standardised, skewed, large], axis=1).astype(np.float32)
    buckets = bucketing(dense)(dense)
    np.testing.assert_array_equal(buckets[:, 0], numeric_buckets(dense[:, :1])[:, 0])
    for column in (1, 2):
        assert np.bincount(buckets[:, column]).tolist() == [125] * 32
        order = np.argsort(dense[:, column])
        assert (np.diff(buckets[order, column]) >= 0).all()
    assert len(set(buckets[:, 3])) == 1
    assert bucketing(dense)(np.full((1, 4), 20.0, dtype=np.float32))[0, 1:3].tolist() == [31, 31]


def test_the_settings_are_judged_on_the_latest_ninth_of_the_training_rows(data):
    train = read_rows(data, ["train"])
    early, late = cut_in_time(train)
    assert (early.row.max(), late.row.min(), len(late)) == (2_665, 2_666, 334)


def test_the_search_settings_tell_searches_apart(monkeypatch):
    before = search_settings()
    monkeypatch.setattr("trainer.analysis.baselines._MAX_TREES", 81)
    assert search_settings() != before


@pytest.mark.parametrize(("change", "said"), [("bags", "bags of ids"), ("labels", "without a label in train")])
def test_bags_and_rows_without_a_label_are_refused(data, monkeypatch, change, said):
    rows = read_rows(data, ["train"])
    if change == "bags":
        other = dataclasses.replace(rows, lengths=np.ones((26, len(rows)), dtype=np.int32))
    else:
        other = dataclasses.replace(rows, labels=np.full(len(rows), np.nan, dtype=np.float32))
    monkeypatch.setattr("trainer.data.reading.source.PreparedSource.read", lambda *_: other)
    with pytest.raises(DataError, match=said):
        read_rows(data, ["train"])
