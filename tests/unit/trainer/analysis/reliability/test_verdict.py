"""A run is compared with the reference by its facts, its files and its figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.trainer.analysis.reliability.stored_checkpoint import trained_state, write_checkpoint
from trainer.analysis.reliability.verdict import checkpoints, problems_of

LINES = [{"step": 1, "train/a/loss_nats": 0.5}, {"step": 2, "train/a/loss_nats": 0.25}]


def _run(folder: Path, *, lines=LINES, state=None, **facts) -> str:
    write_checkpoint(folder / "checkpoints" / "step_0000000002", trained_state(), step=2)
    write_checkpoint(folder / "checkpoints" / "step_0000000004", state or trained_state(), step=4, **facts)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder)


def test_runs_that_differ_in_times_and_their_folder_alone_are_the_same(tmp_path):
    timed = [line | {"seconds": 7.0, "time/data_fraction": 0.5, "train/rows_per_second": 3.0} for line in LINES]
    assert problems_of(_run(tmp_path / "a", lines=timed), reference=_run(tmp_path / "b")) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"progress": {"step": 5}}, "progress differs"),
        ({"learning": {"lr": 1}}, "learning differs"),
        ({"lines": LINES[:1]}, "lines of 1 steps where the reference has 2"),
        ({"lines": [LINES[0], LINES[1] | {"train/a/loss_nats": 0.250001}]}, "train/a/loss_nats differs at step 2"),
        ({"lines": [LINES[0], LINES[1] | {"eval/a/auc": 0.5}]}, "eval/a/auc differs at step 2"),
    ],
)
def test_what_differs_is_named(tmp_path, change, told):
    (problem,) = problems_of(_run(tmp_path / "a", **change), reference=_run(tmp_path / "b"))
    assert told in problem


def test_one_other_bit_is_seen(tmp_path):
    state = trained_state()
    state["model/dense.weight"][0] += 2**-24
    problems = problems_of(_run(tmp_path / "a", state=state), reference=_run(tmp_path / "b"))
    assert any("state/rank_0_0.safetensors differs" in problem for problem in problems)


def test_a_damaged_older_checkpoint_is_seen(tmp_path):
    ours, reference = _run(tmp_path / "a"), _run(tmp_path / "b")
    path = tmp_path / "a" / "checkpoints" / "step_0000000002" / "state" / "rank_0_0.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    (problem,) = problems_of(ours, reference=reference)
    assert "step_0000000002" in problem and "damaged" in problem


def test_unfinished_checkpoints_are_told_apart(tmp_path):
    ours, reference = _run(tmp_path / "a"), _run(tmp_path / "b")
    (tmp_path / "a" / "checkpoints" / "step_0000000006" / "state").mkdir(parents=True)
    assert checkpoints(ours) == ["step_0000000002", "step_0000000004"]
    assert checkpoints(ours, whole=False) == ["step_0000000006"]
    assert problems_of(ours, reference=reference) == []


def test_a_run_that_left_nothing_is_a_problem(tmp_path):
    assert "no checkpoint is left" in problems_of(str(tmp_path), reference=_run(tmp_path / "b"))[0]
