"""The benchmark program: every section from end to end on few rows, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tools import bench_data

LONG, SHORT = ("parsers", "prepare", "loader"), ("memory", "scale")


def bench(folder: Path, *words: str) -> int:
    return bench_data.main([*words, "--folder", str(folder / "bench"), "--repeats", "1"])


def by_name(section: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {figure["name"]: figure for figure in section["figures"]}


@pytest.mark.parametrize("section", [*SHORT, *(pytest.param(name, marks=pytest.mark.slow) for name in LONG)])
def test_a_section(section: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "kept.json"
    kept.write_text('{"other": {}}')
    words = ["--rows", "2000", "--workers", "2", "--batch-rows", "500", "--output", str(kept)]
    assert bench(tmp_path, section, *words) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{section}\n")
    assert "python tools/make_synthetic.py" in said.err
    found = json.loads(kept.read_text())
    assert set(found) == {"other", section}
    figures = by_name(found[section])
    assert found[section]["facts"]["rows"] == 2_000
    assert found[section]["machine"]["cores"] >= 1
    assert all(figure["value"] >= 0 for figure in figures.values())
    _expect(section, figures)
    assert not any((tmp_path / "bench").iterdir())


def _expect(section: str, figures: dict[str, dict[str, Any]]) -> None:
    if section == "parsers":
        assert {"polars", "pyarrow.csv", "torchrec tsv_to_npys"} < set(figures)
    if section == "prepare":
        ratio = figures["hash"]["value"] / figures["torchrec"]["value"]
        assert figures["hash: times torchrec"]["value"] == pytest.approx(ratio)
        assert figures["hash: times torchrec"]["target"] == 10
    if section == "memory":
        assert 2_000 < figures["different values over all features"]["value"] < 26 * 2_000
        assert 0.05 < figures["peak anonymous memory of all processes"]["value"] < 2
    if section == "scale":
        hours = [figures[f"24 days prepared on {cores} cores"]["value"] for cores in (2, 16, 64)]
        assert hours == sorted(hours, reverse=True)
    if section == "loader":
        assert figures["file order, batches of 500"]["target"] == 20


def test_files_stay_where_asked(tmp_path: Path) -> None:
    assert bench(tmp_path, "parsers", "--rows", "1000", "--keep") == 0
    assert (tmp_path / "bench" / "bench_parsers" / "log" / "day_0.tsv").exists()


def test_a_section_that_goes_over_its_limit_fails(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert bench(tmp_path, "memory", "--rows", "1000", "--limit", "prlimit --data=50000000") == 1
    assert "error: tools/prepare_criteo.py: ended with code" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["speed"], "SECTION: 'speed' is none of parsers, prepare"),
        (["parsers", "--rows", "10"], "--rows: 10 must be at least 1,000"),
        (["loader", "--batch-rows", "0"], "--batch-rows: 0 must be above zero"),
        (["scale", "--rows", "99000000000"], "GB free, this takes up to"),
    ],
)
def test_what_it_refuses(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(tmp_path, *words) == 2
    assert message in capsys.readouterr().err
