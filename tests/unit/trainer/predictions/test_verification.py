"""Verification: a whole folder passes, and whatever is missing, doubled or changed is named."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import DataError
from tests.support.made_predictions import made_predictions
from tests.unit.trainer.data.prepared import part_arrays, prepared_folder
from tools.verify_predictions import main
from trainer.predictions.figures import prediction_figures
from trainer.predictions.manifest import PredictionManifest
from trainer.predictions.reading import Predictions
from trainer.predictions.verification import verify_predictions

ARRAYS = {"b": part_arrays(15, seed=1), "a": part_arrays(10, seed=2)}
LABELS = np.concatenate([arrays.labels[:, 0] for arrays in ARRAYS.values()])
C2 = np.concatenate([arrays.sparse[:, 1] for arrays in ARRAYS.values()])
LOGITS = {
    name: np.random.default_rng(seed).normal(size=25).astype(np.float32) * 3 for name, seed in (("x", 1), ("y", 2))
}
FILE = "b-000000000005.parquet"  # rows 5 to 9 of b


def made(folder: Path, **options: object) -> str:
    kept: dict[str, Any] = {"kept": {"C2": C2}, "dictionary": "d1", **options}
    return made_predictions(folder, LABELS, LOGITS, parts={"b": 15, "a": 10}, range_rows=5, **kept)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(made(tmp_path / "predictions"))


@pytest.fixture
def data(tmp_path: Path) -> str:
    return prepared_folder(tmp_path / "data", ARRAYS)


def problems(folder: Path, **options: Any) -> list[str]:
    return list(verify_predictions(str(folder), **options).problems)


def rewrite(folder: Path, column: str, change: Callable[[np.ndarray], np.ndarray], *, name: str = FILE) -> None:
    """Changes a column of a file; the manifest's bytes and hash of it follow."""
    table = pq.read_table(folder / name)
    values = np.array(table.column(column).to_pylist())
    typed = pa.array(change(values).tolist(), type=table.schema.field(column).type)
    pq.write_table(table.set_column(table.column_names.index(column), column, typed), folder / name)
    content = (folder / name).read_bytes()
    manifest = PredictionManifest.read(str(folder))
    files = [
        dataclasses.replace(file, num_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        if file.path == name
        else file
        for file in manifest.files
    ]
    dataclasses.replace(manifest, files=tuple(files)).write(str(folder))


def at(place: int, value: Any) -> Callable[[np.ndarray], np.ndarray]:
    def put(values: np.ndarray) -> np.ndarray:
        values[place] = value
        return values

    return put


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"probabilities": True}, {"dtype": "float16"}, {"dtype": "float16", "probabilities": True}]
)
def test_a_whole_folder_passes(tmp_path: Path, data: str, quick: bool, options: dict[str, object]) -> None:
    advanced: list[int] = []
    found = verify_predictions(made(tmp_path / "p", **options), data=data, quick=quick, advance=advanced.append)
    assert (found.problems, found.num_files, found.num_rows) == ((), 5, 25)
    assert advanced == [5] * 5


def test_rows_without_labels_pass(tmp_path: Path) -> None:
    assert problems(Path(made_predictions(tmp_path, None, LOGITS, range_rows=10))) == []


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (("metrics", "y", "auc"), 0.25, "metrics.y.auc is 0.25, of the files 0."),
        (("metrics", "merged", "num_rows"), 24, "metrics.merged.num_rows is 24, of the files 25"),
        (("metrics", "x", "auprc"), None, "metrics.x.auprc is not there, of the files 0."),
        (("metrics_by_part", "a", "x", "ne"), 0.25, "metrics_by_part.a.x.ne is 0.25, of the files "),
        (("calibration_curves", "x", 0, "num_rows"), 7, "calibration_curves.x[0].num_rows is 7, of the files "),
    ],
)
def test_figures_that_are_not_the_files_are_named(
    folder: Path, place: tuple[Any, ...], value: float | None, told: str
) -> None:
    path = folder / "manifest.json"
    body = json.loads(path.read_text())
    inner = body
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path.write_text(json.dumps(body))
    (problem,) = problems(folder)
    assert problem.startswith(f"manifest.json: {told}")
    assert problems(folder, quick=True) == []


def test_figures_that_are_not_there_are_a_problem(folder: Path) -> None:
    manifest = PredictionManifest.read(str(folder))
    bare = dataclasses.replace(manifest, metrics={}, metrics_by_part={}, calibration_curves={})
    bare.write(str(folder))
    assert problems(folder) == ["manifest.json: has no figures, though all rows have labels"]
    dataclasses.replace(manifest, calibration_curves={}).write(str(folder))
    assert problems(folder)[0] == "manifest.json: calibration_curves.x is not there, of the files 15 values"


def test_streaming_figures_are_computed_as_such(folder: Path) -> None:
    found = prediction_figures(Predictions(str(folder)), memory_bytes=0, form="streaming")
    manifest = PredictionManifest.read(str(folder))
    dataclasses.replace(manifest, metrics=found.metrics, metrics_by_part=found.by_part).write(str(folder))
    assert problems(folder) == []
    found.metrics["merged"]["auc_upper"] += 1e-9
    dataclasses.replace(manifest, metrics=found.metrics, metrics_by_part=found.by_part).write(str(folder))
    assert [problem.split(" is ")[0] for problem in problems(folder)] == ["manifest.json: metrics.merged.auc_upper"]


@pytest.mark.parametrize("quick", [False, True])
def test_files_that_are_not_as_written(folder: Path, quick: bool) -> None:
    (folder / FILE).unlink()
    assert problems(folder, quick=quick) == [f"{FILE}: is missing, with rows 5 to 9 of b"]
    shutil.copy(folder / "b-000000000000.parquet", folder / "b-000000000003.parquet")
    (folder / "notes.txt").write_text("mine")
    assert problems(folder, quick=quick)[1:] == [
        "b-000000000003.parquet: rows twice: it is not in the manifest",
        "notes.txt: it is not in the manifest",
    ]
    cut = folder / "a-000000000000.parquet"
    size = cut.stat().st_size
    cut.write_bytes(cut.read_bytes()[:-8])
    first, second = problems(folder, quick=quick)[1:3]
    assert first == f"a-000000000000.parquet: has {size - 8:,} bytes, {size:,} were written, with rows 0 to 4 of a"
    assert second.startswith("a-000000000000.parquet: cannot be read (")


def test_a_changed_byte(folder: Path) -> None:
    content = bytearray((folder / FILE).read_bytes())
    content[content.index(b"logit_x", 200)] ^= 1  # of the footer's text
    (folder / FILE).write_bytes(content)
    assert problems(folder)[0] == f"{FILE}: its bytes have changed since they were written, with rows 5 to 9 of b"


@pytest.mark.parametrize(
    ("column", "change", "told"),
    [
        ("row", at(1, 7), "rows of b: missing 6; doubled 7"),
        ("row", at(4, 12), "rows of b: missing 9; not its own 12"),
        ("row", lambda rows: rows[::-1], "rows of b: in another order"),
        ("part", at(2, "a"), "has rows of 'a', not of 'b'"),
        ("label", lambda labels: 1 - labels, "its labels add up to "),
        ("label", lambda labels: np.where(np.arange(5) == 3, None, labels), "has 1 rows without a label"),
        ("logit_y", at(3, np.nan), "y is nan in row 8"),
        ("logit_y", at(3, np.inf), "y is inf in row 8"),
        ("merged", at(0, np.nan), "merged is nan in row 5"),
        ("merged", at(1, 0.5), "the merged probability is 0.5 in row 6, by the written logits "),
        ("logit_merged", at(2, np.nan), "merged is nan in row 7"),
        ("logit_merged", lambda logits: logits + 1e-4, "the merged logit is "),
        ("logit_x", lambda logits: logits + 0.01, "the merged probability is "),
    ],
)
def test_what_a_file_holds_is_looked_at(folder: Path, column: str, change: Any, told: str) -> None:
    rewrite(folder, column, change)
    (problem, *_) = problems(folder)
    assert problem.startswith(f"{FILE}: {told}"), problem
    assert problems(folder, quick=True) == []


def test_probabilities_are_those_of_the_logits(tmp_path: Path) -> None:
    folder = Path(made(tmp_path / "p", probabilities=True))
    rewrite(folder, "probability_y", lambda values: np.clip(values + 0.001, 0, 1))
    (problem,) = problems(folder)
    assert problem.startswith(f"{FILE}: the probability of y is ") and problem.endswith("so in 5 rows")


def _moved(values: np.ndarray, *, step: float) -> np.ndarray:
    return np.where(values > 0.5, values - step, values + step)


def test_a_merge_that_is_off_by_more_than_a_rounded_logit_is_named(tmp_path: Path) -> None:
    folder = Path(made(tmp_path / "p", dtype="float16"))
    for column, step in (("merged", 0.02), ("logit_merged", 0.2)):
        rewrite(folder, column, functools.partial(_moved, step=step))
        assert "the merged probability is" in problems(folder)[0]


def test_columns_of_another_type(folder: Path) -> None:
    table = pq.read_table(folder / FILE)
    place = table.column_names.index("logit_y")
    pq.write_table(table.set_column(place, "logit_y", table.column("logit_y").cast(pa.string())), folder / FILE)
    for quick in (False, True):
        assert f"{FILE}: column 'logit_y' holds string, not floating-point numbers" in problems(folder, quick=quick)


def test_a_missing_column(folder: Path) -> None:
    table = pq.read_table(folder / FILE).drop(["logit_y"])
    pq.write_table(table, folder / FILE)
    assert (
        "has columns part, row, label, C2, logit_x, logit_merged, merged; logit_y is not as in the manifest"
        in problems(folder)[-1]
    )


def test_a_manifest_with_another_hash_of_rows(folder: Path) -> None:
    manifest = PredictionManifest.read(str(folder))
    wrong = [dataclasses.replace(file, row_hash="0" * 16) if file.path == FILE else file for file in manifest.files]
    dataclasses.replace(manifest, files=tuple(wrong)).write(str(folder))
    assert "the hash of its row ids is " in problems(folder)[0]


@pytest.mark.parametrize(
    ("column", "change", "told"),
    [
        ("label", lambda labels: labels[::-1], "label is "),
        ("C2", at(2, 99), "C2 is 99 in row 7, in the data "),
    ],
)
def test_the_data_tell_what_the_folder_cannot(folder: Path, data: str, column: str, change: Any, told: str) -> None:
    rewrite(folder, column, change)
    assert all(line.startswith("manifest.json: ") for line in problems(folder)), "labels change figures alone"
    (problem, *_) = problems(folder, data=data)
    assert problem.startswith(f"{FILE}: {told}"), problem


def test_other_data_are_named(folder: Path, tmp_path: Path) -> None:
    longer = prepared_folder(tmp_path / "longer", {**ARRAYS, "a": part_arrays(12, seed=2)})
    assert f"a: has 12 rows in {longer}, 10 were scored" in problems(folder, data=longer)
    assert "rows 10 to 11 of a are missing" in problems(folder, data=longer)
    body = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**body, "data": {"dictionary": "another"}}))
    other = prepared_folder(tmp_path / "same", ARRAYS)
    assert problems(folder, data=other) == [f"{other}: has another dictionary than the rows that were scored"]
    with pytest.raises(DataError, match="no part 'b'"):
        problems(folder, data=prepared_folder(tmp_path / "parts", {"a": ARRAYS["a"]}))


def test_the_program(folder: Path, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), "--data", data]) == 0
    assert capsys.readouterr().out == f"{folder}: 25 rows in 5 files: each row once, all bytes as written\n"
    (folder / FILE).unlink()
    assert main([str(folder), "--quick"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{FILE}: is missing, with rows 5 to 9 of b",
        f"{folder}: problems: 1",
    ]
    assert main([str(folder / "nowhere")]) == 2
    assert main([data]) == 2
    assert "is not a manifest of predictions" in capsys.readouterr().err
