"""Manifests: whole or refused with a sentence for each way a folder can be less than a checkpoint."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from configs.errors import CheckpointError
from tests.unit.trainer.checkpoints.made import FACTS, flip, refusal, run_checkpoints, save
from trainer.checkpoints.manifest import (
    FORMAT_VERSION,
    CheckpointManifest,
    read_manifest,
    step_names,
    verify,
    verify_file,
    write_manifest,
)
from trainer.runtime import Runtime

DAMAGED = "is damaged: its bytes are not those written; take another checkpoint"


@pytest.fixture
def folder(tmp_path: Path, runtime: Runtime) -> Path:
    """A whole checkpoint of step 7."""
    return save(run_checkpoints(tmp_path, runtime.ranks), 7)


def test_a_manifest_comes_back(folder: Path, runtime: Runtime) -> None:
    manifest = read_manifest(str(folder))
    assert (manifest.step, manifest.world_size, manifest.data) == (7, 1, {"seed": 1})
    assert manifest.progress == {"step": 7, "epoch": 0, "row": 7, "rows_total": 7}
    assert manifest.model == json.loads(json.dumps(FACTS.as_json()))
    assert (manifest.quality, manifest.averaged) == (None, {})
    verify(manifest, ranks=runtime.ranks)


def test_every_file_is_in_it_with_its_size_and_hash(folder: Path) -> None:
    files = read_manifest(str(folder)).files
    on_disk = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert set(files) == set(on_disk) - {"manifest.json"}
    for name, proof in files.items():
        content = on_disk[name].read_bytes()
        assert proof == {"num_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}, name


def test_every_flipped_byte_is_found(folder: Path, runtime: Runtime) -> None:
    manifest = read_manifest(str(folder))
    assert {"run.toml", "plan.json", "state/index.json", "state/rank_0_0.safetensors"} <= set(manifest.files)
    for name in manifest.files:
        path = folder / name
        for at in {0, path.stat().st_size // 2, path.stat().st_size - 1}:
            flip(path, at)
            assert refusal(lambda: verify(manifest, ranks=runtime.ranks)) == f"{path} {DAMAGED}"
            flip(path, at)
    verify(manifest, ranks=runtime.ranks)


def test_a_flipped_byte_of_the_manifest_is_found_wherever_it_is(folder: Path) -> None:
    path = folder / "manifest.json"
    whole = path.read_bytes()
    before = read_manifest(str(folder))
    for at in range(0, len(whole), 11):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            found = read_manifest(str(folder))
        except CheckpointError as error:
            assert str(error).startswith(f"{path}: "), (at, error)
        else:
            assert found == before, f"byte {at} changed what is read"  # a blank between two values, at most


def test_missing_and_truncated_files_are_found(folder: Path, runtime: Runtime) -> None:
    manifest = read_manifest(str(folder))
    for name in manifest.files:
        path = folder / name
        content = path.read_bytes()
        path.unlink()
        assert refusal(lambda: verify(manifest, ranks=runtime.ranks)) == f"{path} is missing; take another checkpoint"
        path.write_bytes(content[:-1])
        assert refusal(lambda: verify(manifest, ranks=runtime.ranks)) == f"{path} {DAMAGED}"
        assert refusal(partial(verify_file, manifest, name)) == f"{path} {DAMAGED}"
        path.write_bytes(content + b"\n")
        assert refusal(lambda: verify(manifest, ranks=runtime.ranks)) == f"{path} {DAMAGED}"
        path.write_bytes(content)
    verify(manifest, ranks=runtime.ranks)


def test_no_manifest(folder: Path, tmp_path: Path) -> None:
    remedy = "name one, as runs/NAME/TIME/checkpoints/step_..."
    for nowhere in (str(tmp_path / "nowhere"), str(folder / "manifest.json")):
        assert refusal(partial(read_manifest, nowhere)) == f"no checkpoint folder {nowhere!r}; {remedy}"
    above = folder.parent
    assert refusal(lambda: read_manifest(str(above))) == (
        f"{above}: no manifest.json in it; it holds step_0000000007: give one of those"
    )
    (folder / "manifest.json").unlink()
    assert refusal(lambda: read_manifest(str(folder))) == (
        f"{folder}: no manifest.json in it, so it was not finished; take another"
    )


def test_another_version(folder: Path) -> None:
    path = folder / "manifest.json"
    now, other = f'"format_version": {FORMAT_VERSION}', f'"format_version": {FORMAT_VERSION + 1}'
    path.write_text(path.read_text().replace(now, other))
    assert refusal(lambda: read_manifest(str(folder))) == (
        f"{path}: format version {FORMAT_VERSION + 1}, this program reads {FORMAT_VERSION};"
        " read it with the version of Chorus that wrote it"
    )


@pytest.mark.parametrize("edit", [("seed", 1, 2), ("row", 7, 8), ("dictionary", "d1", "d2")])
def test_an_edited_manifest_has_another_hash(folder: Path, edit: tuple[str, object, object]) -> None:
    path = folder / "manifest.json"
    key, old, new = edit
    before = path.read_text()
    after = before.replace(f'"{key}": {json.dumps(old)}', f'"{key}": {json.dumps(new)}')
    assert after != before
    path.write_text(after)
    assert refusal(lambda: read_manifest(str(folder))) == (
        f"{path}: not a checkpoint's manifest (ValueError('its own hash differs')); take another checkpoint"
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
        '{"format": "chorus-data", "format_version": 2}',
        '{"format": "chorus-checkpoint"}',
        '{"format": "chorus-checkpoint", "format_version": 3}',
        '{"format": "chorus-checkpoint", "format_version": 3, "sha256": "a"}',
        "\ufffd\u0000",
    ],
)
def test_what_is_no_manifest(folder: Path, text: str) -> None:
    path = folder / "manifest.json"
    path.write_text(text)
    sentence = refusal(lambda: read_manifest(str(folder)))
    assert sentence.startswith(f"{path}: not a checkpoint's manifest (")
    assert sentence.endswith("); take another checkpoint")


def test_bytes_that_are_no_text(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b"\xff\xfe\x00")
    assert "not a checkpoint's manifest" in refusal(lambda: read_manifest(str(folder)))


def test_a_file_that_the_manifest_does_not_list_is_not_taken(folder: Path) -> None:
    manifest: CheckpointManifest = read_manifest(str(folder))
    (folder / "other.toml").write_text("[run]\n")
    assert refusal(lambda: verify_file(manifest, "other.toml")) == f"{folder / 'other.toml'} {DAMAGED}"


def test_what_is_inside_must_be_of_one_piece(folder: Path) -> None:
    manifest = read_manifest(str(folder))
    write_manifest(dataclasses.replace(manifest, step=999))
    assert "it is of step 999" in refusal(lambda: read_manifest(str(folder)))
    write_manifest(dataclasses.replace(manifest, progress={"step": 7, "lap": 1}))
    assert "not a checkpoint's manifest" in refusal(lambda: read_manifest(str(folder)))
    (folder / "manifest.json").write_text("[" * 100_000)
    assert "not a checkpoint's manifest" in refusal(lambda: read_manifest(str(folder)))


def test_a_runs_folder_is_answered_with_its_checkpoints(folder: Path) -> None:
    run = folder.parents[1]
    assert refusal(lambda: read_manifest(str(run))) == (
        f"{run}: no manifest.json in it; its checkpoints hold {folder.name}: give one of those"
    )


def test_only_names_as_runs_give_them_are_checkpoints_of_a_run(folder: Path) -> None:
    for name in ("step_foo", "step_9", "step_0000000030_good", "best"):
        shutil.copytree(folder, folder.parent / name)
    assert step_names(str(folder.parent)) == [folder.name]
