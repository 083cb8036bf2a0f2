"""Running: a benchmark's jobs, some at a time, each in a process of its own; what is done is not done again."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

import torch

from configs.errors import ChorusError
from trainer import storage
from trainer.benchmark.job_process import LOG_NAME, Order, carry_out, is_done
from trainer.benchmark.jobs import Job
from trainer.clock import clock

JOBS_NAME = "jobs"
_PRELOADED = ["trainer.benchmark.job_process"]
_STOP_SECONDS = 60.0
_SAY_EVERY_SECONDS = 30.0
_LOG_LINES = 6


@dataclass(frozen=True, kw_only=True)
class _Running:
    job: Job
    process: Any
    slot: int


class Runner:
    """Runs jobs in a folder.

    Args:
        folder: Of the benchmark.
        slots: How many run at once; each takes one thread, and a GPU where there is one.
        say: Told what is being done.
    """

    def __init__(self, folder: str, *, slots: int, say: Callable[[str], None]) -> None:
        self._folder, self._slots, self._say = folder, slots, say
        self._running: dict[Any, _Running] = {}

    def folder_of(self, job: Job) -> str:
        """Where a job works."""
        return storage.join(self._folder, JOBS_NAME, job.name)

    def missing(self, jobs: Sequence[Job]) -> list[Job]:
        """Those that are not done."""
        return [job for job in jobs if not is_done(self.folder_of(job))]

    def run(self, jobs: Sequence[Job]) -> None:
        """Runs what is missing, in order; jobs that average others' weights wait for those.

        Ctrl-C, and a job that fails, stop the others with a checkpoint, so that the next call goes on.

        Raises:
            ChorusError: a job failed, which names its log, or another process runs jobs in the folder.
        """
        missing = self.missing(jobs)
        if not missing:
            self._say(f"{len(jobs)} jobs, all done before")
            return
        folder = storage.join(self._folder, JOBS_NAME)
        storage.make_folder(folder)
        lock = storage.try_to_lock(folder)
        if lock is None:
            raise ChorusError(f"{folder}: another process runs jobs there; wait for it, or give another --folder")
        try:
            self._run(missing, of=len(jobs))
        finally:
            storage.unlock(lock)

    def _run(self, missing: Sequence[Job], *, of: int) -> None:
        self._say(f"{of} jobs, {len(missing)} to do, {self._slots} at a time")
        # Forked from a process that has imported everything and started no thread.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        waiting, done, began, said = list(missing), 0, time.monotonic(), time.monotonic()
        try:
            while waiting or self._running:
                while len(self._running) < self._slots and (job := self._next(waiting)) is not None:
                    self._start(job, context=context)
                if time.monotonic() - said > _SAY_EVERY_SECONDS or not waiting:
                    said = time.monotonic()
                    self._tell(done, of=len(missing), seconds=said - began)
                for sentinel in wait(list(self._running), timeout=_SAY_EVERY_SECONDS):
                    done += self._end(self._running.pop(sentinel))
        except BaseException:
            self._stop()
            raise

    def _next(self, waiting: list[Job]) -> Job | None:
        for place, job in enumerate(waiting):
            if all(is_done(self.folder_of(source)) for source in job.sources):
                return waiting.pop(place)
        if waiting and not self._running:
            raise ChorusError(f"{waiting[0].name}: what it averages is not there; start again")
        return None

    def _start(self, job: Job, *, context: Any) -> None:
        folder = self.folder_of(job)
        storage.make_folder(folder)
        slot = min(set(range(self._slots)) - {running.slot for running in self._running.values()})
        gpus = torch.cuda.device_count()
        order = Order(
            job=job,
            folder=folder,
            source_folders=tuple(self.folder_of(source) for source in job.sources),
            device=str(slot % gpus) if gpus else "",
        )
        process = context.Process(target=carry_out, args=(order,), name=job.name)
        process.start()
        self._running[process.sentinel] = _Running(job=job, process=process, slot=slot)

    def _end(self, ended: _Running) -> int:
        ended.process.join()
        folder = self.folder_of(ended.job)
        if ended.process.exitcode != 0 or not is_done(folder):
            log = storage.join(folder, LOG_NAME)
            last = storage.read_text(log).splitlines()[-_LOG_LINES:] if storage.is_file(log) else []
            raise ChorusError(
                "\n".join([f"{ended.job.name}: ended with code {ended.process.exitcode}; {log} has:", *last])
            )
        return 1

    def _tell(self, done: int, *, of: int, seconds: float) -> None:
        names = ", ".join(f"{one.job.window}/{one.job.pool}/{one.job.member}" for one in self._running.values())
        rate = seconds / done if done else 0.0
        left = clock(rate * (of - done)) if done else "?"
        self._say(f"{done}/{of} jobs  ETA {left}  now {names or 'nothing'}")

    def _stop(self) -> None:
        for running in self._running.values():
            running.process.terminate()
        for running in self._running.values():
            running.process.join(_STOP_SECONDS)
            if running.process.is_alive():
                running.process.kill()
                running.process.join()
        self._running.clear()
