"""The work pool: results and progress of jobs over processes, and what becomes of those that fail."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from configs.errors import ChorusError, DataError
from trainer.data.preparing.work_pool import Tell, WorkPool


@dataclass(frozen=True)
class Task:
    """What a test wants done."""

    number: int
    fault: str = ""

    def run(self, tell: Tell) -> tuple[int, int, str | None]:
        tell(self.number, 1)
        if self.fault == "error":
            raise DataError("file: of no use; take another")
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "sleep":
            time.sleep(60)
        return self.number, os.getpid(), os.environ.get("OMP_NUM_THREADS")


@pytest.fixture
def told():
    return []


def pool_of(num_workers: int, told: list) -> WorkPool:
    return WorkPool(num_workers=num_workers, tell=lambda num_bytes, num_rows: told.append((num_bytes, num_rows)))


def test_one_process_is_this_one(told):
    results = list(pool_of(1, told).run([Task(1), Task(2)]))
    assert [(number, process) for number, process, _ in results] == [(1, os.getpid()), (2, os.getpid())]
    assert told == [(1, 1), (2, 1)]


def test_several_processes(told, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    pool = pool_of(2, told)
    try:
        results = list(pool.run([Task(number) for number in range(20)]))
        assert sorted(number for number, _, _ in results) == list(range(20))
        processes = {process for _, process, _ in results}
        assert os.getpid() not in processes and len(processes) <= 2
        assert {threads for _, _, threads in results} == {"1"} and os.environ["OMP_NUM_THREADS"] == "7"
        again = list(pool.run([Task(1), Task(2)]))
        assert {process for _, process, _ in again} <= processes
        assert sorted(told) == sorted([*((number, 1) for number in range(20)), (1, 1), (2, 1)])
        with pytest.raises(DataError, match="of no use"):
            list(pool.run([Task(1), Task(2, fault="error"), Task(3, fault="sleep")]))
    finally:
        started = time.monotonic()
        pool.close()
    assert time.monotonic() - started < 20, "a sleeping job is not waited for"
    assert not any(Path(f"/proc/{process}").exists() for process in processes)


def test_a_killed_process_is_told(told):
    pool = pool_of(2, told)
    try:
        with pytest.raises(ChorusError, match="a worker process was killed, most likely for want of memory; lower"):
            list(pool.run([Task(1), Task(2, fault="kill"), Task(3)]))
    finally:
        pool.close()
