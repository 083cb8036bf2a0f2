"""Verification: every damage is named, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.errors import CheckpointError
from tests.support.stored_checkpoints import flip, quiet, state, store
from trainer.checkpoints.verification import checkpoints_in, refuse_damaged, total_bytes, verify_checkpoint


def problems(folder: Path) -> tuple[str, ...]:
    return verify_checkpoint(str(folder), advance=quiet).problems


def test_a_whole_one(tmp_path: Path) -> None:
    folder = store(tmp_path / "a", state())
    read: list[int] = []
    verdict = verify_checkpoint(str(folder), advance=read.append)
    assert verdict.is_whole and verdict.extra == ()
    assert sum(read) == verdict.num_bytes == total_bytes([str(folder)])
    on_disk = [path for path in folder.rglob("*") if path.is_file()]
    assert verdict.num_files == len(on_disk) - 1
    assert verdict.num_bytes == sum(path.stat().st_size for path in on_disk) - (folder / "manifest.json").stat().st_size
    refuse_damaged(str(folder), advance=quiet)


def test_every_damage_is_named(tmp_path: Path) -> None:
    folder = store(tmp_path / "a", state(), pieces=(2, 1))
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    for path in files:
        content = path.read_bytes()
        flip(path, len(content) // 2)
        assert problems(folder) == (f"{path} is damaged: its bytes are not those written",)
        path.write_bytes(content[:-1])
        assert problems(folder) == (f"{path} is damaged: {len(content) - 1:,} bytes, {len(content):,} were written",)
        path.unlink()
        assert problems(folder) == (f"{path} is missing",)
        with pytest.raises(CheckpointError, match="is missing; take another checkpoint"):
            refuse_damaged(str(folder), advance=quiet)
        path.write_bytes(content)
    assert problems(folder) == ()
    for path in files[:3]:
        flip(path)
    assert len(problems(folder)) == 3


def test_the_manifest_too(tmp_path: Path) -> None:
    folder = store(tmp_path / "a", state())
    flip(folder / "manifest.json", (folder / "manifest.json").read_bytes().index(b"103") + 2)
    (problem,) = problems(folder)
    assert "its own hash differs" in problem
    (folder / "manifest.json").unlink()
    (problem,) = problems(folder)
    assert "so it was not finished" in problem


def test_what_is_not_part_of_it(tmp_path: Path) -> None:
    folder = store(tmp_path / "a", state())
    (folder / "state" / "old.tmp").write_text("x")
    (folder / "notes.txt").write_text("x")
    verdict = verify_checkpoint(str(folder), advance=quiet)
    assert verdict.is_whole and verdict.extra == ("notes.txt", "state/old.tmp")


def test_all_of_a_run_and_none_twice(tmp_path: Path) -> None:
    run = tmp_path / "run"
    steps = [store(run / "checkpoints" / f"step_{step:010d}", state(), step=step) for step in (1, 2)]
    (steps[1] / "manifest.json").unlink()
    assert checkpoints_in([str(run), str(steps[0])]) == [str(step) for step in steps]
    assert checkpoints_in([str(steps[1])]) == [str(steps[1])]  # named as unfinished, not refused
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        checkpoints_in([str(tmp_path)])
