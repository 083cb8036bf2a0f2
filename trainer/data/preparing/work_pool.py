"""WorkPool: jobs over processes, with their progress; one process runs them in turn without any other."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from typing import Any, Protocol

from configs.errors import ChorusError
from trainer.worker_processes import new_pool

_POLL_SECONDS = 0.2

Tell = Callable[[int, int], None]  # bytes of input and rows done since the last call


class Job(Protocol):
    """Work for one process; picklable, as is what it gives."""

    def run(self, tell: Tell) -> Any:
        """Does the work."""
        ...


class WorkPool:
    """Runs jobs, several at a time; the processes are started with the first jobs that are several.

    Args:
        num_workers: Processes; 1: this one.
        tell: Called in this process with what the jobs tell of their progress.
    """

    def __init__(self, *, num_workers: int, tell: Tell) -> None:
        self._num_workers = num_workers
        self._tell = tell
        self._executor: ProcessPoolExecutor | None = None
        self._told: SimpleQueue[tuple[int, int]] | None = None

    def run(self, jobs: Sequence[Job]) -> Iterator[Any]:
        """The results as they come.

        Raises:
            ChorusError: a process was killed, as for want of memory; else what a job raises.
        """
        if self._num_workers == 1 or len(jobs) <= 1:
            for job in jobs:
                yield job.run(self._tell)
            return
        executor = self._executor or self._start()
        with _one_thread_each():  # processes are started as jobs come in
            left = {executor.submit(_run, job) for job in jobs}
        while left:
            done, left = wait(left, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
            self._hear()
            for future in done:
                yield _result(future)

    def close(self) -> None:
        """Ends the processes, whatever they do."""
        if self._executor is not None:
            for process in list((self._executor._processes or {}).values()):
                process.kill()
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None

    def _start(self) -> ProcessPoolExecutor:
        self._told = multiprocessing.get_context("spawn").SimpleQueue()
        self._executor = new_pool(self._num_workers, begin=_start, arguments=(self._told,))
        return self._executor

    def _hear(self) -> None:
        assert self._told is not None, "no process has been started"
        while not self._told.empty():
            self._tell(*self._told.get())


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """The processes started inside take one thread each, of polars and of BLAS."""
    names = ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_told: Any = None


def _start(told: Any) -> None:
    global _told
    _told = told


def _run(job: Job) -> Any:
    return job.run(lambda num_bytes, num_rows: _told.put((num_bytes, num_rows)))


def _result(future: Future[Any]) -> Any:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise ChorusError(
            "a worker process was killed, most likely for want of memory; lower --workers or --memory-gb and run again:"
            " it goes on from what is done"
        ) from error
