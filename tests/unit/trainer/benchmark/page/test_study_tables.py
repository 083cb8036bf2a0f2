"""The tables and charts of diversity and stability: their figures are those of the studies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.benchmarks import made_results
from trainer.benchmark.diversity import diversity_study
from trainer.benchmark.page.diversity_chart import diversity_chart, drawn_study
from trainer.benchmark.page.look import strategy_marks
from trainer.benchmark.page.stability_chart import stability_chart
from trainer.benchmark.page.study_tables import diversity_section, stability_section
from trainer.benchmark.points import points
from trainer.benchmark.report import Report
from trainer.benchmark.stability import stabilities

NOISES = {"deep": 1.0, "cross": 1.2, "dot": 1.5, "wide": 1.1, "fm": 1.8}


@pytest.fixture(scope="module")
def studied() -> Report:
    results = made_results(noises=NOISES, num_rows=200, diversity=("kinds",))
    return Report(
        results=results,
        points=points(results),
        num_trainings=15,
        machine="a machine",
        diversity=diversity_study(results),
        stability=stabilities(results),
    )


def test_correlations_stand_in_their_places(studied: Report) -> None:
    text = diversity_section(studied)
    study = next(one for one in studied.diversity if one.size == 2)
    part = text.split("K = 2: 10 subsets")[1]
    (line,) = [line for line in part.splitlines() if line.startswith("| mean correlation of two members' logits")][:1]
    row = next(one for one in study.rows if (one.measure, one.gain) == ("logit_correlation", "auc_over_best"))
    assert line.split("|")[3].strip(" *").startswith(f"{row.correlation.value:+.2f}".replace("-", "−"))
    assert "by identity" in part
    assert "nan" not in text.lower()


def test_a_dot_is_a_subset_at_its_means_over_groups(studied: Report) -> None:
    study = drawn_study(studied.diversity)
    panel: Any = diversity_chart(study).axes[0]
    dots = panel.lines[-1].get_xydata()
    subsets = {one.columns for one in study.points}
    assert len(dots) == len(subsets) == len(study.points) / 3
    same = [one for one in study.points if one.columns == study.points[0].columns]
    assert dots[0] == pytest.approx(
        [
            np.mean([one.measures["logit_correlation"] for one in same]),
            np.mean([one.gains["log_loss_over_best"] for one in same]),
        ]
    )


def test_bars_and_rows_are_the_largest_sizes_the_steadiest_first(studied: Report) -> None:
    marks = strategy_marks({name: one.family for name, one in studied.benchmark.strategies.items()})
    wanted = [
        next(one for one in studied.stability if (one.strategy, one.size) == place).mean_change.value
        for place in (("kinds", 5), ("single", 1))
    ]
    axes: Any = stability_chart(studied, marks=marks).axes[0]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(sorted(wanted))
    lines = stability_section(studied).splitlines()
    assert [line.split("|")[3].split()[0] for line in lines[-2:]] == [f"{value:.4f}" for value in sorted(wanted)]
