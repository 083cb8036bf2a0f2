"""Figures of a folder: as computed from the columns as written, part by part, with any memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from configs.errors import DataError
from tests.support.made_predictions import made_predictions
from trainer.metrics import ranking
from trainer.metrics.exact import metrics_of_logits
from trainer.predictions import figures
from trainer.predictions.columns import logit_column
from trainer.predictions.figures import Figures, prediction_figures
from trainer.predictions.reading import Predictions

ROWS = 3_000
PARTS = {"day_0": 1_200, "day_1": 1_800}
MEMORY = 1 << 26


def columns() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    random = np.random.default_rng(3)
    base = random.normal(-2, 1.5, ROWS)
    labels = (random.random(ROWS) < 1 / (1 + np.exp(-base))).astype(np.int8)
    return labels, {name: (base + random.normal(0, 1, ROWS)).astype(np.float32) for name in ("wide", "deep")}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_figures_are_those_of_the_columns_as_written(tmp_path: Path, dtype: str) -> None:
    labels, logits = columns()
    predictions = Predictions(made_predictions(tmp_path, labels, logits, parts=PARTS, range_rows=499, dtype=dtype))
    found = prediction_figures(predictions, memory_bytes=MEMORY)
    part = np.repeat(list(PARTS), list(PARTS.values()))
    assert list(found.metrics) == ["wide", "deep", "merged"]
    assert list(found.by_part) == list(PARTS)
    for chosen, of in ((part != "", found.metrics), *((part == name, found.by_part[name]) for name in PARTS)):
        for name in logits:
            column = predictions.column(logit_column(name))[chosen]
            assert of[name] == metrics_of_logits(labels[chosen], column).as_json()
        assert of["merged"] == metrics_of_logits(labels[chosen], predictions.merged_logits()[chosen]).as_json()
    merged = 1 / (1 + np.exp(-predictions.merged_logits().astype(np.float64)))
    assert found.metrics["merged"]["auc"] == pytest.approx(roc_auc_score(labels, merged), rel=1e-12)
    assert found.metrics["merged"]["auprc"] == pytest.approx(average_precision_score(labels, merged), rel=1e-12)
    assert found.metrics["merged"]["brier"] == pytest.approx(brier_score_loss(labels, merged), rel=1e-12)
    assert sum(point["num_rows"] for point in found.curves["deep"]) == ROWS


@pytest.mark.parametrize("form", ["exact", "streaming"])
@pytest.mark.parametrize("size", [1.0, 100.0, 1e9])
def test_a_merge_of_one_member_has_its_figures(tmp_path: Path, form: figures.Form, size: float) -> None:
    labels, logits = columns()
    folder = made_predictions(tmp_path, labels, {"deep": logits["deep"] * np.float32(size)}, parts=PARTS)
    found = prediction_figures(Predictions(folder), memory_bytes=MEMORY, form=form)
    assert found.metrics["merged"] == found.metrics["deep"]
    assert found.curves["merged"] == found.curves["deep"]
    assert all(of["merged"] == of["deep"] for of in found.by_part.values())


def test_equal_logits_have_equal_figures_where_probabilities_are_one(tmp_path: Path) -> None:
    labels, _ = columns()
    wrong = np.where(labels == 1, -100.0, 100.0)
    folder = made_predictions(tmp_path, labels, {"wide": wrong, "deep": wrong})
    found = prediction_figures(Predictions(folder), memory_bytes=MEMORY).metrics
    assert found["merged"] == found["deep"] == found["wide"]
    assert found["merged"]["log_loss_nats"] == pytest.approx(100.0, rel=1e-12)


def test_less_memory_and_other_files_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, logits = columns()
    whole = prediction_figures(
        Predictions(made_predictions(tmp_path / "a", labels, logits, parts=PARTS)), memory_bytes=MEMORY
    )
    monkeypatch.setattr(ranking, "_most_rows", lambda _dtype, **_options: 500)
    cut = Predictions(made_predictions(tmp_path / "b", labels, logits, parts=PARTS, range_rows=64))
    assert prediction_figures(cut, memory_bytes=MEMORY) == whole


def test_one_part_is_ranked_once(tmp_path: Path) -> None:
    labels, logits = columns()
    predictions = Predictions(made_predictions(tmp_path, labels, logits, parts=PARTS), parts=["day_1"])
    told: list[str] = []
    found = prediction_figures(predictions, memory_bytes=MEMORY, beat=told.append)
    assert found.by_part == {"day_1": found.metrics}
    assert found.metrics["deep"]["num_rows"] == 1_800
    assert told.count("sorting scores") == 2 * 3  # negatives and positives of each column
    assert "figures of merged" in told


@pytest.mark.parametrize("parts", [PARTS, {"day_0": ROWS}])
def test_streaming_figures_are_the_exact_ones_with_auc_in_a_bracket(tmp_path: Path, parts: dict[str, int]) -> None:
    labels, logits = columns()
    predictions = Predictions(made_predictions(tmp_path, labels, logits, parts=parts, range_rows=499))
    exact = prediction_figures(predictions, memory_bytes=MEMORY)
    told: list[str] = []
    found = prediction_figures(predictions, memory_bytes=0, form="streaming", beat=told.append)
    assert "sorting scores" not in told
    assert found.curves == exact.curves
    pairs = [(found.metrics, exact.metrics), *((found.by_part[part], exact.by_part[part]) for part in parts)]
    for bracketed, of in pairs:
        assert list(bracketed) == list(of)
        for name, told_of in bracketed.items():
            assert told_of["auc_lower"] <= of[name]["auc"] <= told_of["auc_upper"]
            assert told_of["auc_upper"] - told_of["auc_lower"] < 1e-5
            assert told_of["auc"] == pytest.approx(of[name]["auc"], abs=1e-5)
            assert told_of["auprc"] is None
            exactly = {"auc", "auprc", "auc_lower", "auc_upper"}
            assert {k: v for k, v in told_of.items() if k not in exactly} == {
                k: v for k, v in of[name].items() if k not in exactly
            }


def test_rows_without_labels_have_no_figures(tmp_path: Path) -> None:
    _, logits = columns()
    assert prediction_figures(Predictions(made_predictions(tmp_path, None, logits)), memory_bytes=MEMORY) == Figures()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_bad_logits_are_refused_by_member_part_and_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    labels, logits = columns()
    predictions = Predictions(made_predictions(tmp_path, labels, logits, parts=PARTS, range_rows=500))
    read = predictions.read

    def spoiled(file: object, names: list[str]) -> dict[str, np.ndarray]:
        found = read(file, names)  # type: ignore[arg-type]
        if file is predictions.files[4] and "logit_deep" in found:  # rows 500 to 999 of day_1
            found["logit_deep"] = np.where(np.arange(500) == 7, np.float32(value), found["logit_deep"])
        return found

    monkeypatch.setattr(predictions, "read", spoiled)
    with pytest.raises(DataError, match=f"'deep' for row 507 of part 'day_1' is {value}"):
        prediction_figures(predictions, memory_bytes=MEMORY)


def test_progress_is_said_with_the_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_clock: Callable[[], float]
) -> None:
    labels, logits = columns()
    predictions = Predictions(made_predictions(tmp_path, labels, logits, parts=PARTS))
    monkeypatch.setattr(figures.time, "monotonic", made_clock)
    said: list[str] = []
    prediction_figures(predictions, memory_bytes=MEMORY, say=said.append)
    assert said[0].startswith("figures:") and "now wide, ETA" in said[0]
    assert "now merged, ETA" in said[-1]


@pytest.fixture
def made_clock() -> Callable[[], float]:
    seconds = iter(range(0, 100_000, 4))
    return lambda: float(next(seconds))
