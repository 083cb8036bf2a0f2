"""Watchdog: what hangs is ended with the reason, what is slow is left alone."""

from __future__ import annotations

import datetime
import re
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.commands import run_code
from tests.support.processes import sleeping, wait_until
from trainer.job_store import JobStore
from trainer.launcher import ProcessPlace
from trainer.peers import Peer
from trainer.vital_signs import Failure, main_thread_place
from trainer.watchdog import Patience, Watchdog

QUICK = Patience(interval=0.02, silent=0.3, coming_out=0.3, leaving=0.6, store=1.0)


class Watched:
    """A watchdog of rank 0, the reasons that it gave, and the store."""

    def __init__(self, world_size: int, beside: int) -> None:
        one = ProcessPlace(rank=0, world_size=1, local_rank=0, local_world_size=1)
        self.store = JobStore.open(one, timeout=datetime.timedelta(seconds=5))
        self.ended: list[Failure] = []
        self.peer = Peer.this_process(0)
        self.dog = Watchdog(
            store=self.store,
            peer=self.peer,
            world_size=world_size,
            beside=range(beside),
            end=self.ended.append,
            patience=QUICK,
        )
        self.dog.start()

    def has_ended(self) -> bool:
        return bool(self.ended)

    def hear(self, peer: Peer, **changes: object) -> None:
        """Another rank says how it is."""
        status = self.dog._status().as_json() | {"peer": peer.__dict__, "doing": "step 3", "tick": 1} | changes
        self.store.set_status(peer.rank, status)


@pytest.fixture
def watch() -> Iterator[Callable[[int], Watched]]:
    made: list[Watched] = []

    def begin(world_size: int = 1, beside: int | None = None) -> Watched:
        made.append(Watched(world_size, beside or world_size))
        return made[-1]

    yield begin
    for watched in made:
        watched.dog.close()


def test_a_main_thread_that_does_not_move_is_named_with_its_stack(
    watch: Callable[..., Watched], capfd: pytest.CaptureFixture[str]
) -> None:
    watched = watch()
    watched.dog.beat("step 7")
    watched.dog.limit = (0.3, "run.hang_seconds")
    wait_until(watched.has_ended)
    failure = watched.ended[0]
    assert failure.ranks == (0,) and failure.exit_code == 1
    assert f"{watched.peer} has not moved for 0 s (run.hang_seconds = 0.3) at step 7, in tests/" in failure.sentence
    assert "test_a_main_thread_that_does_not_move_is_named_with_its_stack" in capfd.readouterr().err


def test_one_that_moves_is_left_alone(watch: Callable[..., Watched]) -> None:
    watched = watch()
    watched.dog.limit = (0.3, "run.hang_seconds")
    for step in range(40):
        watched.dog.beat(f"step {step}")
        time.sleep(0.02)
    assert not watched.ended
    watched.dog.limit = (0.0, "")  # outside of steps: for as long as it wants
    time.sleep(0.6)
    assert not watched.ended
    watched.dog.limit = (5.0, "run.timeout_seconds")
    time.sleep(0.4)
    assert not watched.ended


def test_a_rank_that_is_gone_ends_this_one_once_its_main_thread_had_its_chance(watch: Callable[..., Watched]) -> None:
    watched = watch(2)
    with sleeping() as process:
        peer = Peer.of(process.pid, rank=1)
        watched.hear(peer)
        wait_until(watched.dog.peers)
        assert watched.dog.peers() == {1: peer}
        process.kill()
        gone_at = time.monotonic()
        wait_until(watched.has_ended)
        assert time.monotonic() - gone_at > 0.25
    assert watched.ended[0].sentence.startswith(f"{peer} ended without a word; it was last seen at step 3")


def test_the_main_thread_learns_why_a_rank_was_lost(watch: Callable[..., Watched]) -> None:
    watched = watch(3)
    assert watched.dog.explain(seconds=0.1) is None
    told = Failure(ranks=(2,), sentence="rank 2 (far, pid 7) failed at step 3: no room", exit_code=2)
    watched.store.tell_failure(told.as_json())
    assert watched.dog.explain(seconds=5) == told


def test_a_silent_rank_is_a_reason_for_a_lost_one(watch: Callable[..., Watched]) -> None:
    watched = watch(3)
    talking = Peer(rank=1, host="a", machine="a", pid=1, started=1)
    silent = Peer(rank=2, host="b", machine="b", pid=1, started=1)
    watched.hear(silent)
    going = threading.Event()

    def talk() -> None:
        tick = 0
        while not going.wait(0.02):
            watched.hear(talking, tick=(tick := tick + 1))

    thread = threading.Thread(target=talk)
    thread.start()
    failure = watched.dog.explain(seconds=5)
    going.set()
    thread.join()
    assert failure is not None and failure.ranks == (2,) and failure.hangs
    assert "rank 2 (b, pid 1) has not answered for" in failure.sentence


def test_a_main_thread_that_leaves_has_time_and_no_more(watch: Callable[..., Watched]) -> None:
    watched = watch(2)
    watched.dog.limit = (0.2, "run.hang_seconds")
    watched.dog.leave()
    watched.store.tell_failure(Failure(ranks=(1,), sentence="rank 1 failed", exit_code=2).as_json())
    time.sleep(0.45)
    assert not watched.ended
    wait_until(watched.has_ended)
    assert watched.ended[0].sentence == "rank 1 failed"


def test_in_a_large_job_one_rank_of_a_host_listens_to_all_others(watch: Callable[..., Watched]) -> None:
    watched = watch(64, 8)
    far = Peer(rank=63, host="far", machine="far", pid=1, started=1)
    near = Peer(rank=7, host="near", machine="near", pid=1, started=1)
    watched.hear(far)
    watched.hear(near)
    wait_until(watched.dog.peers)
    assert watched.dog.peers() == {7: near}
    watched.dog.explain(seconds=0.2)
    assert watched.dog.peers() == {7: near, 63: far}


def test_once_closed_nothing_ends_the_process(watch: Callable[..., Watched]) -> None:
    watched = watch(2)
    watched.dog.limit = (0.1, "run.hang_seconds")
    watched.dog.close()
    watched.store.tell_failure(Failure(ranks=(1,), sentence="rank 1 failed").as_json())
    time.sleep(0.5)
    assert not watched.ended


WATCHED = """
import ctypes, datetime, os, subprocess, time
from trainer.job_store import JobStore
from trainer.launcher import ProcessPlace
from trainer.peers import Peer
from trainer.watchdog import Patience, Watchdog

one = ProcessPlace(rank=0, world_size=1, local_rank=0, local_world_size=1)
dog = Watchdog(
    store=JobStore.open(one, timeout=datetime.timedelta(seconds=5)),
    peer=Peer.this_process(0),
    world_size=1,
    beside=[0],
    end=lambda failure: print("ended:", failure.sentence, flush=True),
    patience=Patience(interval=0.1),
)
dog.start()
"""

STOPPED = """
dog.limit = (1.0, "run.hang_seconds")
dog.beat("step 1")
# Stopped with everything, as by Ctrl-Z, for longer than the limit: it did not hang.
subprocess.Popen(f"sleep 0.3; kill -STOP {os.getpid()}; sleep 2; kill -CONT {os.getpid()}", shell=True)
began = time.monotonic()
while time.monotonic() < began + 2.8:
    if time.monotonic() < began + 0.2: dog.beat("step 2")
    time.sleep(0.05)
print("went on", flush=True)
time.sleep(1.5)
os._exit(0)
"""


def test_the_time_that_a_whole_process_was_stopped_does_not_count() -> None:
    done = run_code(WATCHED + STOPPED)
    assert done.returncode == 0, done.stderr
    went_on, ended, *_ = [*done.stdout.splitlines(), "", ""]
    assert went_on == "went on", done.stdout + done.stderr
    assert ended.startswith("ended: rank 0 "), "the limit still holds afterwards"


INTERPRETER_HELD = """
def hold():
    ctypes.PyDLL(None).usleep(1_500_000)  # as C code that does not give the interpreter away: no thread runs

dog.limit = (0.3, "run.hang_seconds")
dog.beat("step 1")
time.sleep(0.2)
hold()
os._exit(0)
"""


def test_where_code_that_holds_the_interpreter_is_stuck_is_written() -> None:
    done = run_code(WATCHED + INTERPRETER_HELD)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^Stack .*\n.* in hold$", done.stderr, re.M), done.stderr


def test_a_place_is_a_line_of_ours() -> None:
    found: list[tuple[str, bool]] = []
    thread = threading.Thread(target=lambda: found.append(main_thread_place()))
    thread.start()
    thread.join()
    ((where, waits),) = found
    assert where.startswith("tests/unit/trainer/test_watchdog.py:") and where.endswith(
        "(test_a_place_is_a_line_of_ours)"
    )
    assert not waits
