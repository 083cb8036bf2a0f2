"""Worker processes: Ctrl-C while they start."""

from __future__ import annotations

import signal
import threading

import pytest

from trainer import worker_processes


def nothing() -> None:
    """What a worker begins with."""


def test_ctrl_c_while_a_process_starts_counts_once_it_has_started(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    start, events = worker_processes._Process.start, []

    def interrupted_start(process: worker_processes._Process) -> None:
        signal.raise_signal(signal.SIGINT)
        events.append("pressed")
        start(process)
        events.append("started")

    monkeypatch.setattr(worker_processes._Process, "start", interrupted_start)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # libraries that were imported have their own
    try:
        with pytest.raises(KeyboardInterrupt), worker_processes.worker_processes(1, begin=nothing) as pool:
            pool.submit(abs, -1)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert events == ["pressed", "started"]
    assert capfd.readouterr().err == ""


def test_a_pool_may_be_used_from_any_thread() -> None:
    found = []

    def use() -> None:
        with worker_processes.worker_processes(1, begin=nothing) as pool:
            found.append(pool.submit(abs, -1).result(60))

    user = threading.Thread(target=use)
    user.start()
    user.join(120)
    assert found == [1]
