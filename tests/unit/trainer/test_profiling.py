"""StepProfiler: the steps that were asked for are in the trace, and nothing where none were."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

from trainer import storage
from trainer.profiling import StepProfiler

CPU = torch.device("cpu")


def train(profiler: StepProfiler, *, first: int = 1, last: int) -> None:
    """Steps whose number is in a tensor's size, so that a trace tells which of them it holds."""
    with profiler:
        for step in range(first, last + 1):
            with torch.profiler.record_function(f"work of {step}"):
                torch.ones(3).sum()
            profiler.step(step)


def events(folder: Path, *, rank: int = 0) -> list[str]:
    """The names of the work that was recorded, in order, without the single operators."""
    with gzip.open(folder / "profile" / f"rank_{rank}.json.gz", "rt") as file:
        trace = json.load(file)["traceEvents"]
    shown = [event for event in trace if event.get("cat") == "user_annotation"]
    assert any(event.get("name") == "aten::sum" for event in trace)
    return [event["name"] for event in sorted(shown, key=lambda event: (event["ts"], -event["dur"]))]


@pytest.mark.parametrize(("steps", "recorded"), [((1, 1), [1]), ((2, 4), [2, 3, 4]), ((5, 6), [5, 6])])
def test_the_steps_asked_for_are_recorded_and_no_other(
    tmp_path: Path, steps: tuple[int, int], recorded: list[int]
) -> None:
    train(StepProfiler(steps, folder=str(tmp_path), rank=3, device=CPU), last=6)
    assert [path.name for path in (tmp_path / "profile").iterdir()] == ["rank_3.json.gz"]
    expected = [name for step in recorded for name in (f"step {step}", f"work of {step}")]
    assert events(tmp_path, rank=3) == expected


def test_the_trace_is_there_as_soon_as_the_last_step_is_over(tmp_path: Path) -> None:
    with StepProfiler((1, 2), folder=str(tmp_path), rank=0, device=CPU) as profiler:
        torch.ones(3).sum()
        profiler.step(1)
        assert not (tmp_path / "profile").exists()
        profiler.step(2)
        assert events(tmp_path)


def test_training_that_stops_early_leaves_what_there_was(tmp_path: Path) -> None:
    train(StepProfiler((2, 50), folder=str(tmp_path), rank=0, device=CPU), last=3)
    assert events(tmp_path) == ["step 2", "work of 2", "step 3", "work of 3", "step 4"]  # the last one is empty


@pytest.mark.parametrize(("done", "recorded"), [(1, [2, 3]), (2, [3]), (3, None), (9, None)])
def test_a_resumed_run_records_what_is_left(tmp_path: Path, done: int, recorded: list[int] | None) -> None:
    profiler = StepProfiler((2, 3), folder=str(tmp_path), rank=0, device=CPU, steps_done=done)
    train(profiler, first=done + 1, last=done + 4)
    if recorded is None:
        assert not (tmp_path / "profile").exists()
    else:
        assert [name for name in events(tmp_path) if name.startswith("work")] == [f"work of {s}" for s in recorded]


def test_without_steps_nothing_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.profiling.profile", None)  # not even made
    train(StepProfiler((), folder=str(tmp_path), rank=0, device=CPU), last=3)
    assert list(tmp_path.iterdir()) == []


def test_a_block_that_fails_says_why_and_lets_the_next_one_record(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="the reason"),
        StepProfiler((1, 5), folder=str(tmp_path), rank=0, device=CPU) as profiler,
    ):
        profiler.step(1)
        raise ValueError("the reason")
    assert not (tmp_path / "profile").exists()
    train(StepProfiler((1, 1), folder=str(tmp_path), rank=0, device=CPU), last=1)
    assert events(tmp_path) == ["step 1", "work of 1"]


def test_a_remote_folder_is_written_through_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there: dict[str, bytes] = {}
    monkeypatch.setattr(storage, "make_folder", lambda path: None)
    monkeypatch.setattr(storage, "copy_file", lambda source, path: there.update({path: Path(source).read_bytes()}))
    train(StepProfiler((1, 1), folder="s3://runs/a", rank=1, device=CPU), last=1)
    assert list(there) == ["s3://runs/a/profile/rank_1.json.gz"]
    assert json.loads(gzip.decompress(there["s3://runs/a/profile/rank_1.json.gz"]))["traceEvents"]


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "profile").write_text("in the way")
    with pytest.raises(OSError, match="profile"):
        train(StepProfiler((1, 1), folder=str(tmp_path), rank=0, device=CPU), last=1)


@pytest.mark.gpu
def test_kernels_are_recorded_on_a_gpu(tmp_path: Path) -> None:
    with StepProfiler((1, 1), folder=str(tmp_path), rank=0, device=torch.device("cuda")) as profiler:
        torch.ones(1000, device="cuda").sum()
        profiler.step(1)
    with gzip.open(tmp_path / "profile" / "rank_0.json.gz", "rt") as file:
        assert any(event.get("cat") == "kernel" for event in json.load(file)["traceEvents"])
