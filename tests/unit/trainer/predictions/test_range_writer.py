"""The range writer: in order, beside the caller, bounded, and what fails in it is raised where it is used."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.support.processes import wait_until
from trainer.predictions.range_writer import RangeWriter


def of(number: int) -> Any:
    """Ranges are handed on as they are."""
    return f"range {number}"


def test_all_is_written_in_order_beside_the_caller() -> None:
    written: list[tuple[Any, int]] = []
    with RangeWriter(lambda one: written.append((one, threading.get_ident()))) as writer:
        for number in range(20):
            writer.put(of(number))
        writer.finish()
        assert [one for one, _ in written] == [of(number) for number in range(20)]
        writer.finish()
    assert {thread for _, thread in written} != {threading.get_ident()} and len({t for _, t in written}) == 1


def test_a_block_that_ends_well_waits_for_all() -> None:
    written: list[Any] = []
    go_on = threading.Event()

    def write(one: Any) -> None:
        go_on.wait(10)
        written.append(one)

    threading.Timer(0.05, go_on.set).start()
    with RangeWriter(write) as writer:
        writer.put(of(0))
    assert written == [of(0)]


def test_no_more_than_a_few_wait() -> None:
    go_on, put = threading.Event(), list[int]()
    writer = RangeWriter(lambda _one: go_on.wait(10), ahead=2)

    def feed() -> None:
        with writer:
            for number in range(6):
                writer.put(of(number))
                put.append(number)

    thread = threading.Thread(target=feed)
    thread.start()
    wait_until(lambda: len(put) == 3)  # one in work, two queued
    thread.join(0.1)
    assert len(put) == 3
    go_on.set()
    thread.join(10)
    assert len(put) == 6


def fails(_one: Any) -> None:
    raise OSError(28, "No space left on device", "x.parquet")


@pytest.mark.parametrize("at", ["put", "finish", "end"])
def test_what_fails_is_raised_to_the_caller(at: str) -> None:
    with pytest.raises(OSError, match="No space left"), RangeWriter(fails) as writer:
        writer.put(of(0))
        if at == "put":
            for number in range(100):
                writer.put(of(number))
        if at == "finish":
            writer.finish()


def test_a_block_that_fails_waits_for_nothing() -> None:
    go_on, written = threading.Event(), list[Any]()

    def write(one: Any) -> None:
        go_on.wait(10)
        written.append(one)

    with pytest.raises(ValueError, match="another rank"), RangeWriter(write) as writer:
        writer.put(of(0))
        writer.put(of(1))
        raise ValueError("another rank")
    assert written == []
    go_on.set()
    writer._thread.join(10)
    assert not writer._thread.is_alive()
    assert of(1) not in written
