"""This process as a runtime of one rank, for the tests of the trainer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from configs.schema import Run
from tests.unit.trainer.ranks import one_rank
from trainer.runtime import Runtime


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides what a launcher of the tests themselves may have left in the environment."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def runtime(no_launcher: None) -> Iterator[Runtime]:
    """An open runtime of one rank."""
    with one_rank(Run(device="cpu")) as opened:
        yield opened
