"""StepTimes: where the seconds go, by marks at known times."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from types import SimpleNamespace

import pytest
import torch
from torchrec.sparse.jagged_tensor import KeyedTensor

from modules.tables import build_tables
from tests.unit.modules.small import FEATURES, bags, group_specs
from trainer.data.reading.prefetch import prefetched
from trainer.step_times import PHASES, StepTimes

CPU = torch.device("cpu")


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test sets."""
    clock = [0.0]
    monkeypatch.setattr("trainer.step_times.time.perf_counter", lambda: clock[0])
    return clock


def play(times: StepTimes, now: list[float], events: list[tuple[str, float]]) -> None:
    for event, at in events:
        now[0] = at
        times.mark(event)


def test_every_second_of_a_step_has_its_phase(now: list[float]) -> None:
    times = StepTimes(CPU)
    step = [
        ("forward", 1.5),
        ("looked_up", 3.5),
        ("embedding_gradient", 7.5),
        ("backward_done", 8.0),
        ("reduced", 8.25),
        ("stepped", 16.25),
    ]
    play(times, now, step)
    assert times.take() == {"data": 0.0, "lookup_and_communication": 2.75, "dense": 4.0, "optimizer": 8.0}
    assert times.take() == dict.fromkeys(PHASES, 0.0)
    play(times, now, [*step, *((event, at + 20) for event, at in step)])  # what lies between is nobody's
    assert sum(times.take().values()) == 2 * 14.75


def test_data_is_the_time_to_get_the_next_item(now: list[float]) -> None:
    times = StepTimes(CPU)

    def slow() -> Iterator[int]:
        for item in range(3):
            now[0] += 2.0
            yield item

    for _ in times.timed(slow()):
        now[0] += 100.0  # spent by the user of the item
    assert times.take()["data"] == 6.0
    assert times.take()["data"] == 0.0


def test_data_is_what_the_consumer_waits_and_not_what_the_making_takes() -> None:
    times = StepTimes(CPU)
    asked = threading.Event()

    def slow() -> Generator[SimpleNamespace]:
        yield SimpleNamespace()
        assert asked.wait(10)
        yield SimpleNamespace()
        time.sleep(0.3)
        yield SimpleNamespace()

    with prefetched(slow(), ahead=1, device=CPU) as items:
        timed = times.timed(items)
        next(timed)
        times.take()
        asked.set()
        time.sleep(0.5)  # a long step: both of the others are made meanwhile
        next(timed), next(timed)
        assert times.take()["data"] < 0.1


def test_a_training_lookup_is_marked_and_still_gives_its_result() -> None:
    tables = build_tables(group_specs("a"), device="cpu")
    plain = tables(bags(6)).values().detach()
    times = StepTimes(CPU)
    times.watch(tables)
    found = tables(bags(6))
    assert isinstance(found, KeyedTensor)
    assert found.keys() == list(FEATURES)
    assert torch.equal(found.values(), plain)
    found.values().sum().backward()
    assert [event for event, _ in times._marks] == ["forward", "looked_up", "embedding_gradient"]


def test_an_evaluations_lookup_is_no_part_of_a_step() -> None:
    tables = build_tables(group_specs("a"), device="cpu")
    times = StepTimes(CPU)
    times.watch(tables)
    with torch.no_grad():
        assert isinstance(tables(bags(6)), KeyedTensor)
    assert times._marks == []
