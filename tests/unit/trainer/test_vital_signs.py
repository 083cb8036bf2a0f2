"""Vital signs: who is to blame when a job stands still."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
import torch.distributed as dist

from sharding.collective_waits import told_waits
from tests.support.processes import sleeping, wait_until
from trainer.peers import Peer
from trainer.vital_signs import Failure, Heard, Status, find_gone, find_silent, find_stalled, main_thread_place


def status(rank: int, *, beats: int = 12, waits: bool = True, peer: Peer | None = None) -> Status:
    return Status(
        peer=peer or Peer(rank=rank, host=f"host{rank}", machine=f"machine{rank}", pid=100 + rank, started=1),
        num_beats=beats,
        doing=f"step {beats}",
        where="trainer/loop.py:80 (train)",
        waits=waits,
        at_rest_seconds=61.2,
        limit_seconds=60,
        limit_key="run.hang_seconds",
        tick=1,
    )


def heard(of: Status, *, silent: bool = False) -> Heard:
    return Heard(status=of, silent_seconds=7.4 if silent else 0.4, is_silent=silent)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with sleeping() as process:
        yield process


SPENT = "61 s (run.hang_seconds = 60) at step 12, in trainer/loop.py:80 (train)"


def test_the_rank_that_waits_for_nobody_holds_the_job_up() -> None:
    failure = find_stalled(status(0), [heard(status(1)), heard(status(2, waits=False))])
    assert failure.sentence == f"rank 2 (host2, pid 102) has not moved for {SPENT}"
    assert failure.ranks == (2,) and failure.hangs


def test_this_rank_may_be_it() -> None:
    assert find_stalled(status(0, waits=False), [heard(status(1))]).ranks == (0,)
    assert find_stalled(status(0, waits=False), []).sentence == f"rank 0 (host0, pid 100) has not moved for {SPENT}"


def test_of_several_the_one_that_came_least_far() -> None:
    """Work on a GPU is waited for in C++: nobody seems to wait for others."""
    busy = [heard(status(1, beats=12, waits=False)), heard(status(2, beats=13, waits=False))]
    assert find_stalled(status(0, beats=13, waits=False), busy).ranks == (1,)
    equal = find_stalled(status(0, waits=False), [heard(status(1, waits=False)), heard(status(2, waits=False))])
    assert equal.ranks == (0, 1, 2)
    assert equal.sentence == f"rank 0 (host0, pid 100) has not moved for {SPENT}; nor have ranks 1, 2"


def test_ranks_that_wait_for_each_other_are_no_single_ranks_fault() -> None:
    failure = find_stalled(status(0), [heard(status(1))])
    assert failure.ranks == (0, 1)
    assert failure.sentence == f"rank 0 (host0, pid 100) and all others have waited for each other for {SPENT}"


def test_a_process_that_does_not_run_comes_first() -> None:
    others = [heard(status(1, waits=False)), heard(status(2, beats=11), silent=True)]
    failure = find_stalled(status(0, waits=False), others)
    assert failure.ranks == (2,) and failure.hangs
    assert failure.sentence == (
        "rank 2 (host2, pid 102) has not answered for 7 s; it was last seen at step 11, in trainer/loop.py:80 (train),"
        " and rank 0 is at step 12"
    )
    assert find_silent(status(0), others[:1]) is None


def test_a_stopped_process_beside_is_seen_at_once(sleeper: subprocess.Popen[bytes]) -> None:
    mine = status(0, peer=Peer.this_process(0))
    beside = Peer.of(sleeper.pid, rank=1)
    other = [heard(status(1, peer=beside))]
    assert find_silent(mine, other) is None
    assert find_gone(mine, other) is None
    sleeper.send_signal(signal.SIGSTOP)
    wait_until(lambda: beside.state() == "stopped")
    stopped = find_silent(mine, other)
    assert stopped is not None and "is stopped by a signal; it was last seen at step 12" in stopped.sentence
    sleeper.kill()
    sleeper.wait()
    gone = find_gone(mine, other)
    assert gone is not None and gone.ranks == (1,) and not gone.hangs
    assert gone.sentence.startswith(f"{beside} ended without a word; it was last seen at step 12")


def test_a_process_elsewhere_is_never_taken_for_gone(sleeper: subprocess.Popen[bytes]) -> None:
    mine = status(0, peer=Peer.this_process(0))
    elsewhere = Peer(rank=1, host="far", machine="another boot", pid=sleeper.pid, started=0)
    assert find_gone(mine, [heard(status(1, peer=elsewhere))]) is None


def test_statuses_and_failures_travel_as_json() -> None:
    assert Status.from_json(status(3).as_json()) == status(3)
    failure = Failure(ranks=(1, 2), sentence="x", exit_code=2, hangs=True)
    assert Failure.from_json(failure.as_json() | {"ranks": [1, 2]}) == failure


def test_a_wait_that_is_timed_is_a_wait_and_its_place_is_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist.Work, "wait", time.sleep)  # in C, as torch's own
    seen = []
    with told_waits(begin=lambda: None, end=lambda: None):
        looker = threading.Timer(0.1, lambda: seen.append(main_thread_place()))
        looker.start()
        dist.Work.wait(0.5)  # type: ignore[arg-type]
        looker.join()
    ((place, waits),) = seen
    assert waits
    assert re.fullmatch(r"tests/unit/trainer/test_vital_signs\.py:\d+ \(test_a_wait_that_is_timed\w+\)", place)
