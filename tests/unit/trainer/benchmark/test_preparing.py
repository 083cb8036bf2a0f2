"""Preparing a benchmark's rows: once, compared with their source where that is named, and fit to be judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from configs.benchmark_schema import BenchmarkData, Window
from configs.errors import ChorusError, ConfigError
from tests.support.benchmarks import made_benchmark
from trainer.benchmark.preparing import prepare, prepared_folders
from trainer.data.manifest import DataManifest

SCHEMA = """
[table]
format = "csv"
[label]
column = "click"
[categorical]
user = {}
"""


def rows_of(folder: Path, clicks: str, *, test: str = "test") -> BenchmarkData:
    (folder / "rows.csv").write_text("\n".join(["click,user", *(f"{click},u{at}" for at, click in enumerate(clicks))]))
    (folder / "schema.toml").write_text(SCHEMA)
    made = made_benchmark(members=("deep",), groups=1, windows=("all",)).data
    window = Window(split={"train": 0.5, "test": 0.5}, train=("train",), test=(test,))
    return replace(made, schema=str(folder / "schema.toml"), files=("rows.csv",), windows={"all": window})


def run(data: BenchmarkData, folder: Path, *, source: str) -> list[str]:
    said: list[str] = []
    prepare(data, folders=prepared_folders(data, folder=str(folder / "runs")), source=source, say=said.append)
    return said


def test_rows_are_prepared_once_and_compared_with_a_source_that_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = rows_of(tmp_path, "01100110")
    assert len(run(data, tmp_path, source=str(tmp_path))) == 1
    folder = prepared_folders(data, folder=str(tmp_path / "runs"))["all"]
    assert [part.num_rows for part in DataManifest.read(folder).parts] == [4, 4]
    assert run(data, tmp_path, source="") == []
    run(data, tmp_path, source=str(tmp_path))
    rows_of(tmp_path, "011001100110")
    with pytest.raises(ChorusError, match="without --source"):
        run(data, tmp_path, source=str(tmp_path))
    assert "holds data prepared from other input files" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("clicks", "test", "said"),
    [
        ("01100000", "test", "part 'test' has 4 rows, 0 of them positive"),
        ("11110110", "test", "part 'train' has 4 rows, 4 of them positive"),
        ("01100110", "tset", "'tset' is no part of the rows; there are train, test"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_anything_is_trained(
    tmp_path: Path, clicks: str, test: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        run(rows_of(tmp_path, clicks, test=test), tmp_path, source=str(tmp_path))


@pytest.mark.parametrize(("source", "said"), [("", "--source: not given"), ("nowhere", "rows.csv is not there")])
def test_a_source_that_is_not_there_is_refused(tmp_path: Path, source: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run(rows_of(tmp_path, "0110"), tmp_path, source=source)
