"""What torchrun tells its workers, and what they ask of it."""

from __future__ import annotations

import os
import signal
import types
from pathlib import Path

import pytest

from trainer.launcher import ProcessPlace, end_with_torchrun, forbid_restart


def test_a_plain_start_is_rank_0_of_1() -> None:
    assert ProcessPlace.from_environment() == ProcessPlace(rank=0, world_size=1, local_rank=0, local_world_size=1)


def test_torchruns_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": 5, "WORLD_SIZE": 8, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 4}.items():
        monkeypatch.setenv(name, str(value))
    place = ProcessPlace.from_environment()
    assert place == ProcessPlace(rank=5, world_size=8, local_rank=1, local_world_size=4)
    assert list(place.ranks_beside) == [4, 5, 6, 7]


@pytest.mark.parametrize(("count", "most", "asked"), [(0, 2, True), (1, 2, True), (2, 2, False), (0, 0, False)])
def test_torchrun_is_ended_where_it_would_start_again(
    monkeypatch: pytest.MonkeyPatch, count: int, most: int, asked: bool
) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr("trainer.launcher.os.kill", lambda pid, number: sent.append((pid, number)))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(count))
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", str(most))
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    forbid_restart()
    assert sent == []  # not under torchrun
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    forbid_restart()
    assert sent == ([(os.getppid(), signal.SIGTERM)] if asked else [])


@pytest.mark.parametrize(
    ("parent", "first", "ended"),
    [(7, b"init", False), (1, b"init", True), (1, b"/usr/bin/python\0/bin/torchrun\0--nproc-per-node", False)],
)
def test_a_rank_whose_torchrun_went_while_it_was_importing_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, parent: int, first: bytes, ended: bool
) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr("trainer.launcher.os.kill", lambda pid, number: sent.append((pid, number)))
    monkeypatch.setattr("trainer.launcher.os.getppid", lambda: parent)
    monkeypatch.setattr("trainer.launcher.ctypes.CDLL", lambda _: types.SimpleNamespace(prctl=lambda *_: 0))
    (tmp_path / "cmdline").write_bytes(first)
    monkeypatch.setattr("trainer.launcher.Path", lambda _: tmp_path / "cmdline")
    end_with_torchrun()
    assert sent == []  # not under torchrun
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    end_with_torchrun()
    assert sent == ([(os.getpid(), signal.SIGTERM)] if ended else [])
