"""Scoring is exact: each row once, figures equal an independent computation over the files as written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from modules.tables import build_tables
from tests.support.commands import run_python, run_torchrun
from tests.support.runs import small_run
from tests.support.state import whole_tensors
from trainer.assembly import shard_task
from trainer.built_task import build_task
from trainer.checkpoints.loading import Wanted, load
from trainer.checkpoints.manifest import read_manifest
from trainer.data.reading.batch import make_batch
from trainer.data.reading.source import PreparedSource
from trainer.failures import guard
from trainer.runtime import Runtime
from trainer.score import main as score

MEMBERS = ("deep", "cross", "dot", "factor")
# 131 rows in ranges of 40 and batches of 16: ragged ranges, ragged batches, and at 4 ranks idle ones.
CUTS = ("--score.range_rows=40", "--score.batch_size=16")


def _score(trained, output: Path, *words: str, ranks: int) -> dict:
    common = ("--checkpoint", str(trained.checkpoint), "--output", str(output), *CUTS, *words)
    run = run_python if ranks == 1 else lambda *args: run_torchrun(*args, ranks=ranks)
    done = run("trainer/score.py", *common)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((output / "manifest.json").read_text())


def _columns(folder: Path, manifest: dict) -> dict[str, np.ndarray]:
    tables = [pq.read_table(folder / file["path"]) for file in manifest["files"]]
    names = tables[0].column_names
    return {name: np.concatenate([np.asarray(table.column(name).to_pylist()) for table in tables]) for name in names}


@pytest.fixture(scope="module")
def scored(trained, tmp_path_factory) -> dict[int, Path]:
    folders = {}
    for ranks in (1, 2, 4):
        folders[ranks] = tmp_path_factory.mktemp("scored") / str(ranks)
        _score(trained, folders[ranks], ranks=ranks)
    return folders


def test_every_row_once_in_order_at_every_world_size(trained, scored):
    expected = [("day_0", row) for row in range(200)] + [("day_1", row) for row in range(131)] + [("day_2", 0)]
    for folder in scored.values():
        manifest = json.loads((folder / "manifest.json").read_text())
        columns = _columns(folder, manifest)
        assert list(zip(columns["part"], columns["row"], strict=True)) == expected
        assert manifest["num_rows"] == len(expected)
        assert {file.name for file in folder.glob("*.parquet")} == {file["path"] for file in manifest["files"]}
        labels = np.concatenate([np.load(trained.data / f"day_{day}_labels.npy").ravel() for day in range(3)])
        np.testing.assert_array_equal(columns["label"], labels)


def test_the_files_have_the_promised_columns(scored):
    (file, *_) = sorted(scored[2].glob("*.parquet"))
    schema = pq.read_schema(file)
    assert schema.names == ["part", "row", "label", *(f"logit_{name}" for name in MEMBERS), "merged"]
    assert {str(schema.field(name).type) for name in schema.names[3:]} == {"float"}


def test_bytes_do_not_depend_on_the_world_size(scored):
    for file in scored[1].glob("*.parquet"):
        for ranks in (2, 4):
            assert file.read_bytes() == (scored[ranks] / file.name).read_bytes(), (ranks, file.name)


def test_figures_equal_scikit_learn_on_the_written_columns(scored):
    manifest = json.loads((scored[2] / "manifest.json").read_text())
    columns = _columns(scored[2], manifest)
    labels = columns["label"]
    base = np.mean(labels)
    entropy = -(base * np.log(base) + (1 - base) * np.log(1 - base))
    logits = np.stack([columns[f"logit_{name}"] for name in MEMBERS], axis=1).astype(np.float64)
    probabilities = {name: 1 / (1 + np.exp(-logits[:, index])) for index, name in enumerate(MEMBERS)}
    merged = 1 / (1 + np.exp(-logits.mean(axis=1)))
    np.testing.assert_array_equal(columns["merged"].astype(np.float32), merged.astype(np.float32))
    probabilities["merged"] = columns["merged"].astype(np.float32).astype(np.float64)
    assert set(manifest["metrics"]) == set(probabilities)
    for name, probability in probabilities.items():
        figures = manifest["metrics"][name]
        assert figures["num_rows"] == len(labels)
        assert figures["auc"] == pytest.approx(roc_auc_score(labels, probability), abs=1e-12)
        assert figures["log_loss_nats"] == pytest.approx(log_loss(labels, probability), rel=1e-9)
        assert figures["ne"] == pytest.approx(log_loss(labels, probability) / entropy, rel=1e-9)
        assert figures["calibration"] == pytest.approx(probability.sum() / labels.sum(), rel=1e-9)


def test_logits_equal_those_of_the_unsharded_model(trained, scored):
    source = PreparedSource(root=str(trained.data), parts=["day_0", "day_1", "day_2"])
    config = small_run(f"--data.root={trained.data}", '--data.train=["day_0"]')
    built = build_task(config, features=source.features)
    with Runtime(config.run) as runtime:
        sharded = shard_task(built, rows_per_rank=16, runtime=runtime)
        wanted = Wanted.weights(sharded.model.state_dict())
        load(read_manifest(str(trained.checkpoint)), wanted, ranks=runtime.ranks, say=runtime.say)
        weights = whole_tensors(wanted.state, runtime=runtime)
    plain = build_task(config, features=source.features)
    plain.task.ensemble.tables = build_tables(plain.specs, device="cpu")
    plain.task.load_state_dict({key.removeprefix("model/"): torch.from_numpy(value) for key, value in weights.items()})
    rows = source.read(np.arange(332))
    batch = make_batch(rows, keys=list(source.features.table_rows), num_rows=332, loss_weight=1.0)
    _, output = plain.task.eval()(batch)
    columns = _columns(scored[2], json.loads((scored[2] / "manifest.json").read_text()))
    for index, name in enumerate(MEMBERS):
        np.testing.assert_allclose(columns[f"logit_{name}"], output.logits_BM[:, index], atol=1e-5)


def test_one_part_one_row_more_ranks_than_rows(trained, tmp_path):
    manifest = _score(trained, tmp_path / "out", '--score.parts=["day_2"]', "--merge.rule=median", ranks=3)
    assert manifest["num_rows"] == 1
    assert manifest["merge_rule"] == "median"
    assert manifest["metrics"]["merged"]["auc"] is None


def test_finished_predictions_are_not_overwritten(trained, scored, capfd):
    before = {file.name: file.read_bytes() for file in scored[1].iterdir()}
    assert guard(score, ["--checkpoint", str(trained.checkpoint), "--output", str(scored[1])]) == 2
    assert "holds finished predictions" in capfd.readouterr().err
    assert before == {file.name: file.read_bytes() for file in scored[1].iterdir()}


@pytest.mark.parametrize("bad_row", [5, 77])  # read by rank 0 in its first step; by rank 1 in its last range
def test_a_failing_rank_leaves_nothing_that_looks_finished(trained, tmp_path, bad_row):
    data = tmp_path / "data"
    shutil.copytree(trained.data, data)
    sparse = np.load(data / "day_1_sparse.npy")
    sparse[bad_row, 4] = 10_000
    np.save(data / "day_1_sparse.npy", sparse)
    words = ("--checkpoint", str(trained.checkpoint), "--output", str(tmp_path / "out"), f"--data.root={data}", *CUTS)
    done = run_torchrun("trainer/score.py", *words, ranks=2, timeout=60)
    assert done.returncode != 0
    sentences = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1
    assert f"feature C5, row {bad_row}: id 10000 is outside its table" in sentences[0]
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert guard(score, [*words[:4], *CUTS]) == 0
