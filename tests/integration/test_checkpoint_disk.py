"""A run on a disk that is really full says so, leaves nothing that looks whole, and goes on once there is room."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.schema import Run
from tests.support.runs import SMALL_PATH, small_run
from tests.support.small_disk import resize
from tests.support.state import assert_bit_equal
from tests.support.training import train_run
from tests.unit.trainer.ranks import one_rank
from trainer.checkpoints.manifest import read_manifest, verify
from trainer.failures import guard
from trainer.main import main

EVERY = "--checkpoint.every.steps=2"


# A checkpoint takes 0.4 MiB.
@pytest.mark.parametrize(("kilobytes", "whole"), [(300, []), (760, ["step_0000000002"])])
def test_a_full_disk(
    small_disk: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], kilobytes: int, whole: list[str]
) -> None:
    resize(small_disk, f"{kilobytes}k")
    run = small_disk / "run"
    assert guard(main, ["--config", str(SMALL_PATH), f"--run.folder={run}", EVERY]) == 1
    said = capfd.readouterr().err
    assert "No space left on device" in said and str(run) in said
    assert len(said.splitlines()) == 1, said
    checkpoints = run / "checkpoints"
    assert sorted(path.parent.name for path in checkpoints.glob("*/manifest.json")) == whole
    assert [path.name for path in checkpoints.iterdir()] == whole, "what cannot be finished must not fill the disk"
    assert json.loads((run / "outcome.json").read_text())["exit_code"] == 1
    resize(small_disk, "50m")
    with one_rank(Run(device="cpu")) as runtime:
        resumed, progress = train_run(runtime, small_run(EVERY), str(run))
        assert progress["step"] == 6
        names = sorted(path.name for path in checkpoints.iterdir())
        assert names == ["step_0000000004", "step_0000000006"]
        for name in names:
            verify(read_manifest(str(checkpoints / name)), ranks=runtime.ranks)
        uninterrupted, _ = train_run(runtime, small_run(EVERY), str(tmp_path / "other"))
    assert_bit_equal(resumed, uninterrupted)
