"""The program that makes synthetic logs: the teacher's rows, any number of workers, whole days or none."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tools import make_synthetic
from trainer.data.synthetic import log_writing
from trainer.data.synthetic.teacher import Teacher
from trainer.data.synthetic.teacher_tables import terabyte_tables

ROOT = Path(__file__).resolve().parents[3]
KAGGLE = {"--tables": "kaggle", "--max-table-rows": "300"}
TERABYTE = {"--scale": "0.001", "--new-values": "0.1", "--label-rate": "0.1"}


def words(output: Path, **more: str) -> list[str]:
    flags = {"--days": "2", "--rows-per-day": "3000", "--seed": "5", "--workers": "1", **more}
    return ["--output", str(output), *(piece for pair in flags.items() for piece in pair)]


def make(output: Path, **more: str) -> int:
    return make_synthetic.main(words(output, **more))


def fields(path: Path) -> pl.DataFrame:
    content = path.read_bytes()
    text = gzip.decompress(content) if path.suffix == ".gz" else content
    return pl.read_csv(io.BytesIO(text), separator="\t", has_header=False, infer_schema=False)


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("form", ["tsv", "tsv.gz"])
def test_the_teachers_rows(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writing, "CHUNK_ROWS", 700)
    assert make(tmp_path / "logs", **KAGGLE, **{"--format": form}) == 0
    teacher = Teacher(5, 300)
    for day in (0, 1):
        rows = teacher.rows(np.arange(day * 3_000, (day + 1) * 3_000))
        read = fields(tmp_path / "logs" / f"day_{day}.{form}")
        assert read.shape == (3_000, 40)
        np.testing.assert_array_equal(read[:, 0].cast(pl.Int32).to_numpy(), rows.label)
        for feature in range(13):
            column = read[:, 1 + feature]
            np.testing.assert_array_equal(column.is_null().to_numpy(), rows.dense_missing[:, feature])
            np.testing.assert_array_equal(column.cast(pl.Int64).fill_null(0).to_numpy(), rows.dense_raw[:, feature])
        for feature in range(26):
            wanted = teacher.hashes(feature, np.maximum(rows.sparse_index[:, feature], 0)).tolist()
            there = rows.sparse_index[:, feature] >= 0
            texts = [f"{value:08x}" if kept else None for value, kept in zip(wanted, there, strict=True)]
            assert read[:, 14 + feature].to_list() == texts
    ceilings = json.loads((tmp_path / "logs" / "ceiling.json").read_text())
    assert set(ceilings) == {"day_0", "day_1"}
    exact = teacher.ceiling(np.arange(3_000, 6_000))
    assert ceilings["day_1"]["auc"] == pytest.approx(exact.auc, abs=1e-12)
    assert ceilings["day_1"]["num_rows"] == 3_000 and ceilings["day_1"]["auc_method"] == "exact"
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {f"day_0.{form}", f"day_1.{form}", "ceiling.json"}


def test_the_bytes_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    more = {**TERABYTE, "--rows-per-day": "150000", "--days": "1"}  # three chunks
    assert make(tmp_path / "one", **more, **{"--workers": "1"}) == 0
    assert make(tmp_path / "three", **more, **{"--workers": "3"}) == 0
    assert make(tmp_path / "again", **more, **{"--workers": "1"}) == 0
    assert hashes(tmp_path / "one") == hashes(tmp_path / "three") == hashes(tmp_path / "again")
    assert make(tmp_path / "other", **more, **{"--seed": "6"}) == 0
    assert hashes(tmp_path / "one")["day_0.tsv.gz"] != hashes(tmp_path / "other")["day_0.tsv.gz"]


def test_a_long_day_has_its_auc_from_bins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writing, "EXACT_ROWS", 2_999)
    assert make(tmp_path / "logs", **TERABYTE) == 0
    found = json.loads((tmp_path / "logs" / "ceiling.json").read_text())["day_1"]
    tables = terabyte_tables(scale=0.001, num_days=2, rows_per_day=3_000, renewed=0.1)
    exact = Teacher(5, max(tables.sizes), tables, 0.1).ceiling(np.arange(3_000, 6_000))
    assert "bins" in found["auc_method"] and 0 < found["auc_error"] < 0.01
    assert abs(found["auc"] - exact.auc) <= found["auc_error"]
    assert found["label_rate"] == pytest.approx(exact.label_rate)


def test_killed_and_started_again(tmp_path: Path) -> None:
    more = {**TERABYTE, "--rows-per-day": "200000", "--days": "3", "--format": "tsv", "--workers": "2"}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert make(whole, **more) == 0
    command = [sys.executable, str(ROOT / "tools" / "make_synthetic.py"), *words(cut, **more)]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (cut / "unfinished.json").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (cut / "ceiling.json").exists()
    for path in cut.glob("day_*.tsv"):  # what bears a day's name is whole
        assert hashes(whole)[path.name] == hashlib.sha256(path.read_bytes()).hexdigest()
    deadline = time.monotonic() + 30
    while _alive(process.pid):  # the workers end with the process that started them
        assert time.monotonic() < deadline
        time.sleep(0.05)
    written = (cut / "day_0.tsv").stat().st_mtime_ns
    assert make(cut, **more) == 0
    assert hashes(cut) == hashes(whole)
    assert (cut / "day_0.tsv").stat().st_mtime_ns == written  # not made again


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("delay", [0.05, 1.0])  # while the workers start, and while they work
def test_interrupted_by_hand(delay: float, tmp_path: Path) -> None:
    more = {"--rows-per-day": "20000000", "--days": "1", "--format": "tsv", "--workers": "2"}
    command = [sys.executable, str(ROOT / "tools" / "make_synthetic.py"), *words(tmp_path / "logs", **more)]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "logs" / "day_0.tsv.tmp").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "goes on with it" in told and "Traceback" not in told
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {"day_0.tsv.tmp"}


def test_another_order_does_not_take_over_days(tmp_path: Path) -> None:
    assert make(tmp_path / "logs", **TERABYTE) == 0
    days = {f"day_{day}": {"num_bytes": (tmp_path / "logs" / f"day_{day}.tsv.gz").stat().st_size} for day in (0, 1)}
    (tmp_path / "logs" / "unfinished.json").write_text(json.dumps({"order": {"seed": 1}, "days": days}))
    assert make(tmp_path / "logs", **TERABYTE, **{"--seed": "6"}) == 0
    assert make(tmp_path / "fresh", **TERABYTE, **{"--seed": "6"}) == 0
    assert hashes(tmp_path / "logs") == hashes(tmp_path / "fresh")


@pytest.mark.parametrize(
    ("flag", "value", "told"),
    [
        ("--days", "0", "--days: 0"),
        ("--rows-per-day", "-1", "--rows-per-day: -1"),
        ("--seed", "-1", "--seed: -1"),
        ("--workers", "0", "--workers: 0"),
        ("--scale", "0", "scale: 0.0"),
        ("--scale", "nan", "scale: nan"),
        ("--skew", "1", "skew: 1.0"),
        ("--new-values", "2", "new-values: 2.0"),
        ("--label-rate", "0", "label_rate: 0.0"),
        ("--max-table-rows", "10", "--max-table-rows: 10"),
    ],
)
def test_refused(flag: str, value: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(tmp_path / "logs", **{flag: value}) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "logs").exists()


def test_options_of_the_other_tables_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(tmp_path / "logs", **KAGGLE, **{"--scale": "1"}) == 2
    assert "--scale: 1.0 is for --tables terabyte" in capsys.readouterr().err
    assert make(tmp_path / "logs", **{"--tables": "kaggle", "--max-table-rows": "0"}) == 2
    assert "max_table_rows: 0" in capsys.readouterr().err


def test_days_of_another_log_are_not_mixed_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(tmp_path / "logs", **TERABYTE, **{"--days": "3", "--rows-per-day": "10"}) == 0
    assert make(tmp_path / "logs", **TERABYTE, **{"--days": "2", "--rows-per-day": "10"}) == 2
    assert "day_2.tsv.gz" in capsys.readouterr().err


def test_a_damaged_record_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "unfinished.json").write_text("{")
    assert make(tmp_path / "logs") == 2
    assert "unfinished.json is damaged" in capsys.readouterr().err


def test_a_file_in_the_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert make(tmp_path / "file" / "logs") == 1
    assert "cannot be written" in capsys.readouterr().err


def test_one_row_a_day(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(tmp_path / "logs", **{"--rows-per-day": "1", "--days": "3", "--format": "tsv"}) == 0
    assert [len(path.read_bytes().splitlines()) for path in sorted((tmp_path / "logs").glob("day_*"))] == [1, 1, 1]
    assert "AUC none" in capsys.readouterr().out
