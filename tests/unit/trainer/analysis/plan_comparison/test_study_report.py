"""The report of a study: errors of the held-out runs alone, every run in the table, and a chart."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.hardware_files import small_machine
from tests.unit.trainer.analysis.plan_comparison.made_points import made_point, made_study_point
from trainer.analysis.plan_comparison.study_report import as_json, draw, held_out_errors, markdown

MIB = 1 << 20
MACHINE = {"processor": "a processor", "cores": 2, "versions": {"torch": "2"}}
POINTS = [
    made_study_point(made_point(total=0.22), key="h1", growth=40 * MIB),
    made_study_point(made_point(total=0.15), key="h2", growth=50 * MIB),
    made_study_point(made_point(total=0.20), key="h3", growth=100 * MIB),
    made_study_point(made_point(total=2.0), key="c1", use="calibration", growth=1 * MIB),
    made_study_point(made_point(held={"table_weights": (1,)}), key="b1", use="bytes"),
]


def test_errors_are_of_runs_that_calibration_has_not_seen() -> None:
    step, growth = held_out_errors(POINTS)
    assert (step.runs, step.worst_key) == (3, "h2")
    assert (step.median, step.worst) == (pytest.approx(0.1), pytest.approx(0.25))
    assert (growth.median, growth.worst, growth.worst_key) == (pytest.approx(0.25), pytest.approx(0.5), "h3")
    assert held_out_errors(POINTS[3:]) == []


def test_every_run_is_in_the_table() -> None:
    text = markdown(POINTS, hardware=small_machine(), machine=MACHINE)
    assert "| step time, 1 rank(s) | 3 | 10.0% | 25.0% | h2 |" in text
    assert "| growth of peak memory | 3 | 25.0% | 50.0% | h3 |" in text
    assert "| 5 | exact in 4 |" in text
    assert "| h1 | held out | 220.0 | 200.0 | 1.10 | 50 | 40 | 1.25 |" in text
    assert sum(line.startswith(("| h", "| c", "| b")) for line in text.splitlines()) == 5 + 1


def test_the_json_has_both_sides() -> None:
    body = as_json(POINTS)
    assert body["runs"]["h1"]["predicted"]["step_seconds"] == 0.22
    assert body["runs"]["h1"]["measured"]["growth_bytes"] == [40 * MIB]
    assert not body["runs"]["b1"]["bytes_are_exact"] and body["runs"]["h2"]["bytes_are_exact"]


def test_the_chart_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "charts" / "scatter.png"
    path.parent.mkdir()
    draw(POINTS, path=str(path))
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000
