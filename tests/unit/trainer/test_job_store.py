"""JobStore: each attempt has keys of its own, and its ranks find each other whatever the one before left."""

from __future__ import annotations

import datetime
import threading

import pytest
import torch.distributed as dist

from configs.errors import ChorusError
from tests.support.ranks import free_port
from trainer.job_store import JobStore
from trainer.launcher import ProcessPlace

SECONDS = datetime.timedelta(seconds=20)


def place(rank: int, world_size: int) -> ProcessPlace:
    return ProcessPlace(rank=rank, world_size=world_size, local_rank=rank, local_world_size=world_size)


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> dist.TCPStore:
    """A store that outlives the workers, as torchrun has it."""
    port = free_port()
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(port))
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    return dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)


def open_all(world_size: int) -> list[JobStore]:
    """The ranks of one attempt, each in a thread; rank 0 comes last."""
    opened: dict[int, JobStore] = {}

    def begin(rank: int) -> None:
        opened[rank] = JobStore.open(place(rank, world_size), timeout=SECONDS)

    threads = [threading.Thread(target=begin, args=(rank,)) for rank in reversed(range(world_size))]
    for thread in threads:
        thread.start()
        thread.join(0.1)
    for thread in threads:
        thread.join()
    return [opened[rank] for rank in range(world_size)]


def test_attempts_share_what_is_of_the_job_and_nothing_else(agent: dist.TCPStore) -> None:
    for number, world_size in enumerate((3, 3, 2)):  # hosts may go between two attempts
        stores = open_all(world_size)
        assert [store.claim("x") for store in stores] == [True] + [False] * (world_size - 1)
        stores[1].of_attempt.set("address", f"of attempt {number}")
        assert stores[0].of_attempt.get("address").decode() == f"of attempt {number}"
        assert stores[0].failure() is None
        assert stores[1].tell_failure({"sentence": f"{number}"})
        assert not stores[0].tell_failure({"sentence": "a later one"})
        assert stores[0].failure() == {"sentence": f"{number}"}
        assert stores[0].once("folder", lambda number=number: f"runs/{number}") == "runs/0"  # type: ignore[misc]


def test_another_connection_sees_the_same(agent: dist.TCPStore) -> None:
    stores = open_all(2)
    again = stores[1].connect_again(timeout=SECONDS)
    again.set_status(1, {"tick": 3})
    assert stores[0].statuses([0, 1]) == {1: {"tick": 3}}


def test_ranks_that_do_not_come_are_named(agent: dist.TCPStore) -> None:
    second = datetime.timedelta(seconds=0.5)
    with pytest.raises(ChorusError, match=r"^rank\(s\) 1, 2 did not come within 0.5 s \(run.timeout_seconds\)$"):
        JobStore.open(place(0, 3), timeout=second)
    with pytest.raises(ChorusError, match=r"^rank 0 did not come within 0.5 s \(run.timeout_seconds\)$"):
        JobStore.open(place(1, 3), timeout=second)


def test_one_rank_needs_no_server() -> None:
    store = JobStore.open(place(0, 1), timeout=SECONDS)
    assert store.connect_again(timeout=SECONDS) is store
    assert [store.claim("a"), store.claim("a"), store.claim("b")] == [True, False, True]
    assert store.tell_failure({"sentence": "x"}) and store.failure() == {"sentence": "x"}
