"""Prediction files: each row once or no manifest, and folders that are not ours left alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from configs.errors import EXIT_REFUSED, DataError
from trainer import storage
from trainer.prediction_files import (
    PredictionFile,
    finish_folder,
    prepare_folder,
    probabilities,
    read_manifest,
    write_range,
)

MEMBERS = ("deep", "solo")
EXPECTED = {"day_1": 25, "day_0": 8}
RANGES = (("day_1", 0, 10), ("day_1", 10, 10), ("day_1", 20, 5), ("day_0", 0, 8))


def values(part: str, first_row: int, count: int) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    random = np.random.default_rng([ord(part[-1]), first_row])
    logits = {name: random.normal(size=count).astype(np.float32) for name in MEMBERS}
    merged = 1 / (1 + np.exp(-(logits["deep"] + logits["solo"]) / 2))
    return random.integers(0, 2, count), logits, merged.astype(np.float32)


def write(folder: Path, ranges: Sequence[tuple[str, int, int]] = RANGES) -> list[PredictionFile]:
    folder.mkdir(exist_ok=True)
    files = []
    for part, first_row, count in ranges:
        labels, logits, merged = values(part, first_row, count)
        files.append(
            write_range(str(folder), part=part, first_row=first_row, labels=labels, logits=logits, merged=merged)
        )
    return files


def finish(folder: Path, files: Sequence[PredictionFile]) -> None:
    finish_folder(str(folder), files=files, expected=EXPECTED, members=MEMBERS, provenance={"merge_rule": "median"})


def refusal(folder: Path, files: Sequence[PredictionFile]) -> str:
    with pytest.raises(DataError) as refused:
        finish(folder, files)
    assert not (folder / "manifest.json").exists()
    assert refused.value.exit_code == EXIT_REFUSED
    return str(refused.value)


def test_a_file_holds_the_columns_as_given(tmp_path: Path) -> None:
    (file,) = write(tmp_path, [("day_1", 10, 6)])
    labels, logits, merged = values("day_1", 10, 6)
    table = pq.read_table(tmp_path / file.path)
    assert table.column_names == ["part", "row", "label", "logit_deep", "logit_solo", "merged"]
    assert [str(table.schema.field(name).type) for name in ("row", "label", "logit_deep", "merged")] == [
        "int64",
        "int8",
        "float",
        "float",
    ]
    assert table.column("part").to_pylist() == ["day_1"] * 6
    assert table.column("row").to_pylist() == list(range(10, 16))
    assert table.column("label").to_pylist() == labels.tolist()
    assert np.array_equal(table.column("logit_solo").to_numpy(), logits["solo"])
    assert np.array_equal(table.column("merged").to_numpy(), merged)
    assert file == PredictionFile(
        path="day_1-000000000010.parquet",
        part="day_1",
        first_row=10,
        num_rows=6,
        label_sum=int(labels.sum()),
        num_bytes=(tmp_path / file.path).stat().st_size,
        sha256=storage.sha256(str(tmp_path / file.path)),
    )


def test_a_finished_folder_says_what_it_holds(tmp_path: Path) -> None:
    files = write(tmp_path)
    finish(tmp_path, [files[i] for i in (3, 2, 0, 1)])  # as ranks happen to gather them
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["format"], manifest["format_version"], manifest["num_rows"]) == ("chorus-predictions", 1, 33)
    assert manifest["parts"] == [{"name": "day_1", "num_rows": 25}, {"name": "day_0", "num_rows": 8}]
    assert manifest["members"] == list(MEMBERS)
    assert manifest["merge_rule"] == "median"
    assert manifest["files"] == [dataclasses.asdict(file) for file in files]
    rows = [values(*piece) for piece in RANGES]
    labels = np.concatenate([piece[0] for piece in rows])
    for name in MEMBERS:
        logits = np.concatenate([piece[1][name] for piece in rows]).astype(np.float64)
        found = manifest["metrics"][name]
        assert found["auc"] == pytest.approx(roc_auc_score(labels, logits))
        assert found["log_loss_nats"] == pytest.approx(log_loss(labels, 1 / (1 + np.exp(-logits))))
    merged = np.concatenate([piece[2] for piece in rows]).astype(np.float64)
    assert manifest["metrics"]["merged"]["auc"] == pytest.approx(roc_auc_score(labels, merged))
    assert manifest["metrics"]["merged"]["log_loss_nats"] == pytest.approx(log_loss(labels, merged))


def test_figures_come_from_the_files_not_from_memory(tmp_path: Path) -> None:
    files = write(tmp_path)
    labels, logits, merged = values("day_0", 0, 8)
    write_range(str(tmp_path), part="day_0", first_row=0, labels=1 - labels, logits=logits, merged=merged)
    finish(tmp_path, files)
    changed = json.loads((tmp_path / "manifest.json").read_text())["metrics"]
    other = tmp_path / "other"
    finish(other, write(other))
    assert changed != json.loads((other / "manifest.json").read_text())["metrics"]


def test_missing_rows_leave_the_folder_unfinished(tmp_path: Path) -> None:
    files = write(tmp_path)
    assert refusal(tmp_path, [files[0], files[2], files[3]]) == (
        f"{tmp_path}: rows 10 to 20 of day_1 are missing or doubled; score again"
    )
    assert refusal(tmp_path, files[:2] + files[3:]) == (
        f"{tmp_path}: {{'day_1': 20, 'day_0': 8}} rows written, {{'day_1': 25, 'day_0': 8}} read; score again"
    )
    assert "rows written" in refusal(tmp_path, files[:3])
    assert "rows written" in refusal(tmp_path, [])


def test_doubled_rows_leave_the_folder_unfinished(tmp_path: Path) -> None:
    files = write(tmp_path)
    assert refusal(tmp_path, [*files, files[1]]) == (
        f"{tmp_path}: rows 20 to 10 of day_1 are missing or doubled; score again"
    )
    (longer,) = write(tmp_path, [("day_1", 5, 10)])
    assert "missing or doubled" in refusal(tmp_path, [*files, longer])


def test_too_many_rows_leave_the_folder_unfinished(tmp_path: Path) -> None:
    files = write(tmp_path, [*RANGES, ("day_0", 8, 3)])
    assert "'day_0': 11} rows written" in refusal(tmp_path, files)


def test_the_manifest_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise OSError("cannot read back")

    monkeypatch.setattr("trainer.prediction_files.metrics_as_written", fail)
    with pytest.raises(OSError, match="cannot read back"):
        finish(tmp_path, files)
    assert not (tmp_path / "manifest.json").exists()


def test_an_unfinished_folder_is_emptied(tmp_path: Path) -> None:
    folder = tmp_path / "predictions"
    write(folder)
    (folder / "day_1-000000000020.parquet.tmp").write_bytes(b"half")
    (folder / "manifest.json.tmp").write_bytes(b"half")
    prepare_folder(str(folder))
    assert list(folder.iterdir()) == []
    prepare_folder(str(tmp_path / "new" / "deep"))
    assert (tmp_path / "new" / "deep").is_dir()


def test_a_finished_folder_is_refused_and_untouched(tmp_path: Path) -> None:
    finish(tmp_path, write(tmp_path))
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(DataError) as refused:
        prepare_folder(str(tmp_path))
    assert str(refused.value) == (
        f"--output: {str(tmp_path)!r} holds finished predictions; give another folder, or delete it"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "predictions"
    path.write_text("mine")
    with pytest.raises(DataError) as refused:
        prepare_folder(str(path))
    assert str(refused.value) == f"--output: {str(path)!r} is a file; name a folder"
    assert path.read_text() == "mine"


def test_finished_predictions_are_read_back(tmp_path: Path) -> None:
    written = write(tmp_path)
    finish_folder(
        str(tmp_path),
        files=written,
        expected=EXPECTED,
        members=MEMBERS,
        provenance={"data": {"root": "days", "dictionary": "d1"}},
    )
    found = read_manifest(str(tmp_path))
    assert (found.members, found.files, found.dictionary) == (MEMBERS, tuple(written), "d1")
    assert found.metrics == json.loads((tmp_path / "manifest.json").read_text())["metrics"]
    for files, ranges in ((found.files, RANGES), (found.files[3:], RANGES[3:])):
        columns = probabilities(str(tmp_path), files, members=found.members)
        assert list(columns) == [*MEMBERS, "merged"]
        rows = [values(*piece) for piece in ranges]
        for name in MEMBERS:
            logits = np.concatenate([piece[1][name] for piece in rows]).astype(np.float64)
            np.testing.assert_allclose(columns[name], 1 / (1 + np.exp(-logits)), rtol=1e-14)
        assert np.array_equal(columns["merged"], np.concatenate([piece[2] for piece in rows]).astype(np.float64))


def test_probabilities_of_huge_logits_stay_probabilities(tmp_path: Path) -> None:
    huge = np.array([-800.0, 0.0, 800.0], dtype=np.float32)
    file = write_range(
        str(tmp_path), part="a", first_row=0, labels=np.array([0, 1, 1]), logits={"deep": huge}, merged=huge * 0
    )
    with np.errstate(all="raise", under="ignore"):
        columns = probabilities(str(tmp_path), [file], members=["deep"])
    assert columns["deep"].tolist() == [0.0, 0.5, 1.0]


def test_what_is_no_finished_folder_is_not_read(tmp_path: Path) -> None:
    def sentence() -> str:
        with pytest.raises(DataError) as refused:
            read_manifest(str(tmp_path))
        return str(refused.value)

    assert sentence() == (
        f"{str(tmp_path)!r} has no manifest.json, so it holds no finished predictions; run trainer/score.py"
    )
    path = tmp_path / "manifest.json"
    for text, problem in (
        ('{"format": "chorus-data", "format_version": 1}', "ValueError(\"format 'chorus-data', version 1\")"),
        (
            '{"format": "chorus-predictions", "format_version": 2}',
            "ValueError(\"format 'chorus-predictions', version 2\")",
        ),
        ('{"format": "chorus-predictions", "format_version": 1}', "KeyError('members')"),
        ("[]", "TypeError('list indices must be integers or slices, not str')"),
    ):
        path.write_text(text)
        assert sentence() == f"{path} is not a manifest of predictions ({problem}); run trainer/score.py again"
    path.write_text("{")
    assert sentence().startswith(f"{path} is not a manifest of predictions (JSONDecodeError(")


@pytest.mark.parametrize(
    "name",
    ["manifest.json.tmp.bak", "x-manifest.json.tmp", "notes.txt", "day_0.parquet", "day_1-000000000020.parquet.bak"],
)
def test_a_folder_with_other_files_is_refused_and_untouched(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    (tmp_path / name).write_text("mine")
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(DataError) as refused:
        prepare_folder(str(tmp_path))
    assert str(refused.value) == (
        f"--output: {str(tmp_path)!r} holds {name!r}, which is no prediction file; give an empty folder"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == before
