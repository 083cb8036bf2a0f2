"""The program that reports on an ensemble: its files, its tables, and its page in a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.support.browser import browse
from tests.support.made_predictions import made_predictions
from tools import report_ensemble

NUM_ROWS = 3_000
NAMES = ("cross", "deep", "</style><b>", "größe & <i>")  # names are shown as they are, whatever they hold


def made(path: Path, names: tuple[str, ...] = NAMES) -> Path:
    draw = np.random.default_rng(0)
    truth = draw.normal(-1.0, 1.0, NUM_ROWS)
    labels = (draw.random(NUM_ROWS) < 1 / (1 + np.exp(-truth))).astype(np.int8)
    logits = {name: truth + draw.normal(0, 0.4 + 0.05 * place, NUM_ROWS) for place, name in enumerate(names)}
    kept = {"C1": draw.integers(0, 60, NUM_ROWS), "C2": np.array(["a", "<u>"])[draw.integers(0, 2, NUM_ROWS)]}
    kept |= {"price": draw.random(NUM_ROWS), "C3": np.where(np.arange(NUM_ROWS) == 7, "once", "often")}
    made_predictions(path, labels, logits, parts={"day_0": 2_000, "day_1": 1_000}, kept=kept)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("predictions"))


def run(folder: Path, output: Path, *more: str) -> int:
    files = ["--html", str(output / "report.html"), "--json", str(output / "report.json")]
    return report_ensemble.main([str(folder), *files, *more])


def test_files_and_tables(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.iterdir())
    assert run(folder, tmp_path, "--slice", "C2", "--group", "C1", "--seed", "3") == 0
    assert sorted(folder.iterdir()) == before
    figures = json.loads((tmp_path / "report.json").read_text())
    assert (figures["format"], figures["format_version"]) == ("chorus-ensemble-report", 1)
    assert figures["studied"]["seed"] == 3 and "--slice C2 --group C1 --seed 3" in figures["command"]
    printed = capsys.readouterr().out
    assert " ".join(figures["conclusion"]["sentences"])[:60] in printed.replace("\n", " ")
    for column in figures["columns"]:
        assert f"{column['all_rows']['log_loss_nats']:.5f}" in printed and column["name"] in printed
    for one in figures["worth"]["members"]:
        assert f"{one['shapley']['log_loss_nats']['value']:.5f}" in printed
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r"(src|href)=(?![\"']?data:)|https?://|@import|url\(|<script", page)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--max-rows", "3"), "--max-rows: 3"),
        (("--slice", "C9"), "kept no column 'C9'"),
        (("--group", "C9"), "kept no column 'C9'"),
        (("--slice", "price"), "column 'price': holds numbers with fractions"),
        (("--group", "price"), "only integers or texts can be sliced or grouped"),
    ],
)
def test_refused(more: tuple[str, ...], told: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(folder, tmp_path, *more) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_folders_without_what_is_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "nowhere", tmp_path) == 2
    assert "holds no finished predictions" in capsys.readouterr().err
    made_predictions(tmp_path / "bare", None, {"a": np.zeros(50)})
    assert run(tmp_path / "bare", tmp_path) == 2
    assert "rows without a label" in capsys.readouterr().err
    made_predictions(tmp_path / "few", [0, 1], {"a": np.zeros(2)})
    assert run(tmp_path / "few", tmp_path) == 2
    assert "has 2 rows" in capsys.readouterr().err


def test_a_place_that_cannot_be_written(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(folder, tmp_path / "file") == 2
    printed = capsys.readouterr()
    assert "--json: the folder" in printed.err and "is not a folder" in printed.err
    assert "checking" not in printed.err and not printed.out  # before any work
    assert report_ensemble.main([str(folder), "--html", str(tmp_path)]) == 2
    assert "--html: " in capsys.readouterr().err


def test_the_page_in_a_browser(folder: Path, tmp_path: Path) -> None:
    assert run(folder, tmp_path, "--slice", "C2", "--group", "C1") == 0
    drawn = browse(tmp_path / "report.html")
    figures = json.loads((tmp_path / "report.json").read_text())
    for chart in (
        "log_loss_nats-minus-merged",
        "auc_delong-minus-merged",
        "leave-one-out",
        "shapley",
        "curve-log-loss",
        "curve-auc",
    ):
        assert drawn.counts[chart] == 4
    assert drawn.counts["extrapolated"] == 2
    assert drawn.counts["correlation"] == drawn.counts["disagreement"] == 4 * 3
    bins = figures["reliability"][-1]["bins"]
    assert drawn.counts["reliability"] == drawn.counts["reliability-ratio"] == len(bins)
    assert drawn.counts["reliability-members"] == 4
    assert drawn.counts["slices-part"] == drawn.counts["slices-C2"] == 2
    text = "\n".join(drawn.text)
    for told in (*NAMES, *figures["conclusion"]["sentences"], figures["scored"]["row_hash"], figures["command"], "<u>"):
        assert told in text
    for column in figures["columns"]:
        assert f"{column['all_rows']['auc']:.5f}" in text


@pytest.mark.parametrize("num_members", [1, 2])
def test_a_page_of_few_members(num_members: int, tmp_path: Path) -> None:
    assert run(made(tmp_path / "predictions", NAMES[:num_members]), tmp_path) == 0
    drawn = browse(tmp_path / "report.html")
    assert drawn.counts["curve-auc"] == (2 if num_members == 2 else 0) and drawn.counts["extrapolated"] == 0
    assert ("only member" in "\n".join(drawn.text)) == (num_members == 1)


def test_a_slice_of_one_row_is_shown_without_an_interval(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, tmp_path, "--slice", "C3") == 0
    values = {one["value"]: one for one in json.loads((tmp_path / "report.json").read_text())["slices"][1]["values"]}
    once = values["once"]
    assert once["num_rows"] == 1 and once["is_too_few"] and once["merged"]["auc"] is None
    assert once["difference"]["low"] is None and values["often"]["difference"]["low"] is not None
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("once")]
    assert "too few rows" in line and "1.00000" not in line
    page = (tmp_path / "report.html").read_text()
    assert "too few rows" in page and page.count('data-chart="slices-C3"') == 1
