"""RowProgress: share, rate and time left, now and then."""

from __future__ import annotations

import pytest

from trainer import row_progress
from trainer.row_progress import RowProgress


def test_it_tells_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    monkeypatch.setattr(row_progress.time, "monotonic", lambda: now)
    progress = RowProgress("reading", 4_000)
    now = 101.0
    progress.add(500)
    assert capsys.readouterr().err == ""
    now = 105.0
    progress.add(500)
    assert capsys.readouterr().err == "reading:  25%, 1,000 rows, 200 rows/s, ETA 0:15\n"
    progress.add(500)
    assert capsys.readouterr().err == ""


def test_bytes_are_told_in_mib(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    monkeypatch.setattr(row_progress.time, "monotonic", lambda: now)
    progress = RowProgress("verifying", 4_000 << 20, unit="MiB")
    now = 105.0
    progress.add(1_000 << 20)
    assert capsys.readouterr().err == "verifying:  25%, 1,000 MiB, 200 MiB/s, ETA 0:15\n"
