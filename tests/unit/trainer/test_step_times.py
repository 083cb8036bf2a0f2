"""StepTimes: where the seconds go, by marks at known times."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torchrec.sparse.jagged_tensor import KeyedTensor

from modules.tables import build_tables
from tests.unit.modules.small import FEATURES, bags, group_specs
from trainer.data.reading.prefetch import prefetched
from trainer.step_times import PHASES, StepTimes, fractions

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


@pytest.fixture
def wait(now: list[float], monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Waits half a second for a collective, as TorchRec does."""

    def half_a_second(_work: Any) -> None:
        now[0] += 0.5

    monkeypatch.setattr(dist.Work, "wait", half_a_second)
    return lambda: dist.Work.wait(SimpleNamespace())  # type: ignore[arg-type, call-arg]


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
    parts = {"data": 0.0, "lookup": 2.5, "communication": 0.25, "dense": 4.0, "optimizer": 8.0}
    assert times.take() == parts
    assert times.take() == dict.fromkeys(PHASES, 0.0)
    play(times, now, [*step, *((event, at + 20) for event, at in step)])  # what lies between is nobody's
    assert sum(times.take().values()) == 2 * 14.75


def test_waits_for_collectives_are_communication(now: list[float], wait: Callable[[], None]) -> None:
    times = StepTimes(CPU, world_size=2)
    with times.waits():
        play(times, now, [("forward", 1.0)])
        wait()  # for ids
        wait()
        play(times, now, [("looked_up", 3.0)])
        wait()  # a loss that asks other ranks
        play(times, now, [("embedding_gradient", 5.0)])
        wait()
        play(times, now, [("backward_done", 7.0)])
        wait()  # for dense gradients: all until the next mark is communication
        play(times, now, [("reduced", 8.0), ("stepped", 9.0)])
        wait()  # for the losses of a log
    play(times, now, [("forward", 10.0)])
    wait()
    play(times, now, [("looked_up", 11.0)])
    assert times.take() == {
        "data": 0.0,
        "lookup": 1.0 + 1.5 + 1.0,
        "communication": 3.0,
        "dense": 1.5,
        "optimizer": 1.0,
    }


def test_waits_of_other_threads_are_not_the_steps(now: list[float], wait: Callable[[], None]) -> None:
    times = StepTimes(CPU, world_size=2)
    with times.waits():
        play(times, now, [("forward", 1.0)])
        other = threading.Thread(target=wait)  # as one that writes a checkpoint
        other.start()
        other.join()
        play(times, now, [("looked_up", 4.0)])
    found = times.take()
    assert (found["lookup"], found["communication"]) == (3.0, 0.0)


def test_a_rank_alone_waits_for_nobody(now: list[float], wait: Callable[[], None]) -> None:
    times = StepTimes(CPU, world_size=1)
    with times.waits():
        play(times, now, [("forward", 1.0)])
        wait()
        play(times, now, [("looked_up", 4.0)])
    found = times.take()
    assert (found["lookup"], found["communication"]) == (3.0, 0.0)


def test_the_metrics_have_lookup_and_communication_as_one() -> None:
    seconds = {"data": 1.0, "lookup": 2.0, "communication": 3.0, "dense": 4.0, "optimizer": 5.0}
    assert fractions(seconds, of=20.0) == {
        "time/data_fraction": 0.05,
        "time/lookup_and_communication_fraction": 0.25,
        "time/dense_fraction": 0.2,
        "time/optimizer_fraction": 0.25,
    }


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
    asked, made = threading.Event(), threading.Event()

    def slow() -> Generator[SimpleNamespace]:
        yield SimpleNamespace()
        assert asked.wait(10)
        yield SimpleNamespace()
        time.sleep(0.3)
        made.set()
        yield SimpleNamespace()

    with prefetched(slow(), ahead=1, device=CPU) as items:
        timed = times.timed(items)
        next(timed)
        times.take()
        asked.set()
        assert made.wait(10)  # a long step: both of the others are made meanwhile
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
