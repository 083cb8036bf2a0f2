"""Scoring is exact: each row once, whatever kills it; figures equal an independent computation over the files."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from modules.tables import build_tables
from tests.support.commands import BIN, ROOT, environment, run_python, run_torchrun
from tests.support.processes import wait_until
from tests.support.runs import small_run, without
from tests.support.score_with_fault import FINISHED, MOMENTS
from tests.support.small_disk import resize
from tests.support.state import whole_tensors
from tools.verify_predictions import main as verify
from trainer import storage
from trainer.assembly import shard_task
from trainer.built_task import build_task
from trainer.checkpoints.loading import Wanted, load
from trainer.checkpoints.manifest import read_manifest, write_manifest
from trainer.data.reading.batch import make_batch
from trainer.data.reading.source import PreparedSource
from trainer.failures import guard
from trainer.main import main as train
from trainer.runtime import Runtime
from trainer.score import main as score
from trainer.task_plan import TaskWork

MEMBERS = ("deep", "cross", "dot", "factor")
# 131 rows in ranges of 40 and batches of 16: ragged ranges, ragged batches, and at 4 ranks idle ones.
CUTS = ("--score.range_rows=40", "--score.batch_size=16")


def _words(trained, output: Path, *words: str) -> list[str]:
    return ["--checkpoint", str(trained.checkpoint), "--output", str(output), *CUTS, *words]


def _score(trained, output: Path, *words: str, ranks: int) -> dict:
    run = run_python if ranks == 1 else lambda *args: run_torchrun(*args, ranks=ranks)
    done = run("trainer/score.py", *_words(trained, output, *words))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (f"{FINISHED} of 10 ranges are there already" in done.stdout) == output.name.startswith("killed")
    return json.loads((output / "manifest.json").read_text())


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _columns(folder: Path, manifest: dict) -> dict[str, np.ndarray]:
    tables = [pq.read_table(folder / file["path"]) for file in manifest["files"]]
    names = tables[0].column_names
    return {name: np.concatenate([np.asarray(table.column(name).to_pylist()) for table in tables]) for name in names}


@pytest.fixture(scope="module")
def killed(trained, tmp_path_factory) -> dict[str, Path]:
    """Moment -> what a job of one rank left that was killed there."""
    root = tmp_path_factory.mktemp("killed")
    done = run_python("tests/support/score_with_fault.py", str(root), *_words(trained, root)[:2], *CUTS)
    assert done.returncode == 0, done.stdout + done.stderr
    return {moment: root / moment for moment in MOMENTS}


@pytest.fixture(scope="module")
def scored(trained, killed, tmp_path_factory) -> dict[int, Path]:
    """World size -> predictions; 4 ranks go on from a job of one rank that was killed."""
    folders = {}
    for ranks in (1, 2, 4):
        folders[ranks] = tmp_path_factory.mktemp("scored") / (f"killed_{ranks}" if ranks == 4 else str(ranks))
        if ranks == 4:
            shutil.copytree(killed["record"], folders[ranks])
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
    assert schema.names == ["part", "row", "label", *(f"logit_{name}" for name in (*MEMBERS, "merged")), "merged"]
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
    np.testing.assert_array_equal(columns["logit_merged"].astype(np.float32), logits.mean(axis=1).astype(np.float32))
    probabilities["merged"] = 1 / (1 + np.exp(-columns["logit_merged"].astype(np.float64)))
    assert set(manifest["metrics"]) == set(probabilities)
    for name, probability in probabilities.items():
        figures = manifest["metrics"][name]
        assert figures["num_rows"] == len(labels)
        assert figures["auc"] == pytest.approx(roc_auc_score(labels, probability), abs=1e-12)
        assert figures["log_loss_nats"] == pytest.approx(log_loss(labels, probability), rel=1e-9)
        assert figures["ne"] == pytest.approx(log_loss(labels, probability) / entropy, rel=1e-9)
        assert figures["calibration"] == pytest.approx(probability.sum() / labels.sum(), rel=1e-9)
        assert figures["brier"] == pytest.approx(np.mean((probability - labels) ** 2), rel=1e-9)
        assert figures["auprc"] == pytest.approx(average_precision_score(labels, probability), abs=1e-12)
        curve = manifest["calibration_curves"][name]
        assert sum(point["num_rows"] for point in curve) == len(labels)


def test_logits_equal_those_of_the_unsharded_model(trained, scored):
    source = PreparedSource(root=str(trained.data), parts=["day_0", "day_1", "day_2"])
    config = small_run(f"--data.root={trained.data}", '--data.train=["day_0"]')
    built = build_task(config, features=source.features)
    with Runtime(config.run) as runtime:
        sharded = shard_task(built, work=TaskWork(rows_per_rank=16), runtime=runtime)
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
    assert manifest["merge"]["rule"] == "median"
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


@pytest.mark.parametrize("moment", [moment for moment in MOMENTS if moment != "manifest"])
def test_a_killed_job_goes_on_to_the_same_bytes(trained, scored, killed, tmp_path, capfd, moment):
    output = tmp_path / "out"
    shutil.copytree(killed[moment], output)
    there = {path.name: path.stat().st_mtime_ns for path in output.glob("*.parquet")}
    assert verify([str(output)]) == 1
    num_there = 10 if moment == "figures" else FINISHED
    assert f"{num_there} of 10 ranges, " in capfd.readouterr().out
    assert guard(score, _words(trained, output)) == 0
    said = capfd.readouterr().out
    assert f"{num_there} of 10 ranges are there already" in said
    assert ("scoring " in said) == (moment != "figures"), "no model is needed for figures alone"
    assert _files(output) == _files(scored[1])
    kept = [name for name, written in there.items() if (output / name).stat().st_mtime_ns == written]
    assert len(kept) == num_there, "what is there is not written again"


def test_a_kill_behind_the_manifest_leaves_finished_predictions(trained, scored, killed, capfd):
    assert verify([str(killed["manifest"]), "--data", str(trained.data)]) == 0
    assert guard(score, _words(trained, killed["manifest"])) == 2
    assert "holds finished predictions" in capfd.readouterr().err
    assert _files(killed["manifest"]) == _files(scored[1])


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["rank", "torchrun"])
def test_two_ranks_killed_and_started_again(trained, scored, tmp_path, victim):
    command = [str(BIN / "torchrun"), "--standalone", "--nproc-per-node", "2", "trainer/score.py"]
    job = subprocess.Popen([*command, *_words(trained, tmp_path / "out")], cwd=ROOT, env=environment())
    wait_until(lambda: list(tmp_path.glob("out/unfinished/*.json")), seconds=60)
    ranks = [int(pid) for pid in Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()]
    os.kill(job.pid if victim == "torchrun" else ranks[0], signal.SIGKILL)
    job.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in ranks), seconds=60)
    assert not (tmp_path / "out" / "manifest.json").exists()
    done = run_torchrun("trainer/score.py", *_words(trained, tmp_path / "out"), ranks=2)
    assert done.returncode == 0, done.stderr
    assert _files(tmp_path / "out") == _files(scored[2])


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("--score.batch_size=8", "settings.batch_size 16, not 8"),
        ("--merge.rule=median", "merge.rule 'mean_logit', not 'median'"),
        ('--score.parts=["day_0"]', "data.parts.day_1 {"),
    ],
)
def test_another_plan_is_refused_and_changes_nothing(trained, killed, capfd, word, told):
    before = _files(killed["file"] / "unfinished")
    assert guard(score, _words(trained, killed["file"], word)) == 2
    said = capfd.readouterr().err
    assert f"holds an unfinished job with {told}" in said and "or delete it" in said
    assert _files(killed["file"] / "unfinished") == before


def test_a_range_whose_file_is_lost_or_damaged_is_scored_again(trained, scored, killed, tmp_path, capfd):
    output = tmp_path / "out"
    shutil.copytree(killed["figures"], output)
    lost, cut, unread, zeros, changed = sorted(output.glob("*.parquet"))[:5]
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:-1])
    (output / "unfinished" / f"{unread.stem}.json").write_text("{")
    zeros.write_bytes(bytes(zeros.stat().st_size))
    content = bytearray(changed.read_bytes())
    content[len(content) // 2] ^= 1
    changed.write_bytes(content)
    assert guard(score, _words(trained, output)) == 0
    said = capfd.readouterr().out
    assert "5 of 10 ranges are damaged and scored again" in said and "5 of 10 ranges are there already" in said
    assert _files(output) == _files(scored[1])


def test_one_job_at_a_time(trained, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("trainer.predictions.output_folder._LOCK_SECONDS", 0.3)
    (tmp_path / "out").mkdir()
    lock = storage.try_to_lock(str(tmp_path / "out"))
    assert lock is not None
    assert guard(score, _words(trained, tmp_path / "out")) == 2
    assert "another job writes in" in capfd.readouterr().err
    storage.unlock(lock)
    assert not list((tmp_path / "out").iterdir())


@pytest.fixture(scope="module")
def other(trained, tmp_path_factory) -> Path:
    """A checkpoint of another ensemble on the same dictionary."""
    folder = tmp_path_factory.mktemp("other") / "run"
    path = folder.parent / "run.toml"
    path.write_text(without("cross", "dot"))
    words = ["--config", str(path), f"--run.folder={folder}", f"--data.root={trained.data}", "--run.seed=5"]
    assert guard(train, [*words, '--data.train=["day_1"]', "--train.until={steps = 3}"]) == 0
    return folder / "checkpoints" / "step_0000000003"


def test_several_checkpoints_in_one_pass(trained, scored, other, tmp_path):
    assert guard(score, ["--checkpoint", str(other), "--output", f"{tmp_path}/b", *_words(trained, other)[4:]]) == 0
    both = ["--checkpoint", f"a={trained.checkpoint}", "--checkpoint", f"b={other}", "--output", f"{tmp_path}/both"]
    assert guard(score, [*both, *CUTS]) == 0
    manifest = json.loads((tmp_path / "both" / "manifest.json").read_text())
    alone = {"a": scored[1], "b": tmp_path / "b"}
    members = [*(f"a_{name}" for name in MEMBERS), "b_deep", "b_factor"]
    assert manifest["members"] == members
    assert [(one["label"], one["step"]) for one in manifest["checkpoints"]] == [("a", 6), ("b", 3)]
    for file in sorted((tmp_path / "both").glob("*.parquet")):
        table = pq.read_table(file)
        for member in members:
            label, _, name = member.partition("_")
            own = pq.read_table(alone[label] / file.name).column(f"logit_{name}")
            assert table.column(f"logit_{member}") == own, (file.name, member)
        logits = np.stack([table.column(f"logit_{name}").to_numpy() for name in members], axis=1).astype(np.float64)
        merged = 1 / (1 + np.exp(-logits.mean(axis=1)))
        np.testing.assert_allclose(table.column("merged").to_numpy(), merged, rtol=1e-6)
    assert verify([str(tmp_path / "both"), "--data", str(trained.data)]) == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"dictionary": "teacher 8"}, "a and b were trained on the ids of different dictionaries, 'teacher 7' and"),
        ({"table_rows": {"C1": 3}}, "a and b differ in rows of table C1: "),
        ({"dense_features": ["I1"]}, "a and b read different dense features, I1, I2, "),
    ],
)
def test_checkpoints_that_do_not_go_together_are_refused(trained, tmp_path, capfd, change, told):
    copy = tmp_path / trained.checkpoint.name
    shutil.copytree(trained.checkpoint, copy)
    manifest = read_manifest(str(copy))
    change = {
        key: {**manifest.model[key], **value} if isinstance(value, dict) else value for key, value in change.items()
    }
    write_manifest(dataclasses.replace(manifest, model={**manifest.model, **change}))
    both = ["--checkpoint", f"a={trained.checkpoint}", "--checkpoint", f"b={copy}", "--output", f"{tmp_path}/out"]
    assert guard(score, [*both, *CUTS]) == 2
    said = capfd.readouterr().err
    assert f"error: --checkpoint: {told}" in said and said.endswith("score them in jobs of their own\n")


@pytest.mark.parametrize("kilobytes", [4, 64])  # the plan finds no room; a range
def test_a_full_disk_keeps_what_is_finished(trained, scored, small_disk, capfd, kilobytes):
    resize(small_disk, f"{kilobytes}k")
    output = small_disk / "out"
    assert guard(score, _words(trained, output)) == 1
    said = capfd.readouterr().err
    assert len(said.splitlines()) == 1, said
    assert f"--output: '{output}': No space left on device; make room, the same command goes on" in said
    num_there = len(list(output.glob("unfinished/*-*.json")))
    assert (num_there > 0) == (kilobytes == 64)
    resize(small_disk, "50m")
    assert guard(score, _words(trained, output)) == 0
    assert (f"{num_there} of 10 ranges are there already" in capfd.readouterr().out) == (num_there > 0)
    assert _files(output) == _files(scored[1])


def test_damage_is_named(scored, tmp_path, capfd):
    output = tmp_path / "out"
    shutil.copytree(scored[1], output)
    first, second, *_ = sorted(output.glob("*.parquet"))
    first.unlink()
    content = bytearray(second.read_bytes())
    content[len(content) // 2] ^= 1
    second.write_bytes(content)
    assert verify([str(output)]) == 1
    said = capfd.readouterr().out
    assert f"{first.name}: is missing, with rows 0 to 39 of day_0" in said
    assert f"{second.name}: its bytes have changed since they were written, with rows 40 to 79 of day_0" in said
