"""Preparation: the folder against a plain-Python preparation, and everything that must leave it unfinished."""

from __future__ import annotations

import gzip
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchrec.datasets.criteo import InMemoryBinaryCriteoIterDataPipe

from configs.errors import ChorusError, DataError
from tests.unit.trainer.data.test_criteo import plain_parse, synthetic_lines
from tools import prepare_criteo
from trainer import storage
from trainer.data import prepared_folder
from trainer.data.dictionary import Dictionary, dictionary_sha256
from trainer.data.manifest import DataManifest
from trainer.data.preparation import already_prepared, part_name, prepare

BLOCK = 9_000  # bytes: several blocks for each of the small files


def write_log(path: Path, lines: list[str]) -> str:
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return str(path)


@pytest.fixture
def days(tmp_path: Path) -> list[str]:
    sizes = {"day_0.tsv.gz": 130, "day_1.tsv": 90, "day_2.tsv.gz": 55}
    logs = tmp_path / "logs"
    logs.mkdir()
    return [write_log(logs / name, synthetic_lines(rows, seed=rows)) for name, rows in sizes.items()]


def lines_of(path: str) -> list[str]:
    data = Path(path).read_bytes()
    return (gzip.decompress(data) if path.endswith(".gz") else data).decode().splitlines()


def plain_ids(vocabulary_lines: list[str], lines: list[str], min_count: int) -> np.ndarray:
    seen = [plain_parse(line)[2] for line in vocabulary_lines]
    columns = []
    for feature in range(26):
        counts = Counter(row[feature] for row in seen if row[feature] is not None)
        kept = sorted((v for v, n in counts.items() if n >= min_count), key=lambda v: (-counts[v], v))
        ids: dict[int | None, int] = {value: place + 2 for place, value in enumerate(kept)}
        ids[None] = 0
        columns.append([ids.get(plain_parse(line)[2][feature], 1) for line in lines])
    return np.array(columns).T


def load(output: str | Path, part: str) -> dict[str, np.ndarray]:
    return {role: np.load(Path(output) / f"{part}_{role}.npy") for role in ("dense", "sparse", "labels")}


def assert_part(output: Path, part: str, lines: list[str], vocabulary: list[str], min_count: int) -> None:
    arrays = load(output, part)
    assert {role: str(array.dtype) for role, array in arrays.items()} == {
        "dense": "float32",
        "sparse": "int32",
        "labels": "int32",
    }
    parsed = [plain_parse(line) for line in lines]
    np.testing.assert_array_equal(arrays["labels"], [[label] for label, _, _ in parsed])
    np.testing.assert_array_equal(arrays["dense"], np.array([dense for _, dense, _ in parsed], np.float32))
    np.testing.assert_array_equal(arrays["sparse"], plain_ids(vocabulary, lines, min_count))


@pytest.mark.parametrize("min_count", [1, 2, 4])
def test_a_part_for_each_file(days: list[str], tmp_path: Path, min_count: int) -> None:
    output = tmp_path / "data"
    manifest = prepare(inputs=days, output=str(output), min_count=min_count, block_bytes=BLOCK)
    vocabulary = lines_of(days[0]) + lines_of(days[1])
    for number, path in enumerate(days):
        assert_part(output, f"day_{number}", lines_of(path), vocabulary, min_count)
    assert [(part.name, part.num_rows) for part in manifest.parts] == [("day_0", 130), ("day_1", 90), ("day_2", 55)]
    assert DataManifest.read(str(output)) == manifest
    dictionaries = {f.name: Dictionary.read(f"{output}/dictionary/{f.name}.parquet") for f in manifest.id_features}
    assert [d.rows for d in dictionaries.values()] == [f.rows for f in manifest.id_features]
    assert dictionary_sha256(dictionaries) == manifest.dictionary_sha256
    for part in manifest.parts:
        assert part.label_sum == load(output, part.name)["labels"].sum()
        for file in part.files.values():
            path = str(output / file.path)
            assert (storage.num_bytes(path), storage.sha256(path)) == (file.num_bytes, file.sha256)
    assert not (output / prepared_folder.UNFINISHED_NAME).exists()


@pytest.mark.parametrize("vocabulary_from", [None, ["valid"], ["train", "test"]])
def test_split_over_all_files(days: list[str], tmp_path: Path, vocabulary_from: list[str] | None) -> None:
    output = tmp_path / "data"
    prepare(
        inputs=days,
        output=str(output),
        split={"train": 0.29, "valid": 0.6, "test": 0.11},
        vocabulary_from=vocabulary_from,
        block_bytes=BLOCK,
    )
    lines = [line for path in days for line in lines_of(path)]
    assert len(lines) == 275
    parts = {"train": lines[:79], "valid": lines[79:244], "test": lines[244:]}
    chosen = vocabulary_from or ["train", "valid"]
    vocabulary = [line for name in chosen for line in parts[name]]
    for name, wanted in parts.items():
        assert_part(output, name, wanted, vocabulary, 2)


def test_split_is_exact_in_decimals(tmp_path: Path) -> None:
    log = write_log(tmp_path / "a.tsv", synthetic_lines(100))
    manifest = prepare(inputs=[log], output=str(tmp_path / "data"), split={"train": 0.29, "valid": 0.71})
    assert [part.num_rows for part in manifest.parts] == [29, 71]


def test_block_size_and_packing_change_nothing(days: list[str], tmp_path: Path) -> None:
    one = prepare(inputs=days, output=str(tmp_path / "one"), block_bytes=3_000)
    plain = tmp_path / "plain"
    plain.mkdir()
    same = [write_log(plain / f"day_{number}.tsv", lines_of(path)) for number, path in enumerate(days)]
    other = prepare(inputs=same, output=str(tmp_path / "other"))
    assert (one.parts, one.features, one.dictionary_sha256) == (other.parts, other.features, other.dictionary_sha256)


def test_torchrec_reads_the_folder(days: list[str], tmp_path: Path) -> None:
    output = tmp_path / "data"
    prepare(inputs=days, output=str(output))
    paths = {role: [str(output / f"day_{d}_{role}.npy") for d in (0, 1)] for role in ("dense", "sparse", "labels")}
    for mmap_mode in (False, True):
        seen = []
        for rank in (0, 1):
            pipe = InMemoryBinaryCriteoIterDataPipe(
                stage="train",
                dense_paths=paths["dense"],
                sparse_paths=paths["sparse"],
                labels_paths=paths["labels"],
                batch_size=32,
                rank=rank,
                world_size=2,
                mmap_mode=mmap_mode,
            )
            seen.append(list(pipe))
        assert sum(len(batch.labels) for batches in seen for batch in batches) == 220
        first, arrays = seen[0][0], load(output, "day_0")
        np.testing.assert_array_equal(first.dense_features.numpy(), arrays["dense"][:32])
        np.testing.assert_array_equal(first.labels.numpy(), arrays["labels"][:32, 0])
        np.testing.assert_array_equal(first.sparse_features.values().reshape(26, 32).T.numpy(), arrays["sparse"][:32])


def test_already_prepared(days: list[str], tmp_path: Path) -> None:
    how: dict[str, Any] = {"inputs": days, "output": str(tmp_path / "data")}
    assert already_prepared(**how) is None
    made = prepare(**how)
    times = {path: os.stat(path).st_mtime_ns for path in (tmp_path / "data").iterdir()}
    assert already_prepared(**how) == made == prepare(**how)
    os.utime(days[0])  # another time, the same bytes
    assert prepare(**how) == made
    assert {path: os.stat(path).st_mtime_ns for path in (tmp_path / "data").iterdir()} == times
    with pytest.raises(DataError, match="min_count 2, not 3; give --overwrite"):
        prepare(**how, min_count=3)
    with pytest.raises(DataError, match="other input files"):
        prepare(**{**how, "inputs": [*days[:2], write_log(tmp_path / "day_2.tsv", synthetic_lines(7))]})
    again = prepare(**how, min_count=3, overwrite=True)
    assert again.provenance["min_count"] == 3 and DataManifest.read(str(tmp_path / "data")) == again
    (tmp_path / "data" / "day_1_sparse.npy").write_bytes(b"cut")
    with pytest.raises(DataError, match="day_1_sparse.npy: is gone or of another size"):
        prepare(**how, min_count=3)


def test_changed_input_is_noticed(days: list[str], tmp_path: Path) -> None:
    prepare(inputs=days, output=str(tmp_path / "data"))
    data = bytearray(Path(days[1]).read_bytes())
    data[0] ^= 1  # 0 <-> 1: another label, the same size
    Path(days[1]).write_bytes(data)
    with pytest.raises(DataError, match="other input files or other bytes"):
        prepare(inputs=days, output=str(tmp_path / "data"))


def spoil(path: str, line: int, text: str) -> None:
    lines = lines_of(path)
    lines[line - 1] = text
    write_log(Path(path), lines)


@pytest.mark.parametrize("bad", ["1\t2", "x" + "\t" * 39, "0" + "\t" * 38 + "\t100000000"])
@pytest.mark.parametrize("place", [0, 2])
def test_a_bad_line_leaves_nothing_finished(days: list[str], tmp_path: Path, bad: str, place: int) -> None:
    good = Path(days[place]).read_bytes()
    spoil(days[place], 50, bad)
    output = tmp_path / "data"
    with pytest.raises(DataError, match="line 50: ") as refusal:
        prepare(inputs=days, output=str(output), block_bytes=BLOCK)
    assert days[place] in str(refusal.value)
    with pytest.raises(DataError, match="preparation did not finish"):
        DataManifest.read(str(output))
    Path(days[place]).write_bytes(good)
    prepare(inputs=days, output=str(output))
    assert_part(output, "day_2", lines_of(days[2]), lines_of(days[0]) + lines_of(days[1]), 2)


@pytest.mark.parametrize("stage", ["count", "vocabulary", "write"])
def test_interrupted_anywhere_then_done_anew(days: list[str], tmp_path: Path, stage: str) -> None:
    def interrupt(now: Any) -> None:
        if now.stage == stage and now.num_rows > 100:
            raise KeyboardInterrupt

    output = tmp_path / "data"
    with pytest.raises(KeyboardInterrupt):
        prepare(inputs=days, output=str(output), block_bytes=BLOCK, on_progress=interrupt)
    assert already_prepared(inputs=days, output=str(output)) is None
    prepare(inputs=days, output=str(output))
    # Replacing finished data and being interrupted must not leave the old manifest over new files.
    with pytest.raises(KeyboardInterrupt):
        prepare(inputs=days, output=str(output), block_bytes=BLOCK, on_progress=interrupt, overwrite=True)
    assert not (output / "manifest.json").exists()


def test_the_old_manifest_goes_before_its_files(
    days: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "data"
    prepare(inputs=days, output=str(output))
    removed: list[str] = []

    def remove_one_then_fail(path: str) -> None:
        if removed:
            raise OSError(5, "Input/output error")
        removed.append(path)
        os.remove(path)

    monkeypatch.setattr(storage, "remove_file", remove_one_then_fail)
    monkeypatch.setattr(storage, "remove_tree", remove_one_then_fail)
    with pytest.raises(ChorusError, match="Input/output error"):
        prepare(inputs=days, output=str(output), overwrite=True)
    assert removed == [str(output / "manifest.json")]
    monkeypatch.undo()
    prepare(inputs=days, output=str(output))


def test_disk_full(days: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_append = prepared_folder._NpyWriter.append

    def append(writer: Any, rows: np.ndarray) -> None:
        real_append(writer, rows)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepared_folder._NpyWriter, "append", append)
    with pytest.raises(ChorusError, match="cannot be written .No space left on device.") as refusal:
        prepare(inputs=days, output=str(tmp_path / "data"))
    assert refusal.value.exit_code == 1
    assert not (tmp_path / "data" / "manifest.json").exists()


def test_input_that_grows_while_read(days: list[str], tmp_path: Path) -> None:
    def grow(now: Any) -> None:
        if now.stage == "write" and now.num_rows == 130:
            write_log(Path(days[1]), synthetic_lines(91, seed=90))

    with pytest.raises(DataError, match="day_1.tsv: its lines changed while they were read"):
        prepare(inputs=days, output=str(tmp_path / "data"), on_progress=grow)
    assert not (tmp_path / "data" / "manifest.json").exists()


def test_what_a_killed_preparation_left_is_its_own(days: list[str], tmp_path: Path) -> None:
    output = tmp_path / "data"
    output.mkdir()
    for name in ("unfinished.json", "manifest.json.tmp", "unfinished.json.tmp", "day_0_dense.npy"):
        (output / name).write_text("{}")
    manifest = prepare(inputs=days, output=str(output))
    assert DataManifest.read(str(output)) == manifest
    assert not list(output.glob("*.tmp")) and not (output / "unfinished.json").exists()


def test_never_touches_foreign_files(days: list[str], tmp_path: Path) -> None:
    output = tmp_path / "data"
    for name in ("thesis.txt", "day_0_dense.npy", "logs.tsv.gz", "manifest.json.bak"):
        output.mkdir()
        (output / name).write_text("mine")
        for overwrite in (False, True):
            with pytest.raises(DataError, match="choose an empty folder"):
                prepare(inputs=days, output=str(output), overwrite=overwrite)
        assert [(path.name, path.read_text()) for path in output.iterdir()] == [(name, "mine")]
        shutil.rmtree(output)
    with pytest.raises(DataError, match="is a file"):
        prepare(inputs=days, output=days[0])


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"inputs": []}, "inputs: none given"),
        ({"inputs": ["nowhere.tsv"]}, "nowhere.tsv: no such file"),
        ({"inputs": ["a b.tsv"]}, "'a b' cannot name a part"),
        ({"inputs": ["x/day_0.tsv", "y/day_0.tsv.gz"]}, "several files would make a part 'day_0'"),
        ({"inputs": ["x.tsv", "x.tsv"], "split": {"a": 1.0}}, "x.tsv is named twice"),
        ({"min_count": 0}, "min_count: 0 must be at least 1"),
        ({"vocabulary_from": ["day_9"]}, "vocabulary_from: 'day_9' is not a part; choose from day_0, day_1, day_2"),
        ({"vocabulary_from": []}, "vocabulary_from: nothing is not a part"),
        ({"split": {"train": 0.9, "valid": 0.2}}, "the shares sum to 1.1, not 1"),
        ({"split": {"train": 1.5, "valid": -0.5}}, "train=1.5 must be above 0"),
        ({"split": {"a.b": 1.0}}, "'a.b' cannot name a part"),
        ({"split": {"train": 0.999, "valid": 0.001}, "inputs": 1}, "part 'train' would have no row of 1"),
    ],
)
def test_refused_settings(days: list[str], tmp_path: Path, how: dict[str, Any], reason: str) -> None:
    if how.get("inputs") == 1:
        how = {**how, "inputs": [write_log(tmp_path / "one.tsv", synthetic_lines(1))]}
    with pytest.raises(DataError) as refusal:
        prepare(**{"inputs": days, "output": str(tmp_path / "data"), **how})
    assert reason in str(refusal.value)
    assert not (tmp_path / "data" / "manifest.json").exists()


def test_part_names() -> None:
    assert [part_name(path) for path in ("a/day_0.tsv.gz", "day_1", "s3://b/x.txt", "t.gz")] == [
        "day_0",
        "day_1",
        "x",
        "t",
    ]


def test_the_program(days: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(tmp_path / "data")
    arguments = ["--input", *days, "--output", output, "--vocabulary-from", "day_0"]
    assert prepare_criteo.main(arguments) == 0
    assert "day_1               90" in capsys.readouterr().out
    assert prepare_criteo.main(arguments) == 0
    assert "already prepared" in capsys.readouterr().out
    assert prepare_criteo.main([*arguments, "--min-count", "5"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    spoil(days[2], 3, "1\t2")
    assert prepare_criteo.main([*arguments, "--overwrite"]) == 2
    captured = capsys.readouterr()
    assert "day_2.tsv.gz, line 3: 2 fields" in captured.err and len(captured.err.splitlines()) == 1
    assert prepare_criteo.main(["--input", str(tmp_path / "no*.tsv"), "--output", output]) == 2
    assert prepare_criteo.main([*arguments, "--split", "train"]) == 2
    assert "NAME=SHARE" in capsys.readouterr().err


def test_the_program_sorts_patterns_by_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for day in (0, 2, 10):
        write_log(tmp_path / f"day_{day}.tsv", synthetic_lines(3, seed=day))
    output = str(tmp_path / "data")
    as_the_shell_gives = sorted(str(path) for path in tmp_path.glob("day_*.tsv"))
    assert prepare_criteo.main(["--input", *as_the_shell_gives, "--output", output]) == 2
    assert "put the pattern in quotes" in capsys.readouterr().err
    assert prepare_criteo.main(["--input", str(tmp_path / "day_*.tsv"), "--output", output]) == 0
    assert [part.name for part in DataManifest.read(output).parts] == ["day_0", "day_2", "day_10"]
