"""RunCheckpoints: writing while training goes on, and what becomes of it where the run fails."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.cut_states import assert_same_tensors, cut, some_tensors
from tests.support.processes import wait_until
from tests.unit.trainer.checkpoints.made import fails_with, failure, loaded, run_checkpoints, snapshot, steps
from trainer.checkpoints.state_files import StateWriter
from trainer.runtime import Runtime


class SlowDisk:
    """Holds up writing until it is let go, and notes what is written when."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.let_go = threading.Event()
        self.begun = threading.Event()
        self.noted: list[str] = []
        write = StateWriter.write_data

        def held_up(writer: StateWriter, *args: Any) -> Any:
            self.noted.append("begin")
            self.begun.set()
            assert self.let_go.wait(20)
            done = write(writer, *args)
            self.noted.append("end")
            return done

        monkeypatch.setattr(StateWriter, "write_data", held_up)


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    return SlowDisk(monkeypatch)


def test_in_the_background_the_state_is_that_of_the_step(tmp_path: Path, runtime: Runtime, slow_disk: SlowDisk) -> None:
    kept = run_checkpoints(tmp_path, runtime.open_side_group(), background=True)
    live = some_tensors(5)
    kept.save(snapshot(5, state=cut(live, rows=2, columns=2)))
    for value in live.values():
        value.fill_(0)  # training goes on at once
    assert slow_disk.begun.wait(20)
    assert steps(kept) == [] and not kept.has_failed
    slow_disk.let_go.set()
    kept.wait()
    assert_same_tensors(loaded(tmp_path / "checkpoints" / "step_0000000005", runtime.ranks), some_tensors(5))
    assert kept.seconds_waited < 10


def test_a_second_save_waits_for_the_first(tmp_path: Path, runtime: Runtime, slow_disk: SlowDisk) -> None:
    kept = run_checkpoints(tmp_path, runtime.open_side_group(), background=True)
    live = some_tensors(1)
    kept.save(snapshot(1, state=live))
    threading.Timer(0.5, slow_disk.let_go.set).start()
    for key, value in some_tensors(2).items():
        live[key].copy_(value)
    kept.save(snapshot(2, state=live))
    assert steps(kept)[0] == 1
    assert kept.seconds_waited > 0.3
    kept.wait()
    assert slow_disk.noted == ["begin", "end"] * 2
    for step in (1, 2):
        assert_same_tensors(loaded(tmp_path / "checkpoints" / f"step_{step:010d}", runtime.ranks), some_tensors(step))


def test_what_is_among_the_best_counts_the_one_being_written(
    tmp_path: Path, runtime: Runtime, slow_disk: SlowDisk
) -> None:
    kept = run_checkpoints(tmp_path, runtime.open_side_group(), background=True, keep_best=1)
    kept.save(snapshot(1, quality=0.5))
    threading.Timer(0.3, slow_disk.let_go.set).start()
    assert not kept.is_among_best(0.4)


def test_a_failed_background_write_is_found_out(
    tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = run_checkpoints(tmp_path, runtime.open_side_group(), background=True)
    assert not kept.has_failed
    monkeypatch.setattr(StateWriter, "write_data", fails_with("no space left on device"))
    kept.save(snapshot(1))
    wait_until(lambda: kept.has_failed)
    assert "no space left on device" in failure(lambda: kept.save(snapshot(2)))
    assert not kept.has_failed and steps(kept) == []
    kept.wait()


def test_a_run_that_fails_first_lets_the_checkpoint_end(tmp_path: Path, runtime: Runtime, slow_disk: SlowDisk) -> None:
    kept = run_checkpoints(tmp_path, runtime.open_side_group(), background=True)
    with pytest.raises(ValueError, match="a loss"), kept.ended_before_failing():
        kept.save(snapshot(1))
        threading.Timer(0.5, slow_disk.let_go.set).start()
        raise ValueError("a loss")
    assert steps(kept) == [1]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("Connection closed by peer")])
def test_nobody_waits_for_a_checkpoint_that_cannot_end(
    tmp_path: Path, runtime: Runtime, slow_disk: SlowDisk, error: BaseException
) -> None:
    kept = run_checkpoints(tmp_path, runtime.open_side_group(), background=True)
    with pytest.raises(type(error)), kept.ended_before_failing():
        kept.save(snapshot(1))
        assert slow_disk.begun.wait(20)
        raise error
    assert steps(kept) == []
    slow_disk.let_go.set()
    kept.wait()


def test_a_checkpoint_that_does_not_move_is_left(
    tmp_path: Path, runtime: Runtime, slow_disk: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.checkpoints.run_checkpoints._IDLE_SECONDS", 0.5)
    kept = run_checkpoints(tmp_path, runtime.open_side_group(), background=True)
    with pytest.raises(ValueError, match="a loss"), kept.ended_before_failing():
        kept.save(snapshot(1))
        raise ValueError("a loss")
    assert steps(kept) == []
    slow_disk.let_go.set()
    kept.wait()
