"""Figures: medians, targets, and how they are shown and kept."""

from __future__ import annotations

import json

import pytest

from trainer.analysis.bench.figures import Figure, Findings, machine, table


def test_of_several_runs_the_median_counts() -> None:
    findings = Findings()
    assert findings.add("speed", [3.0, 100.0, 2.0], "MB/s").value == 3.0
    assert findings.add("speed", 7, "MB/s").value == 7.0


@pytest.mark.parametrize(
    ("value", "bound", "verdict"),
    [(2.0, "least", "met"), (1.99, "least", "missed"), (2.0, "most", "met"), (2.01, "most", "missed")],
)
def test_the_target(value: float, bound: str, verdict: str) -> None:
    figure = Figure(name="x", value=value, unit="GiB", target=2.0, bound=bound)  # type: ignore[arg-type]
    assert figure.verdict == verdict


def test_the_table_shows_range_target_and_remarks() -> None:
    findings = Findings(remarks=["on a Sunday"])
    findings.add("speed", [10.0, 30.0, 20.0], "MB/s", target=25.0)
    findings.add("rows", 1_234_567, "rows", note="all of them")
    assert table(findings).splitlines() == [
        "  speed            20 MB/s  [10 .. 30]  (target >= 25: missed)",
        "  rows      1,234,567 rows  all of them",
        "  on a Sunday",
    ]


def test_what_is_kept_is_json() -> None:
    findings = Findings(facts={"rows": 3})
    findings.add("speed", [10.0, 30.0], "MB/s", target=25.0)
    kept = json.loads(json.dumps({"machine": machine(), **findings.as_dict()}))
    assert kept["figures"][0]["runs"] == [10.0, 30.0]
    assert kept["figures"][0]["verdict"] == "missed"
    assert kept["machine"]["cores"] >= 1
    assert kept["machine"]["versions"]["polars"]
