"""Columns judged against merged: their figures, the table's words, and the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.analysis.comparison import Judged, draw, judge, table
from trainer.analysis.intervals import Estimate, auc_difference, auc_estimate, log_loss_difference, mean_estimate
from trainer.metrics.exact import log_losses, metrics_of_probabilities

NUM_ROWS = 1_000


def columns() -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Labels as they are read, float, and three columns: one worse than merged, and a baseline."""
    random = np.random.default_rng(2)
    labels = (random.random(NUM_ROWS) < 0.3).astype(np.float64)
    merged = np.clip(0.3 + 0.3 * (labels - 0.5) + 0.1 * random.normal(size=NUM_ROWS), 0.01, 0.99)
    worse = 0.5 * merged + 0.5 * random.random(NUM_ROWS)
    return labels, {"worse": worse, "merged": merged, "a baseline": random.random(NUM_ROWS) * 0.98 + 0.01}


def test_each_column_is_judged_as_it_would_be_alone() -> None:
    labels, of = columns()
    judged = judge(labels, of)
    assert [one.name for one in judged] == list(of)
    whole = labels.astype(np.int64)
    for one in judged:
        column, merged = of[one.name], of["merged"]
        assert one == Judged(
            name=one.name,
            metrics=metrics_of_probabilities(whole, column),
            auc=auc_estimate(whole, column),
            log_loss=mean_estimate(log_losses(whole, column)),
            auc_gain=auc_difference(whole, column, merged),
            log_loss_gain=log_loss_difference(whole, column, merged),
        )


def test_a_worse_column_has_a_clear_loss_and_merged_none_to_itself() -> None:
    worse, merged, _ = judge(*columns())
    assert worse.auc_gain.value == pytest.approx(worse.auc.value - merged.auc.value, abs=1e-12)
    assert worse.log_loss_gain.value == pytest.approx(worse.log_loss.value - merged.log_loss.value, abs=1e-12)
    assert worse.auc_gain.value < 0 < worse.log_loss_gain.value
    assert worse.auc_gain.is_clear() and worse.log_loss_gain.is_clear()
    nothing = Estimate(value=0.0, standard_error=0.0)
    assert (merged.auc_gain, merged.log_loss_gain) == (nothing, nothing)


def test_the_table_word_for_word() -> None:
    judged = judge(*columns())
    worse, merged, _ = judged
    lines = table(judged).splitlines()
    assert lines[0] == "| column | AUC | log loss | NE | calibration | AUC − merged | log loss − merged |"
    assert lines[1] == "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    assert [line.split("|")[1].strip() for line in lines[2:5]] == ["worse", "**merged**", "a baseline"]
    figures = worse.metrics
    assert lines[2] == (
        f"| worse | {figures.auc:.5f} | {figures.log_loss_nats:.5f} | {figures.ne:.5f} | {figures.calibration:.4f}"
        f" | {worse.auc_gain.value:+.5f} ± {worse.auc_gain.half_width():.5f}"
        f" | {worse.log_loss_gain.value:+.5f} ± {worse.log_loss_gain.half_width():.5f} |"
    )
    assert lines[2].split("|")[6].strip().startswith("-") and lines[2].split("|")[7].strip().startswith("+")
    assert lines[3].endswith("| – | – |")
    assert lines[5] == ""
    assert lines[6] == (
        f"1,000 rows, label rate {merged.metrics.label_rate:.4f}. Log loss in nats. ±: half the 95 % interval of the"
        " paired difference over rows (DeLong; normal). Unpaired, AUC of merged is"
        f" {merged.auc.value:.4f} ± {merged.auc.half_width():.4f}, its log loss"
        f" {merged.log_loss.value:.4f} ± {merged.log_loss.half_width():.4f}."
    )
    assert len(lines) == 7


def test_the_picture_changes_with_what_stands_apart(tmp_path: Path) -> None:
    judged = judge(*columns())
    plain, apart = tmp_path / "plain.png", tmp_path / "apart.png"
    draw(judged, path=str(plain))
    draw(judged, path=str(apart), apart=["a baseline"])
    assert plain.read_bytes()[:8] == apart.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert plain.read_bytes() != apart.read_bytes()
