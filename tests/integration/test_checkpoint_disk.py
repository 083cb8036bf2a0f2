"""A run on a disk that is really full says so, leaves nothing that looks whole, and goes on once there is room."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from configs.schema import Run
from tests.support.runs import SMALL_PATH, small_run
from tests.support.small_disk import resize
from tests.support.state import assert_bit_equal
from tests.support.training import train_run
from tests.unit.trainer.ranks import one_rank
from trainer import loop
from trainer.checkpoints.manifest import read_manifest, verify
from trainer.checkpoints.state_files import StateWriter
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


def test_a_disk_full_for_the_log_while_a_checkpoint_is_written(
    small_disk: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log of step 4 fails first; the checkpoint of step 2 is removed nevertheless."""
    resize(small_disk, "2m")
    run, log = small_disk / "run", loop._BetweenSteps._log
    full, logged = threading.Event(), threading.Event()

    def fill(*_: object) -> None:
        with (run / "checkpoints" / "step_0000000002" / "state" / "rank_0_0.safetensors").open("wb") as file:
            try:
                while True:
                    os.write(file.fileno(), bytes(4096))
            except OSError:
                full.set()
                assert logged.wait(60)
                time.sleep(1)  # a run that did not wait would have ended
                raise

    def log_once_full(*words: Any) -> None:
        assert full.wait(60)
        try:
            log(*words)
        finally:
            logged.set()

    monkeypatch.setattr(StateWriter, "write_data", fill)
    monkeypatch.setattr(loop._BetweenSteps, "_log", log_once_full)
    assert guard(main, ["--config", str(SMALL_PATH), f"--run.folder={run}", EVERY]) == 1
    said = capfd.readouterr().err
    assert re.fullmatch(rf"error: {run}/(usage\.json|metrics\.jsonl): No space left on device\n", said), said
    assert not list((run / "checkpoints").iterdir())
