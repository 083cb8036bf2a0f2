"""RangeWriter: writes what is scored in a thread of its own, beside the scoring of what follows."""

from __future__ import annotations

import queue
import threading
import types
from collections.abc import Callable

from trainer.predictions.range_files import ScoredRange

_LOOK_SECONDS = 0.2


class RangeWriter:
    """A thread and a short queue before it. Use it as a context manager; what fails in the thread is raised here.

    A block that ends in an exception does not wait for what is queued: that is scored again.

    Args:
        write: Called in the thread, range by range.
        ahead: Ranges that may wait; with the one being written and the one being scored two more are in memory.
    """

    def __init__(self, write: Callable[[ScoredRange], object], *, ahead: int = 2) -> None:
        self._write = write
        self._queue: queue.Queue[ScoredRange | None] = queue.Queue(maxsize=ahead)
        self._error: BaseException | None = None
        self._abandoned = threading.Event()
        # A daemon, so that a process that is told to end does not wait for a disk that hangs.
        self._thread = threading.Thread(target=self._work, name="range writer", daemon=True)

    def __enter__(self) -> RangeWriter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
        else:
            self._abandoned.set()

    def put(self, scored: ScoredRange) -> None:
        """Hands a range over; waits while too many are queued.

        Raises:
            Exception: what an earlier one failed with.
        """
        self._put(scored)

    def finish(self) -> None:
        """Waits until all is written; may be called again.

        Raises:
            Exception: what one failed with.
        """
        if self._thread.is_alive():
            self._put(None)
            self._thread.join()
        self._raise()

    def _put(self, scored: ScoredRange | None) -> None:
        while True:
            self._raise()
            try:
                self._queue.put(scored, timeout=_LOOK_SECONDS)
            except queue.Full:
                continue
            return

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            while (scored := self._queue.get()) is not None and not self._abandoned.is_set():
                self._write(scored)
        except BaseException as error:
            self._error = error
