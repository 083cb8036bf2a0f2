"""The scoring benchmark: what it refuses, its arithmetic, and a small run of all that it measures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.errors import EXIT_DONE, EXIT_REFUSED
from tools import bench_scoring
from trainer.analysis.bench import scoring_speed
from trainer.analysis.bench.figures import Findings, markdown
from trainer.analysis.bench.scoring_speed import MemberShape


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["speed"], "SECTION: 'speed' is none of members, bound, memory, forms, auc"),
        (["--rows", "10"], "--rows: 10 must be at least 1,000"),
        (["--rows", "2000"], "--batch-size: 4096 is more than --rows, 2000"),
        (["--repeats", "0"], "--repeats: 0 must be above zero"),
        (["--shapes", "4"], r"--shapes: [4] must be numbers from 1 to 3"),
        (["--score.tables=int8"], "--score.tables=int8: no such flag; keys of a run are for forms with --checkpoint"),
    ],
)
def test_what_is_refused(words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_scoring.main(["--folder", str(tmp_path / "bench"), *words]) == EXIT_REFUSED
    assert told in capsys.readouterr().err
    assert not (tmp_path / "bench").exists()


def test_members_are_judged_by_shared_and_dense_cost() -> None:
    """Each round by itself: S = 2 s, D = 1 s, and a second round that is twice as slow in everything."""
    counts = scoring_speed.COUNTS
    rounds = (1.0, 2.0)
    seconds = {"S": [2.0 * slow for slow in rounds], "D": [1.0 * slow for slow in rounds]}
    seconds |= {f"K{count}": [(2.0 + count) * 1.05 * slow for slow in rounds] for count in counts}
    seconds |= {f"separate{count}": [3.5 * count * slow for slow in rounds] for count in counts}
    findings = Findings()
    shape = MemberShape(hidden=(200, 80), precision="bf16", most_of_separate=0.65)
    scoring_speed._add_members(findings, shape, seconds, rows=1_000_000)
    figures = {figure.name.partition(": ")[2]: figure for figure in findings.figures}
    assert figures["S, shared cost"].runs == (2.0, 4.0)  # us a row
    assert figures["K = 8, one job"].value == pytest.approx(15.75)
    off = figures["K = 4, off S + K D by"]
    assert off.value == pytest.approx(0.05) and off.verdict == "met"
    share = figures["K = 8, one job of K jobs' time"]
    assert share.value == pytest.approx(10.5 / 28) and (share.target, share.verdict) == (0.65, "met")
    assert figures["K = 4, one job of K jobs' time"].target is None


def test_figures_as_markdown() -> None:
    findings = Findings()
    findings.add("speed", [1.0, 3.0, 2.0], "rows/s", target=2.5)
    findings.add("share", 0.5, "", bound="most", target=0.65, note="of all")
    findings.remarks.append("on one core")
    assert markdown(findings) == [
        "| Figure | Median | Lowest to highest | Target |",
        "|---|---|---|---|",
        "| speed | 2 rows/s | 1 to 3 | at least 2.5: missed |",
        "| share (of all) | 0.5 |  | at most 0.65: met |",
        "",
        "on one core.",
    ]


@pytest.mark.slow
def test_every_section_on_few_rows(tmp_path: Path) -> None:
    output, lines = tmp_path / "figures.json", tmp_path / "figures.md"
    words = ["--rows", "2048", "--table-rows", "500", "--batch-size", "256", "--repeats", "1", "--shapes", "1"]
    words += ["--auc-rows", "50000", "--auc-columns", "1", "--output", str(output), "--markdown", str(lines)]
    assert bench_scoring.main(["--folder", str(tmp_path / "bench"), *words]) == EXIT_DONE
    kept = json.loads(output.read_text())
    assert list(kept) == list(bench_scoring.SECTIONS)
    forms = {figure["name"]: figure["value"] for figure in kept["forms"]["figures"]}
    assert 0 < forms["copies as one: largest difference of a logit"] < 1e-4
    assert 0 < forms["fp16 tables: largest difference of a logit"] < forms["int8 tables: largest difference of a logit"]
    bytes_of = kept["forms"]["facts"]["table_bytes"]
    assert bytes_of["int8 tables"] < bytes_of["fp16 tables"] < bytes_of["fp32"] == 26 * 500 * 16 * 4
    seconds = kept["members"]["facts"]["mlp 200-80 bf16"]
    assert all(value > 0 for values in seconds.values() for value in values)
    assert [line for line in lines.read_text().splitlines() if line.startswith("#")] == [
        f"### {section}" for section in bench_scoring.SECTIONS
    ]
    assert list((tmp_path / "bench").iterdir()) == []  # nothing is left
