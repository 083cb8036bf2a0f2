"""The program that prepares click logs: its flags, its sentences and its exit codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.click_log import synthetic_lines, write_log
from tests.support.preparing import arrays_of, contents
from tools import prepare_criteo
from trainer.data.manifest import DataManifest
from trainer.data.mlperf import MULTI_HOT_SIZES
from trainer.data.preparing import preparation_command
from trainer.data.preparing.input_files import input_files
from trainer.data.preparing.preparation_command import ProgressLine
from trainer.data.preparing.stages import STAGES, PreparationProgress

MACHINE = ["--workers", "1", "--memory-gb", "2"]


@pytest.fixture
def days(tmp_path: Path) -> list[str]:
    sizes = {"day_0.tsv.gz": 130, "day_1.tsv": 90, "day_2.tsv.gz": 55}
    return [write_log(tmp_path / "logs" / name, synthetic_lines(rows, seed=rows)) for name, rows in sizes.items()]


def run(inputs: list[str], output: Path | str, *words: str) -> int:
    return prepare_criteo.main(["--input", *inputs, "--output", str(output), *MACHINE, *words])


def test_says_what_came_out(days, tmp_path, capsys):
    words = ("--vocabulary-from", "day_0")
    assert run(days, tmp_path / "data", *words) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[2].split()[:2] == ["day_1", "90"]
    assert said[-1] == "lines: 275 read = 275 rows + 0 bad ones"
    assert run(days, tmp_path / "data", *words) == 0
    assert "already prepared from these files with these settings; nothing to do" in capsys.readouterr().out
    assert run(days, tmp_path / "data", *words, "--min-count", "5") == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and len(captured.err.splitlines()) == 1 and not captured.out
    assert run(days, tmp_path / "data", *words, "--min-count", "5", "--overwrite") == 0


def test_bad_lines(days, tmp_path, capsys):
    lines = synthetic_lines(90, seed=90)
    lines[3] = "1\t2"
    write_log(Path(days[1]), lines)
    assert run(days, tmp_path / "data") == 2
    assert "worst is " + days[1] in capsys.readouterr().err
    assert run(days, tmp_path / "data", "--max-bad-fraction", "0.01") == 0
    assert f"274 rows + 1 bad ones in {tmp_path}/data/quarantine.jsonl" in capsys.readouterr().out


def test_patterns_are_sorted_by_number(tmp_path, capsys):
    for day in (0, 2, 10):
        write_log(tmp_path / f"day_{day}.tsv", synthetic_lines(3, seed=day))
    as_the_shell_gives = sorted(str(path) for path in tmp_path.glob("day_*.tsv"))
    assert run(as_the_shell_gives, tmp_path / "data") == 2
    assert "put the pattern in quotes" in capsys.readouterr().err
    assert run([str(tmp_path / "day_*.tsv")], tmp_path / "data") == 0
    assert [part.name for part in DataManifest.read(str(tmp_path / "data")).parts] == ["day_0", "day_2", "day_10"]
    backwards = [str(tmp_path / "day_2.tsv"), str(tmp_path / "day_0.tsv")]
    assert input_files(backwards, key="--input") == backwards  # an order of one's own


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--split", "train"], "--split: 'train' is not NAME=SHARE with a name of its own"),
        (["--split", "a=0.5", "a=0.5"], "--split: 'a=0.5' is not NAME=SHARE"),
        (["--random-split", "a=x"], "--random-split: 'a=x' is not NAME=SHARE"),
        (["--split", "a=1", "--random-split", "a=1"], "--split: give it or --random-split, not both"),
        (["--split", "a=0.5", "b=0.4"], "split: the shares sum to 0.9, not 1"),
        (["--vocabulary", "hash", "--min-count", "3"], "hash counts nothing, so --min-count has no meaning"),
        (["--vocabulary", "hash", "--hash-rows", "2"], "hash_rows: 2 must be from 3 to"),
        (["--hash-rows", "9"], "--hash-rows: has a meaning with --vocabulary hash only"),
        (["--dictionary", "x", "--max-rows", "9"], "ids come from x, so --max-rows has no meaning"),
        (["--dictionary", "x", "--vocabulary", "hash"], "ids come from x, so --vocabulary hash has no meaning"),
        (["--shard", "1"], "--shard: '1' is not I/N; write 0/24 to 23/24"),
        (["--shard", "2/2"], "shard: 2/2 is not one of 0/N to N-1/N"),
        (["--mlperf-float32"], "--mlperf-float32: has a meaning with --mlperf only"),
        (["--mlperf", "--numerics", "ids"], "--numerics: --mlperf says this already"),
        (["--mlperf", "--split", "a=1"], "--split: --mlperf says this already"),
        (["--mlperf", "--vocabulary-from", "day_0"], "--vocabulary-from: --mlperf says this already"),
        (["--vocabulary-from", "day_7"], "vocabulary_from: 'day_7' is not a part; choose from day_0, day_1, day_2"),
        (["--min-count", "0"], "min_count: 0 must be at least 1"),
        (["--max-rows", "0"], "max_rows: 0 must be at least 4"),
        (["--mlperf", "--min-count", "0"], "min_count: 0 must be at least 1"),
        (["--mlperf", "--max-rows", "0"], "max_rows: 0 must be at least 4"),
        (["--tokens", "int"], "worst is"),
    ],
)
def test_refused(days, tmp_path, capsys, words, reason):
    assert run(days, tmp_path / "data", *words) == 2
    said = capsys.readouterr().err
    assert reason in said and len(said.splitlines()) == 1
    assert not (tmp_path / "data" / "manifest.json").exists()


def test_missing_files(tmp_path, capsys):
    assert run([str(tmp_path / "no*.tsv")], tmp_path / "data") == 2
    assert "--input: no file matches" in capsys.readouterr().err
    assert run([str(tmp_path / "none")], tmp_path / "data") == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/none: ")


def test_unlabelled_logs(tmp_path):
    old = write_log(tmp_path / "day_0", synthetic_lines(30))
    new = write_log(tmp_path / "day_1.gz", synthetic_lines(20, seed=1, labelled=False))
    assert run([old], tmp_path / "old") == 0
    assert run([new], tmp_path / "new", "--dictionary", str(tmp_path / "old")) == 0
    assert "labels" not in arrays_of(tmp_path / "new", "day_1")
    assert (
        DataManifest.read(str(tmp_path / "new")).dictionary_sha256
        == DataManifest.read(str(tmp_path / "old")).dictionary_sha256
    )


def test_labelled_and_unlabelled_logs_are_not_mixed(tmp_path, capsys):
    old = write_log(tmp_path / "day_0", synthetic_lines(30))
    new = write_log(tmp_path / "day_1", synthetic_lines(20, labelled=False))
    assert run([old, new], tmp_path / "data") == 2
    assert (
        "day_1: its first line has no label, but one is expected; prepare such files apart" in capsys.readouterr().err
    )


def test_numerics_and_splits(days, tmp_path):
    assert run(days, tmp_path / "data", "--numerics", "both", "--random-split", "a=0.5", "b=0.5", "--seed", "3") == 0
    assert set(arrays_of(tmp_path / "data", "a")) == {"dense", "numeric_ids", "sparse", "labels"}
    assert run(days, tmp_path / "other", "--numerics", "both", "--random-split", "a=0.5", "b=0.5", "--seed", "4") == 0
    assert not np.array_equal(arrays_of(tmp_path / "data", "a")["labels"], arrays_of(tmp_path / "other", "a")["labels"])


def test_mlperf(days, tmp_path):
    assert run(days, tmp_path / "data", "--mlperf", "--multi-hot", "--max-rows", "50") == 0
    manifest = DataManifest.read(str(tmp_path / "data"))
    assert [(p.name, p.num_rows) for p in manifest.parts][2:] == [("day_2_val", 28), ("day_2_test", 27)]
    assert [f.bag_size or 1 for f in manifest.id_features] == list(MULTI_HOT_SIZES)
    assert max(f.rows or 0 for f in manifest.id_features) == 50


def test_reparse_and_shards_change_nothing(days, tmp_path):
    for name, words in (("one", []), ("two", ["--reparse"]), ("three", ["--shard", "0/1"])):
        assert run(days, tmp_path / name, *words) == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two") == contents(tmp_path / "three")


def test_ctrl_c(days, tmp_path, capsys, monkeypatch):
    def interrupt(*arguments: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(preparation_command, "prepare", interrupt)
        assert run(days, tmp_path / "data") == 130
    said = capsys.readouterr().err
    assert f"stopped; {tmp_path}/data is unfinished, the same command goes on from what is done" in said


def test_progress_has_an_eta(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(preparation_command.time, "monotonic", lambda: now[0])
    line = ProgressLine()
    for seconds in (1.0, 3.0, 4.0, 20.0):
        now[0] = 100.0 + seconds
        line(PreparationProgress(stage="parse", done=int(seconds * 10), total=400, num_rows=1_000, seconds=seconds))
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2, "quiet at first, then now and then"
    assert said[0].startswith(f"1/{len(STAGES)} reading:   8%, 1,000 rows, 333 rows/s, ETA 0:37") and "50%" in said[1]
