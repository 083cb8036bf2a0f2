"""The table of figures at the end of a run, and advice at its start."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from configs.schema import Run
from tests.support.made_predictions import made_predictions
from trainer import announcements
from trainer.announcements import metrics_of, quality_table, say_where_bf16_is_slow
from trainer.metrics.exact import metrics_of_logits
from trainer.predictions.manifest import PredictionManifest
from trainer.runtime import Runtime


def test_a_line_per_column_lined_up() -> None:
    labels, logits = np.array([0, 1, 1, 0]), np.array([-1.0, 2.0, 0.5, 0.0])
    table = quality_table({"a_long_name": metrics_of_logits(labels, logits), "b": metrics_of_logits(labels, -logits)})
    lines = table.splitlines()
    assert lines[0].split() == ["member", "AUC", "log", "loss", "NE", "calibration"]
    assert [line.split()[:2] for line in lines[1:]] == [["a_long_name", "1.00000"], ["b", "0.00000"]]
    assert len({len(line) for line in lines}) == 1


def test_figures_that_are_not_defined_are_shown_as_such() -> None:
    one_class = metrics_of_logits(np.zeros(3, np.int8), np.zeros(3))
    assert quality_table({"deep": one_class}).splitlines()[1].split() == ["deep", "nan", "0.69315", "nan", "nan"]


def test_figures_of_a_manifest_are_those_of_its_columns(tmp_path: Path) -> None:
    labels, logits = np.zeros(3, np.int8), np.array([0.5, -1.0, 2.0], dtype=np.float32)
    manifest = PredictionManifest.read(made_predictions(tmp_path, labels, {"deep": logits}))
    figures = metrics_of(manifest)
    assert list(figures) == ["deep", "merged"]
    assert repr(figures["deep"]) == repr(metrics_of_logits(labels, logits)), "NaN where one is not defined"


@pytest.mark.parametrize(
    ("precision", "has_kernels", "says"), [("bf16", False, True), ("bf16", True, False), ("fp32", False, False)]
)
def test_bf16_is_advised_against_where_the_cpu_emulates_it(
    precision: str, has_kernels: bool, says: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(announcements, "has_bf16_kernels", lambda: has_kernels)
    say_where_bf16_is_slow(precision, runtime=Runtime(Run(device="cpu")))
    assert ("'fp32' is faster" in capsys.readouterr().out) == says
