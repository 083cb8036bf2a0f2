"""Prefetch: batches made ahead in a thread of their own, in the same order and to the same bits."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Protocol, Self, TypeVar

import torch


class Pinnable(Protocol):
    """What can be copied into page-locked memory."""

    def pin_memory(self) -> Self:
        """The copy."""


Item = TypeVar("Item", bound=Pinnable)


class _End:
    """Behind the last item; carries what ended them early."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Prefetcher(Iterator[Item]):
    def __init__(self, items: Generator[Item], *, ahead: int, device: torch.device) -> None:
        self._items = items
        self._device = device
        self._queue: queue.Queue[Item | _End] = queue.Queue(maxsize=ahead)
        self._end: _End | None = None
        self._stop = threading.Event()
        # A daemon, so that a process that is told to end does not wait for a disk that hangs.
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        error = None
        pin = self._device.type == "cuda"
        try:
            if pin:
                torch.cuda.set_device(self._device)  # a new thread begins on the first one
            for item in self._items:
                self._queue.put(item.pin_memory() if pin else item)
                if self._stop.is_set():
                    break
        except BaseException as caught:
            error = caught
        finally:
            self._items.close()  # here, where it ran: what it has opened ends with the thread
        self._queue.put(_End(error))

    def __next__(self) -> Item:
        if self._end is None:
            found = self._queue.get()
            if not isinstance(found, _End):
                return found
            self._end = found
        if self._end.error is not None:
            raise self._end.error
        raise StopIteration

    def close(self) -> None:
        """Ends the thread; what it has made and nobody took is dropped."""
        self._stop.set()
        while self._thread.is_alive():
            try:
                while True:
                    self._queue.get_nowait()  # makes room for a put that waits
            except queue.Empty:
                self._thread.join(0.01)


@contextmanager
def prefetched(items: Generator[Item], *, ahead: int, device: torch.device) -> Iterator[Iterator[Item]]:
    """Gives the same items, up to `ahead` of them made before they are asked for. The thread ends with the block.

    An exception of the items is raised where the item would have come.

    Args:
        items: Makes the items; closed at the end.
        ahead: Items waiting at most; 0: no thread, each is made when it is asked for.
        device: Where they go; for a GPU the thread copies them into page-locked memory.
    """
    if ahead == 0:
        try:
            yield items
        finally:
            items.close()
        return
    prefetcher = _Prefetcher(items, ahead=ahead, device=device)
    try:
        yield prefetcher
    finally:
        prefetcher.close()
