"""RunCheckpoints: what is kept, what is taken, and writing while training goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cut_states import assert_same_tensors, cut, some_tensors
from tests.support.processes import wait_until
from tests.support.ranks import RankPool
from tests.unit.trainer.checkpoints.made import (
    fails_with,
    failure,
    flip,
    loaded,
    refusal,
    run_checkpoints,
    save,
    snapshot,
    steps,
)
from trainer.checkpoints.manifest import read_manifest, verify
from trainer.checkpoints.run_checkpoints import RunCheckpoints
from trainer.checkpoints.state_files import StateWriter
from trainer.runtime import Runtime

DAMAGED = "is damaged: its bytes are not those written; take another checkpoint"


@pytest.fixture(autouse=True)
def _known_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.checkpoints.run_checkpoints.storage.room", lambda _: " (7 bytes are free there)")


@pytest.fixture
def kept(tmp_path: Path, runtime: Runtime) -> RunCheckpoints:
    return run_checkpoints(tmp_path, runtime.ranks)


def newest(kept: RunCheckpoints, said: list[str] | None = None) -> int | None:
    found = kept.newest(say=([] if said is None else said).append)
    return None if found is None else found.step


def test_a_checkpoint_comes_back(kept: RunCheckpoints, runtime: Runtime, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save(kept, 7, state=cut(some_tensors(7), rows=2, columns=2))
    assert folder.name == "step_0000000007"
    assert (folder / "run.toml").read_text() == "[run]\n"
    assert_same_tensors(loaded(folder, runtime.ranks), some_tensors(7))
    line = capsys.readouterr().out
    assert line.startswith(f"checkpoint: {folder}  (0.0 MiB in ") and line.endswith(" s)\n")


def test_old_ones_go_once_a_newer_one_is_whole(kept: RunCheckpoints) -> None:
    for step in (1, 2, 3):
        save(kept, step)
    assert steps(kept) == [2, 3]


def test_an_old_one_stays_while_the_newer_is_not_whole(kept: RunCheckpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        save(kept, step)
    monkeypatch.setattr("trainer.checkpoints.manifest.storage.write_json", fails_with("no space left on device"))
    folder = Path(kept.folder) / "step_0000000003"
    assert failure(lambda: save(kept, 3)) == f"cannot save {folder}: no space left on device (7 bytes are free there)"
    assert not folder.exists()
    monkeypatch.undo()
    assert steps(kept) == [1, 2] and newest(kept) == 2
    save(kept, 4)
    assert steps(kept) == [2, 4]


def test_what_was_left_unfinished_goes_before_its_room_is_needed(
    kept: RunCheckpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(kept, 1)
    unfinished = Path(kept.folder) / "step_0000000005" / "state"
    unfinished.mkdir(parents=True)
    monkeypatch.setattr("trainer.checkpoints.run_checkpoints.dcp.save", fails_with("no space left on device"))
    failure(lambda: save(kept, 6))
    assert not unfinished.exists()
    assert steps(kept) == [1]


def test_later_ones_that_were_passed_over_go(kept: RunCheckpoints, tmp_path: Path) -> None:
    for step in (8, 9):
        save(kept, step)
    (tmp_path / "checkpoints" / "notes").mkdir()
    save(kept, 4)  # after a start that passed over 8 and 9
    assert steps(kept) == [4] and newest(kept) == 4
    for step in (6, 7, 8):
        save(kept, step)
    assert steps(kept) == [7, 8]
    assert (tmp_path / "checkpoints" / "notes").is_dir()


def test_one_that_is_cut_off_while_it_is_deleted_does_not_look_whole(
    kept: RunCheckpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        save(kept, step)
    monkeypatch.setattr("trainer.checkpoints.run_checkpoints.storage.remove_tree", fails_with("killed"))
    with pytest.raises(OSError, match="killed"):
        save(kept, 3)
    assert (Path(kept.folder) / "step_0000000001" / "state").is_dir()
    assert steps(kept) == [2, 3]


def test_a_step_saved_again_takes_the_place_of_the_old(kept: RunCheckpoints, runtime: Runtime) -> None:
    save(kept, 3)
    flip(save(kept, 4) / "run.toml", 0)
    verify(read_manifest(str(save(kept, 4))), ranks=runtime.ranks)
    assert steps(kept) == [3, 4]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("trainer.checkpoints.run_checkpoints.dcp.save", "no space left on device"),
        # Inside the library's collective, which wraps it in something that is not an Exception.
        ("trainer.checkpoints.state_files.StateWriter.write_data", "rank 0: no space left on device"),
        ("trainer.checkpoints.state_files.StateWriter.finish", "rank 0: no space left on device"),
    ],
)
@pytest.mark.parametrize("background", [False, True])
def test_a_write_that_fails_is_a_sentence(
    tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, place: str, said: str, background: bool
) -> None:
    kept = run_checkpoints(tmp_path, runtime.ranks, background=background)
    monkeypatch.setattr(place, fails_with("no space\nleft on device"))
    folder = tmp_path / "checkpoints" / "step_0000000003"
    assert failure(lambda: save(kept, 3)) == f"cannot save {folder}: {said} (7 bytes are free there)"
    assert steps(kept) == []
    monkeypatch.undo()
    save(kept, 4)
    assert steps(kept) == [4]


def test_the_newest_whole_one_is_taken(kept: RunCheckpoints) -> None:
    assert newest(kept) is None
    save(kept, 9)
    last = save(kept, 10)
    assert newest(kept) == 10
    data = last / "state" / "rank_0_0.safetensors"
    flip(data, data.stat().st_size // 2)
    said: list[str] = []
    assert newest(kept, said) == 9
    assert said == [f"passing over a checkpoint: {data} {DAMAGED}"]


def test_it_falls_back_past_each_kind_of_damage(tmp_path: Path, runtime: Runtime) -> None:
    kept = run_checkpoints(tmp_path, runtime.ranks, keep_last=9)
    folders = {step: save(kept, step) for step in range(1, 8)}
    (folders[7] / "manifest.json").unlink()  # never finished
    (folders[6] / "plan.json").unlink()
    flip(folders[5] / "manifest.json", 40)
    state = folders[4] / "state" / "rank_0_0.safetensors"
    state.write_bytes(state.read_bytes()[:-1])
    manifest = folders[3] / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 3', '"format_version": 1'))
    flip(folders[2] / "state" / "index.json", 30)
    said: list[str] = []
    assert newest(kept, said) == 1
    assert [line.removeprefix("passing over a checkpoint: ").partition(" ")[0].rstrip(":") for line in said] == [
        str(folders[7]),
        str(folders[6] / "plan.json"),
        str(folders[5] / "manifest.json"),
        str(state),
        str(manifest),
        str(folders[2] / "state" / "index.json"),
    ]
    assert not folders[7].exists()


def test_what_was_passed_over_is_not_kept_in_place_of_a_whole_one(kept: RunCheckpoints) -> None:
    for step in (2, 4):
        save(kept, step)
    flip(Path(kept.folder) / "step_0000000004" / "run.toml", 0)
    assert newest(kept) == 2
    save(kept, 6)
    assert steps(kept) == [2, 6]
    save(kept, 8)
    assert steps(kept) == [6, 8]


def test_one_of_another_version_is_neither_passed_over_nor_deleted(
    kept: RunCheckpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(kept, 1)
    monkeypatch.setattr("trainer.checkpoints.manifest.FORMAT_VERSION", 99)
    save(kept, 2)
    monkeypatch.undo()
    sentence = refusal(lambda: newest(kept))
    assert "format version 99, this program reads 3; read it with the version of Chorus that wrote it" in sentence


def test_nothing_begins_anew_over_checkpoints_that_are_all_damaged(kept: RunCheckpoints) -> None:
    folders = [save(kept, step) for step in (9, 10)]
    for folder in folders:
        flip(folder / "plan.json", 0)
    said: list[str] = []
    assert refusal(lambda: newest(kept, said)) == (
        f"{kept.folder}: all 2 checkpoints are damaged; give another run.folder to start anew"
    )
    assert said == [f"passing over a checkpoint: {folder / 'plan.json'} {DAMAGED}" for folder in reversed(folders)]
    for folder in folders:
        (folder / "manifest.json").unlink()
    assert newest(kept) is None  # none was ever finished


@pytest.fixture(scope="module")
def pool() -> Iterator[RankPool]:
    two = RankPool(2)
    yield two
    two.close()


def save_where_rank_1_fails(runtime: Runtime, folder: Path, background: bool) -> tuple[str, list[int], list[int]]:
    """Rank 1 cannot write, rank 0 still writes then; gives the sentence, and the steps before and after."""
    kept = run_checkpoints(folder, runtime.open_side_group(), background=background)
    tensors = some_tensors(1)
    state = cut(tensors, rows=2, columns=2, rank=runtime.rank, world_size=2)
    save(kept, 1, state=state)
    write = StateWriter.write_data

    def write_or_fail(writer: StateWriter, *args: Any) -> Any:
        if runtime.rank == 1:
            raise OSError("no space left on device")
        time.sleep(0.5)
        return write(writer, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StateWriter, "write_data", write_or_fail)
        if background:
            kept.save(snapshot(2, state=state))
            wait_until(lambda: kept.has_failed)
        sentence = failure(kept.wait if background else lambda: kept.save(snapshot(2, state=state)))
    before = steps(kept)
    save(kept, 3, state=state)
    return sentence, before, steps(kept)


@pytest.mark.parametrize("background", [False, True])
def test_where_one_rank_cannot_write_all_ranks_hear_of_it(pool: RankPool, tmp_path: Path, background: bool) -> None:
    for sentence, before, after in pool.run(save_where_rank_1_fails, tmp_path, background):
        folder = tmp_path / "checkpoints" / "step_0000000002"
        assert sentence.startswith(f"cannot save {folder}: rank 1: no space left on device")
        assert (before, after) == ([1], [1, 3])


def damage_of_one_file(runtime: Runtime, folder: Path) -> list[str]:
    kept = run_checkpoints(folder, runtime.open_side_group(), keep_last=4)
    state = cut(some_tensors(1), rows=2, columns=2, rank=runtime.rank, world_size=2)
    folders = [save(kept, step, state=state) for step in (1, 2, 3)]
    if runtime.is_main:
        for number, damaged in enumerate(folders[1:]):  # one for each rank to find
            path = damaged / "state" / f"rank_{number}_0.safetensors"
            flip(path, path.stat().st_size - 1)
    runtime.ranks.wait()
    said: list[str] = []
    return [*said, str(newest(kept, said)), *said]


def test_the_ranks_share_the_work_of_finding_damage(pool: RankPool, tmp_path: Path) -> None:
    for found in pool.run(damage_of_one_file, tmp_path):
        folder = tmp_path / "checkpoints"
        assert found == [
            "1",
            f"passing over a checkpoint: {folder}/step_0000000003/state/rank_1_0.safetensors {DAMAGED}",
            f"passing over a checkpoint: {folder}/step_0000000002/state/rank_0_0.safetensors {DAMAGED}",
        ]
