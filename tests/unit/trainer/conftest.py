"""This process as a runtime of one rank, for the tests of the trainer."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import torch

from configs.schema import Run
from trainer.runtime import Runtime


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """An open runtime; its process group and signal handlers are gone afterwards."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    threads = torch.get_num_threads()
    try:
        with Runtime(Run(device="cpu")) as opened:
            yield opened
    finally:
        torch.set_num_threads(threads)
        for number, handler in handlers.items():
            signal.signal(number, handler)
