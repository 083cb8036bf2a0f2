"""The table of figures at the end of a run."""

from __future__ import annotations

import numpy as np

from trainer.announcements import quality_table
from trainer.metrics.exact import metrics_of_logits


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
