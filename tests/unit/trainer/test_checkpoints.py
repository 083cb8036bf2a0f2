"""Checkpoints of one rank: whole or passed over, and a sentence for each way a checkpoint can be another's."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.errors import EXIT_FAILURE, EXIT_REFUSED, CheckpointError, ChorusError, DataError
from trainer import checkpoints
from trainer.checkpoints import CheckpointManifest, Checkpoints, ModelFacts, check_same_features, check_same_model
from trainer.data.reading.source import SourceFeatures
from trainer.runtime import Runtime

FEATURES = SourceFeatures(dense_names=("I1", "I2"), table_rows={"C1": 10, "C2": 20}, dictionary="d1")
FACTS = ModelFacts(
    members={"deep": "mlp on shared tables", "solo": "mlp on solo tables"},
    tables={"shared/C1": (10, 8), "solo/C1": (10, 4)},
    table_rules={"shared/C1": "rowwise_adagrad", "solo/C1": "sgd"},
    features=FEATURES,
)


def tensors(value: float = 1.0) -> dict[str, torch.Tensor]:
    return {"model/a": torch.full((3, 2), value), "optimizer/step": torch.tensor(value)}


@pytest.fixture(autouse=True)
def _known_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.checkpoints.storage.room", lambda _: " (7 bytes are free there)")


@pytest.fixture
def kept(tmp_path: Path, runtime: Runtime) -> Checkpoints:
    return Checkpoints(folder=str(tmp_path / "checkpoints"), keep_last=2, runtime=runtime)


def save(kept: Checkpoints, step: int) -> Path:
    folder = kept.save(
        tensors(float(step)),
        progress={"step": step, "epoch": 0, "row": step, "rows_total": step},
        facts=FACTS,
        data={"seed": 1},
        texts={"run.toml": "[run]\n", "plan.json": "{}\n"},
    )
    return Path(folder)


def refusal(do: Callable[[], object], kind: type[ChorusError] = CheckpointError) -> str:
    with pytest.raises(kind) as refused:
        do()
    assert refused.value.exit_code == EXIT_REFUSED
    return str(refused.value)


def failure(do: Callable[[], object]) -> str:
    """The sentence of what went wrong although nothing was asked for that cannot be."""
    with pytest.raises(ChorusError) as failed:
        do()
    assert (type(failed.value), failed.value.exit_code) == (ChorusError, EXIT_FAILURE)
    return str(failed.value)


def test_a_checkpoint_comes_back(kept: Checkpoints, runtime: Runtime) -> None:
    folder = save(kept, 7)
    assert folder.name == "step_0000000007"
    assert (folder / "run.toml").read_text() == "[run]\n"
    manifest = checkpoints.read_manifest(str(folder))
    assert (manifest.step, manifest.progress["row"], manifest.data) == (7, 7, {"seed": 1})
    assert manifest.model == json.loads(json.dumps(FACTS.as_json()))
    on_disk = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(manifest.files) == on_disk - {"manifest.json"}
    checkpoints.verify(manifest, runtime=runtime)
    loaded = tensors(0.0)
    checkpoints.load(manifest, loaded)
    assert {key: value.tolist() for key, value in loaded.items()} == {
        key: value.tolist() for key, value in tensors(7.0).items()
    }
    check_same_model(manifest, FACTS)
    check_same_features(manifest, FEATURES, root="data")


def test_old_ones_go_once_a_newer_one_is_whole(kept: Checkpoints) -> None:
    for step in (1, 2, 3):
        save(kept, step)
    assert kept.whole() == ["step_0000000002", "step_0000000003"]


def test_an_old_one_stays_while_the_newer_is_not_whole(kept: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        save(kept, step)

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("trainer.checkpoints.storage.write_json", fail)
    with pytest.raises(OSError, match="no space left"):
        save(kept, 3)
    monkeypatch.undo()
    assert kept.whole() == ["step_0000000001", "step_0000000002"]
    newest = kept.newest()
    assert newest is not None and newest.step == 2
    assert save(kept, 3).is_dir()  # what was left unfinished is in nobody's way
    assert kept.whole() == ["step_0000000002", "step_0000000003"]


def test_later_ones_that_were_passed_over_go_and_unfinished_ones_too(kept: Checkpoints, tmp_path: Path) -> None:
    for step in (8, 9):
        save(kept, step)
    folder = tmp_path / "checkpoints"
    for name in ("step_0000000005", "step_0000000012"):  # begun, never finished
        (folder / name / "state").mkdir(parents=True)
    (folder / "notes").mkdir()
    saved = save(kept, 4)  # after a start that passed over 8 and 9
    assert sorted(path.name for path in folder.iterdir()) == ["notes", "step_0000000004"]
    newest = kept.newest()
    assert newest is not None and newest.folder == str(saved)
    for step in (6, 7, 8):
        save(kept, step)
    assert sorted(path.name for path in folder.iterdir()) == ["notes", "step_0000000007", "step_0000000008"]


def test_a_step_saved_again_takes_the_place_of_the_old(kept: Checkpoints, runtime: Runtime) -> None:
    save(kept, 3)
    flip(save(kept, 4) / "run.toml", 0)
    checkpoints.verify(checkpoints.read_manifest(str(save(kept, 4))), runtime=runtime)
    assert kept.whole() == ["step_0000000003", "step_0000000004"]


def test_a_write_that_fails_is_a_sentence(kept: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no space\nleft")

    monkeypatch.setattr("trainer.checkpoints.dcp.save", fail)
    folder = tmp_path / "checkpoints" / "step_0000000003"
    assert failure(lambda: save(kept, 3)) == f"cannot save {folder}: no space left (7 bytes are free there)"


def test_the_newest_whole_one_is_taken(kept: Checkpoints, capsys: pytest.CaptureFixture[str]) -> None:
    assert kept.newest() is None
    save(kept, 9)
    last = save(kept, 10)
    newest = kept.newest()
    assert newest is not None and newest.step == 10
    data = next((last / "state").glob("*.distcp"))
    flip(data, data.stat().st_size // 2)
    newest = kept.newest()
    assert newest is not None and newest.step == 9
    assert capsys.readouterr().out == (
        f"passing over a checkpoint: {data} is damaged: its bytes are not those written; take another checkpoint\n"
    )


def test_nothing_begins_anew_over_checkpoints_that_are_all_damaged(
    kept: Checkpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [save(kept, step) for step in (9, 10)]
    for folder in folders:
        flip(folder / "plan.json", 0)
    assert refusal(kept.newest) == (
        f"{tmp_path / 'checkpoints'}: all 2 checkpoints are damaged; give another run.folder to start anew"
    )
    damaged = "is damaged: its bytes are not those written; take another checkpoint"
    assert capsys.readouterr().out.splitlines() == [
        f"passing over a checkpoint: {folder / 'plan.json'} {damaged}" for folder in reversed(folders)
    ]
    for folder in folders:
        (folder / "manifest.json").unlink()
    assert kept.newest() is None  # none was ever finished


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


def test_a_flipped_byte_is_found_in_every_file(kept: Checkpoints, runtime: Runtime) -> None:
    folder = save(kept, 7)
    manifest = checkpoints.read_manifest(str(folder))
    assert len(manifest.files) >= 4
    for name in manifest.files:
        path = folder / name
        flip(path, path.stat().st_size - 1)
        assert refusal(lambda: checkpoints.verify(manifest, runtime=runtime)) == (
            f"{path} is damaged: its bytes are not those written; take another checkpoint"
        )
        flip(path, path.stat().st_size - 1)
    checkpoints.verify(manifest, runtime=runtime)


def test_a_missing_file_is_found(kept: Checkpoints, runtime: Runtime) -> None:
    folder = save(kept, 7)
    manifest = checkpoints.read_manifest(str(folder))
    (folder / "plan.json").unlink()
    assert refusal(lambda: checkpoints.verify(manifest, runtime=runtime)) == (
        f"{folder / 'plan.json'} is missing; take another checkpoint"
    )


def test_a_checkpoint_without_a_wanted_tensor_is_refused(kept: Checkpoints) -> None:
    manifest = checkpoints.read_manifest(str(save(kept, 7)))
    assert refusal(lambda: checkpoints.load(manifest, {"model/b": torch.zeros(2)})) == (
        f"cannot load {manifest.folder}: rank 0: Missing key in checkpoint state_dict: model/b."
    )


def test_a_disk_that_is_full_is_a_sentence(kept: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left")

    # Raised inside the library's collective, which wraps it in something that is not an Exception.
    monkeypatch.setattr("torch.distributed.checkpoint.filesystem.FileSystemWriter.write_data", fail)
    folder = tmp_path / "checkpoints" / "step_0000000003"
    assert failure(lambda: save(kept, 3)) == f"cannot save {folder}: rank 0: no space left (7 bytes are free there)"
    assert kept.whole() == []


def test_no_manifest(kept: Checkpoints, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    remedy = "name one, as runs/NAME/TIME/checkpoints/step_..."
    assert refusal(lambda: checkpoints.read_manifest(nowhere)) == f"no checkpoint folder {nowhere!r}; {remedy}"
    folder = save(kept, 7)
    file = str(folder / "manifest.json")
    assert refusal(lambda: checkpoints.read_manifest(file)) == f"no checkpoint folder {file!r}; {remedy}"
    above = folder.parent
    assert refusal(lambda: checkpoints.read_manifest(str(above))) == (
        f"{above}: no manifest.json in it; it holds step_0000000007: give one of those"
    )
    (folder / "manifest.json").unlink()
    assert refusal(lambda: checkpoints.read_manifest(str(folder))) == (
        f"{folder}: no manifest.json in it, so it was not finished; take another"
    )


def test_another_version(kept: Checkpoints) -> None:
    path = save(kept, 7) / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 2'))
    assert refusal(lambda: checkpoints.read_manifest(str(path.parent))) == (
        f"{path}: format version 2, this program reads 1"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "3",
        "{}",
        '{"format": "chorus-data", "format_version": 1}',
        '{"format": "chorus-checkpoint"}',
    ],
)
def test_what_is_no_manifest(kept: Checkpoints, text: str) -> None:
    path = save(kept, 7) / "manifest.json"
    path.write_text(text)
    sentence = refusal(lambda: checkpoints.read_manifest(str(path.parent)))
    assert sentence.startswith(f"{path}: not a checkpoint's manifest (")
    assert sentence.endswith("); take another checkpoint")


def manifest_of(facts: ModelFacts = FACTS) -> CheckpointManifest:
    model = json.loads(json.dumps(facts.as_json()))
    return CheckpointManifest(folder="runs/a/step_7", step=7, progress={}, model=model, data={}, files={})


def features(**changes: Any) -> SourceFeatures:
    return dataclasses.replace(FEATURES, **changes)


@pytest.mark.parametrize(
    ("ours", "problem"),
    [
        (
            dataclasses.replace(FACTS, members={**FACTS.members, "deep": "dlrm on shared tables"}),
            "members.deep: mlp on shared tables in the checkpoint, dlrm on shared tables in this run",
        ),
        (
            dataclasses.replace(FACTS, members={"deep": FACTS.members["deep"]}),
            "members.solo: mlp on solo tables in the checkpoint, absent in this run",
        ),
        (
            dataclasses.replace(FACTS, tables={**FACTS.tables, "shared/C1": (10, 16)}),
            "tables.shared/C1: [10, 8] in the checkpoint, [10, 16] in this run",
        ),
        (
            dataclasses.replace(FACTS, table_rules={**FACTS.table_rules, "solo/C1": "adagrad"}),
            "table_rules.solo/C1: sgd in the checkpoint, adagrad in this run",
        ),
        (
            dataclasses.replace(FACTS, features=features(table_rows={"C1": 10, "C2": 20, "C3": 4})),
            "table_rows.C3: absent in the checkpoint, 4 in this run",
        ),
        (
            dataclasses.replace(FACTS, features=features(dense_names=("I2", "I1"))),
            "dense_features: ['I1', 'I2'] in the checkpoint, ['I2', 'I1'] in this run's data",
        ),
        (
            dataclasses.replace(FACTS, features=features(dictionary="d2")),
            "dictionary: d1 in the checkpoint, d2 in this run's data",
        ),
    ],
)
def test_another_model_is_refused_with_what_differs(ours: ModelFacts, problem: str) -> None:
    assert refusal(lambda: check_same_model(manifest_of(), ours)) == (
        "runs/a/step_7 is a checkpoint of another model; use its own run.toml and data, or another folder:\n  "
        + problem
    )


def test_only_the_first_differences_are_told() -> None:
    many = dataclasses.replace(FACTS, tables={f"shared/C{i}": (1, 4) for i in range(10, 20)})
    text = refusal(lambda: check_same_model(manifest_of(), many)).splitlines()
    assert len(text) == 1 + 8 + 1
    assert text[-1] == "  and 4 more"


@pytest.mark.parametrize(
    ("ours", "sentence"),
    [
        (
            features(table_rows={"C1": 10, "C2": 21}),
            "data.root: 'days' was prepared with other table sizes than the data of runs/a/step_7: C2 has 21 rows,"
            " not 20; prepare it with that dictionary",
        ),
        (
            features(table_rows={f"D{i}": 1 for i in range(9)}),
            "data.root: 'days' was prepared with other table sizes than the data of runs/a/step_7: C1 has None rows,"
            " not 10, C2 has None rows, not 20, D0 has 1 rows, not None and 8 more; prepare it with that dictionary",
        ),
        (
            features(dense_names=("I1",)),
            "data.root: 'days' has dense features I1; the checkpoint runs/a/step_7 was trained on I1, I2",
        ),
        (
            features(dictionary="d2"),
            "data.root: 'days' was prepared with another dictionary than the data of runs/a/step_7, so its ids"
            " mean other values; prepare it with that dictionary",
        ),
    ],
)
def test_other_data_are_refused_with_what_differs(ours: SourceFeatures, sentence: str) -> None:
    assert refusal(lambda: check_same_features(manifest_of(), ours, root="days"), DataError) == sentence
