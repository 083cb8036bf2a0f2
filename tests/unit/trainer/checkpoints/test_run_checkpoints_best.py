"""RunCheckpoints: which checkpoints count as the best ones."""

from __future__ import annotations

from pathlib import Path

from configs.training_schema import Checkpoint
from tests.unit.trainer.checkpoints.made import flip, run_checkpoints, save
from trainer.checkpoints.run_checkpoints import RunCheckpoints
from trainer.runtime import Runtime


def steps(kept: RunCheckpoints) -> list[int]:
    return [int(name.removeprefix("step_")) for name in kept.whole()]


def test_the_best_are_kept_beside_the_last(tmp_path: Path, runtime: Runtime) -> None:
    kept = run_checkpoints(tmp_path, runtime.ranks, keep_last=1, keep_best=2)
    qualities = {1: 0.5, 2: 0.9, 3: None, 4: 0.7, 5: 0.7, 6: 0.6}
    left = []
    for step, quality in qualities.items():
        save(kept, step, quality=quality)
        left.append(steps(kept))
    assert left == [[1], [1, 2], [1, 2, 3], [2, 4], [2, 4, 5], [2, 4, 6]]


def test_what_is_among_the_best(tmp_path: Path, runtime: Runtime) -> None:
    kept = run_checkpoints(tmp_path, runtime.ranks, keep_best=2)
    assert kept.is_among_best(-9.0)
    save(kept, 1, quality=0.5)
    assert kept.is_among_best(-9.0)
    save(kept, 2, quality=0.7)
    assert [kept.is_among_best(quality) for quality in (0.4, 0.5, 0.6, 0.8)] == [False, False, True, True]
    assert not run_checkpoints(tmp_path, runtime.ranks, keep_best=0).is_among_best(9.0)


def test_checkpoints_of_another_figure_are_not_compared(tmp_path: Path, runtime: Runtime) -> None:
    folder, section = str(tmp_path / "checkpoints"), Checkpoint(background=False, keep_last=1, keep_best=1)
    loss, auc = (
        RunCheckpoints(folder=folder, section=section, ranks=runtime.ranks, watched=watched)
        for watched in ("merged/log_loss_nats", "merged/auc")
    )
    save(loss, 1, quality=-0.4)
    assert not loss.is_among_best(-0.5)
    save(auc, 2, quality=0.7)  # no loss is above an AUC, nor below
    save(auc, 3, quality=0.6)
    assert auc.whole() == ["step_0000000002", "step_0000000003"]
    assert loss.is_among_best(-9.0)


def test_a_damaged_manifest_is_no_best_one_and_ends_nothing(tmp_path: Path, runtime: Runtime) -> None:
    kept = run_checkpoints(tmp_path, runtime.ranks, keep_last=1, keep_best=1)
    flip(save(kept, 1, quality=0.9) / "manifest.json", 20)
    assert kept.is_among_best(0.1)
    save(kept, 2, quality=0.1)
    assert steps(kept) == [2]
