"""Worker processes for work on many cores, which never outlive the process that started them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any


@contextlib.contextmanager
def worker_processes(
    num_workers: int, *, begin: Callable[..., None], arguments: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """A pool as `new_pool` gives it; on leaving, what waits is given up."""
    pool = new_pool(num_workers, begin=begin, arguments=arguments)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def new_pool(num_workers: int, *, begin: Callable[..., None], arguments: tuple[Any, ...] = ()) -> ProcessPoolExecutor:
    """A pool in each of whose processes `begin(*arguments)` runs first."""
    return _Pool(num_workers, mp_context=_Context(), initializer=_begin, initargs=(begin, arguments))


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


class _Pool(ProcessPoolExecutor):
    """A pool that Ctrl-C cannot cut off while it starts a process: neither would end then without a traceback."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        with _interrupt_held_back():
            return super().submit(fn, *args, **kwargs)


@contextlib.contextmanager
def _interrupt_held_back() -> Iterator[None]:
    """A block at whose end Ctrl-C counts that was pressed within it."""
    if threading.current_thread() is not threading.main_thread():  # Python interrupts no other
        yield
        return
    came = threading.Event()
    before = signal.signal(signal.SIGINT, lambda _number, _frame: came.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came.is_set():
        signal.raise_signal(signal.SIGINT)


class _Process(SpawnProcess):
    """A process that Ctrl-C does not reach: the one that started it ends it."""

    def start(self) -> None:
        resource_tracker.ensure_running()  # it unblocks the signal when it starts
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # and a new process keeps it blocked
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Context(SpawnContext):
    """Spawns: a fork would copy locks of the threads that libraries have started."""

    Process = _Process


def _begin(begin: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    # A pool's process waits for work for ever where the one that gives it was killed.
    threading.Thread(target=end_with_parent, daemon=True).start()
    begin(*arguments)
