"""Baselines of a benchmark: fitted once for each window, on its training rows alone, in the order of its test parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from configs.benchmark_schema import Benchmark, Window
from configs.errors import DataError
from tests.support.benchmarks import made_benchmark
from tests.support.planted_rows import few_settings, planted, truth
from trainer.analysis.baselines import BOOSTING, FITS, LOGISTIC, read_rows
from trainer.analysis.intervals import auc_estimate
from trainer.benchmark.baselines import BASELINES_NAME, baseline_logits


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    few_settings(monkeypatch)


@pytest.fixture
def data(tmp_path: Path) -> dict[str, str]:
    folder = planted(tmp_path / "data", numerics="none", parts={"train": 1_200, "late": 400, "later": 300})
    return {"all": folder}


def benchmark(**windows: Window) -> Benchmark:
    made = made_benchmark(members=("deep",), groups=2, windows=("all",), baselines="fitted")
    given = windows or {"all": Window(train=("train",), test=("later", "late"))}
    return replace(made, data=replace(made.data, windows=given))


def quiet(_text: str) -> None:
    """Says nothing."""


def test_each_has_a_logit_for_each_judged_row_in_the_order_of_the_test_parts(data, tmp_path):
    found = baseline_logits(benchmark(), data=data, folder=str(tmp_path), say=quiet)
    assert list(found) == [LOGISTIC, BOOSTING]
    judged = read_rows(data["all"], ["later", "late"])
    best = auc_estimate(judged.labels, truth(judged)).value
    for name, windows in found.items():
        assert list(windows) == ["all"]
        assert auc_estimate(judged.labels, windows["all"]).value > best - 0.1
        np.testing.assert_array_equal(
            windows["all"], FITS[name](read_rows(data["all"], ["train"]), judged, lambda _: None).logits
        )


def test_what_is_fitted_is_kept_and_fitted_again_only_for_other_parts_or_settings(data, tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.analysis.baselines._MAX_TREES", 10)
    told: list[str] = []

    def fits(given: Benchmark, folders: dict[str, str] = data) -> int:
        told.clear()
        baseline_logits(given, data=folders, folder=str(tmp_path), say=told.append)
        return sum("fitting on" in text for text in told)

    assert fits(benchmark()) == 2
    assert any("logistic regression: 1/3 fits  ETA" in text for text in told)
    assert fits(benchmark()) == 0 and not told
    assert fits(benchmark(all=Window(train=("train",), test=("late",)))) == 2
    assert fits(benchmark(all=Window(train=("train", "late"), test=("later",)))) == 2
    moved = tmp_path / "elsewhere" / "data"
    moved.parent.mkdir()
    Path(data["all"]).rename(moved)
    assert fits(benchmark(), {"all": str(moved)}) == 0
    monkeypatch.setattr("trainer.analysis.baselines._STRENGTHS", (0.05,))
    assert fits(benchmark(), {"all": str(moved)}) == 2


def test_without_baselines_nothing_is_read(tmp_path):
    given = replace(benchmark(), baselines="none")
    assert baseline_logits(given, data={"all": "nowhere"}, folder=str(tmp_path), say=quiet) == {}


def test_a_damaged_file_is_named(data, tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.analysis.baselines._MAX_TREES", 10)
    baseline_logits(benchmark(), data=data, folder=str(tmp_path), say=quiet)
    kept = sorted((tmp_path / BASELINES_NAME).iterdir())
    assert len(kept) == 2
    for content in (b"", kept[0].read_bytes()[:-30], b"PK\x03\x04"):
        kept[0].write_bytes(content)
        with pytest.raises(DataError, match=f"{kept[0].name}: damaged"):
            baseline_logits(benchmark(), data=data, folder=str(tmp_path), say=quiet)
