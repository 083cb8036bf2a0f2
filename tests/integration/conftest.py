"""A trained run that several integration tests score, resume and damage copies of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.commands import run_torchrun
from tests.support.prepared import write_prepared
from tests.support.runs import SMALL_PATH
from tests.support.small_disk import mounted


@dataclass(frozen=True)
class TrainedRun:
    """A prepared folder, and a run trained on its first part by 2 ranks."""

    data: Path
    folder: Path
    checkpoint: Path
    output: str


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """Trains once for the session."""
    root = tmp_path_factory.mktemp("trained")
    write_prepared(root / "data", parts={"day_0": 200, "day_1": 131, "day_2": 1})
    words = ("--config", str(SMALL_PATH), f"--run.folder={root}/run", f"--data.root={root}/data")
    done = run_torchrun("trainer/main.py", *words, '--data.train=["day_0"]', '--data.valid=["day_1"]', ranks=2)
    assert done.returncode == 0, done.stdout + done.stderr
    return TrainedRun(
        data=root / "data",
        folder=root / "run",
        checkpoint=root / "run" / "checkpoints" / "step_0000000006",
        output=done.stdout,
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own in memory; `tests.support.small_disk.resize` gives it a size."""
    with mounted(tmp_path / "disk") as disk:
        yield disk
