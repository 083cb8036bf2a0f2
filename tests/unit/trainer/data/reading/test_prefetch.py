"""Prefetch: the same items in the same order, errors where they belong, and no thread left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator

import pytest
import torch

from trainer.data.reading.prefetch import prefetched

CPU = torch.device("cpu")


class Item:
    def __init__(self, number: int) -> None:
        self.number = number
        self.pinned_in = ""

    def pin_memory(self) -> Item:
        self.pinned_in = threading.current_thread().name
        return self


class Maker:
    """Items made one after the other; keeps how many, and whether it was closed."""

    def __init__(self, count: int, *, error: BaseException | None = None) -> None:
        self.count, self.error = count, error
        self.made = 0
        self.closed_in = ""

    def items(self) -> Generator[Item]:
        try:
            for number in range(self.count):
                self.made += 1
                yield Item(number)
            if self.error is not None:
                raise self.error
        finally:
            self.closed_in = threading.current_thread().name


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.mark.parametrize("ahead", [0, 1, 2, 50])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_the_items_are_the_same(ahead: int, count: int) -> None:
    maker = Maker(count)
    with prefetched(maker.items(), ahead=ahead, device=CPU) as items:
        assert [item.number for item in items] == list(range(count))
        with pytest.raises(StopIteration):
            next(items)
    assert threads() == []
    assert maker.closed_in == ("MainThread" if ahead == 0 else "prefetch")


def test_items_are_made_ahead_but_not_without_end() -> None:
    maker = Maker(100)
    with prefetched(maker.items(), ahead=3, device=CPU) as items:
        deadline = time.monotonic() + 10
        while maker.made < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert maker.made == 4, "three wait, one is held by the thread"
        next(items)
    assert maker.made <= 6


def test_none_ahead_means_each_when_it_is_asked_for() -> None:
    maker = Maker(5)
    with prefetched(maker.items(), ahead=0, device=CPU) as items:
        assert maker.made == 0
        next(items)
        assert maker.made == 1
        assert threads() == []


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_error_comes_where_the_item_would_have(ahead: int) -> None:
    maker = Maker(3, error=ValueError("no more"))
    with pytest.raises(ValueError, match="no more"), prefetched(maker.items(), ahead=ahead, device=CPU) as items:
        assert [next(items).number for _ in range(3)] == [0, 1, 2]
        next(items)
    assert threads() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), RuntimeError("a step failed")])
@pytest.mark.parametrize("taken", [0, 1, 7])
def test_the_thread_ends_with_the_run(error: BaseException, taken: int) -> None:
    maker = Maker(1_000_000)
    with pytest.raises(type(error)), prefetched(maker.items(), ahead=2, device=CPU) as items:
        for _ in range(taken):
            next(items)
        raise error
    assert threads() == []
    assert maker.closed_in == "prefetch"


def test_for_a_gpu_the_thread_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    device = torch.device("cuda", 1)
    with prefetched(Maker(3).items(), ahead=2, device=device) as items:
        assert {item.pinned_in for item in items} == {"prefetch"}
    assert chosen == [device], "a thread begins on the first GPU"
    with prefetched(Maker(3).items(), ahead=2, device=CPU) as items:
        assert {item.pinned_in for item in items} == {""}
