"""The program that reports on prepared data: its files, its table, and its page in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tests.support.folders import write_folder
from tools import report_data
from trainer.data.manifest import FeatureSpec

NAMES = ("C1", "</script><b>", "größe & <i>")  # names are shown as they are, whatever they hold
FEATURES = (
    *(FeatureSpec(name=name, kind="id", file="sparse", column=at, rows=400) for at, name in enumerate(NAMES)),
    FeatureSpec(name="I1", kind="dense", file="dense", column=0, transform="signed_log1p"),
    FeatureSpec(name="I2", kind="dense", file="dense", column=1),
)
ROWS = {"day_0": 3_000, "day_1": 2_000, "day_2": 0, "day_3": 500}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw, parts = np.random.default_rng(0), {}
    for number, (name, num_rows) in enumerate(ROWS.items()):
        ids = np.minimum(draw.zipf(1.4, (num_rows, 3)) - 1 + number * 20, 399)
        parts[name] = {
            "sparse": ids.astype(np.int32),
            "dense": draw.normal(size=(num_rows, 2)).astype(np.float32),
            "labels": (draw.random((num_rows, 1)) < 0.1).astype(np.int32),
        }
    del parts["day_3"]["labels"]
    write_folder(tmp_path / "data", features=FEATURES, parts=parts, num_rows=ROWS)
    return tmp_path / "data"


def run(folder: Path, *more: str) -> int:
    return report_data.main(["--root", str(folder), "--workers", "1", *more])


def test_files_and_table(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name for path in folder.iterdir()}
    assert run(folder) == 0
    assert {path.name for path in folder.iterdir()} == before  # nothing is added to the prepared folder
    figures = json.loads((tmp_path / "data_report" / "report.json").read_text())
    assert (figures["format"], figures["format_version"]) == ("chorus-data-report", 1)
    (c1, *_) = figures["id_features"]
    assert {"name", "table_rows", "distinct", "missing_share", "top_shares", "zipf_exponent", "mean_bag_length"} <= set(
        c1
    )
    printed = capsys.readouterr().out
    label_rate = figures["parts"][0]["label_rate"]
    assert re.search(rf"day_0 +3,000 +{label_rate:.2%}\n", printed)
    assert re.search(r"day_3 +500 +-\n", printed)
    assert re.search(rf"C1 +{c1['distinct']} +{c1['missing_share']:.2%}", printed)
    page = (tmp_path / "data_report" / "report.html").read_text()
    assert not re.search(r"(src|href)=(?![\"']?data:)|https?://(?!www\.w3\.org/2000/svg)|@import|url\(", page)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--memory-gb", "0"), "--memory-gb: 0.0"),
        (("--memory-gb", "nan"), "--memory-gb: nan"),
        (("--workers", "0"), "--workers: 0"),
        (("--reference", "day_9"), "no part 'day_9'"),
    ],
)
def test_refused(more: tuple[str, ...], told: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, *more) == 2
    assert told in capsys.readouterr().err
    assert not (folder.parent / "data_report").exists()


def test_a_folder_that_is_not_prepared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "nowhere") == 2
    assert "no folder" in capsys.readouterr().err
    (tmp_path / "bare").mkdir()
    assert run(tmp_path / "bare") == 2
    assert "its preparation did not finish" in capsys.readouterr().err
    (tmp_path / "bare" / "manifest.json").write_text("[]")
    assert run(tmp_path / "bare") == 2
    assert "not a manifest" in capsys.readouterr().err


def test_a_place_that_cannot_be_written(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(folder, "--output", str(tmp_path / "file" / "report")) == 1
    assert "file" in capsys.readouterr().err


class Drawn(HTMLParser):
    """Counts bars and cells by chart, and gathers the text."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        chart = dict(attrs).get("data-chart")
        if chart is not None:
            self.counts[chart] = self.counts.get(chart, 0) + 1

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def browse(page: Path) -> tuple[str, str]:
    """The page's elements after its scripts have run, and what the browser's console said."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    browser = next((found for name in names if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium to open the page in")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    command += [f"--user-data-dir={page.parent / 'profile'}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def test_the_page_in_a_browser(folder: Path, tmp_path: Path) -> None:
    assert run(folder) == 0
    page = tmp_path / "data_report" / "report.html"
    elements, console = browse(page)
    assert console == ""
    drawn = Drawn()
    drawn.feed(elements)
    assert drawn.counts["rows"] == 4
    assert drawn.counts["label-rate"] == 2  # one part is empty, one without labels
    assert drawn.counts["distinct"] == 3
    assert drawn.counts["id-drift"] == 3 * 3 and drawn.counts["missing"] == 3 * 4
    assert drawn.counts["unseen"] == 3 * 3
    assert drawn.counts["number-drift"] == 2 * 3
    assert drawn.counts["quantiles"] == 2 * 3  # one part is empty
    assert set(NAMES) <= set(drawn.text)
    figures = json.loads((page.parent / "report.json").read_text())
    assert f"{figures['id_features'][0]['distinct']:,}" in drawn.text


def test_a_broken_page_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "broken.html"
    page.write_text("<!doctype html><body><script>nothing.there();</script></body>")
    assert "nothing is not defined" in browse(page)[1]


def test_a_page_about_nothing(tmp_path: Path) -> None:
    empty = {"sparse": np.zeros((0, 3), np.int32), "dense": np.zeros((0, 2), np.float32)}
    write_folder(tmp_path / "data", features=FEATURES, parts={"day_0": empty}, num_rows={"day_0": 0})
    assert run(tmp_path / "data") == 0
    elements, console = browse(tmp_path / "data_report" / "report.html")
    assert console == "" and "no labels" in elements
