"""Watchdog: notices that a rank hangs or is gone, and ends this process with the reason."""

from __future__ import annotations

import dataclasses
import faulthandler
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trainer.job_store import JobStore
from trainer.peers import Peer
from trainer.vital_signs import Failure, Heard, Status, find_gone, find_silent, find_stalled, main_thread_place

_ALL_LISTEN = 16  # ranks; in larger jobs one of each host listens to all, so that the store can answer
_STDERR = 2  # the descriptor: sys.stderr may be a buffer without one


@dataclass(frozen=True, kw_only=True)
class Patience:
    """What a watchdog waits for, in seconds."""

    interval: float = 1.0  # between two looks
    silent: float = 4.0  # until a process without news counts as silent: a loaded machine is no reason
    coming_out: float = 3.0  # until the main thread has noticed by itself that a rank is lost
    leaving: float = 30.0  # until a main thread that has failed has left
    store: float = 10.0  # until the store counts as lost

    @staticmethod
    def for_limit(seconds: float) -> Patience:
        """What fits a limit of so many seconds on a step."""
        return Patience(interval=min(1.0, seconds / 10), silent=min(4.0, seconds / 2))


class Watchdog:
    """Two daemon threads: one looks at this process, the other talks with the store, which may not answer.

    Args:
        store: The job's store, over a connection of this object's own.
        peer: This process.
        world_size: Number of ranks.
        beside: The ranks of this host.
        end: Called in a thread with the reason once this process must end; returns where it ends already.
        patience: What to wait for.
    """

    def __init__(
        self,
        *,
        store: JobStore,
        peer: Peer,
        world_size: int,
        beside: Sequence[int],
        end: Callable[[Failure], None],
        patience: Patience = Patience(),  # noqa: B008
    ) -> None:
        self._store = store
        self._peer = peer
        self._beside = [rank for rank in beside if rank != peer.rank]
        self._listens_to_all = world_size <= _ALL_LISTEN or peer.rank == min(beside)
        everyone = range(world_size) if self._listens_to_all else beside
        self._others = [rank for rank in everyone if rank != peer.rank]
        self._end = end
        self._patience = patience
        self._beat = (0, "start", time.monotonic())
        self._limit = (0.0, "")
        self._excused = (0, 0.0)  # a beat, and how long the whole process was stopped since then
        self._ticks = 0
        self._heard: dict[int, Heard] = {}
        self._new_at: dict[int, float] = {}
        self._answered_at = time.monotonic()
        self._lost: tuple[Failure, float] | None = None  # and since when it is known
        self._explaining = False
        self._leaving_at: float | None = None
        self._closed = threading.Event()
        self._hurry = threading.Event()
        self._threads = [
            threading.Thread(target=loop, name=f"watchdog {loop.__name__}", daemon=True)
            for loop in (self._look, self._talk)
        ]

    def start(self) -> None:
        """Starts the threads, and has an alarm write where the main thread is."""
        # Its alone: an alarm that was due while the process was stopped comes when all threads run, and reading the
        # frames of a running thread crashes (python/cpython#116008). dump_traceback_later reads those of all.
        faulthandler.register(signal.SIGALRM, file=_STDERR, all_threads=False)
        self._store.set_status(self._peer.rank, self._status().as_json())
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ends the threads; other ranks may end from now on."""
        self._closed.set()
        self._hurry.set()
        for thread in self._threads:
            thread.join(2 * self._patience.interval)
        signal.setitimer(signal.ITIMER_REAL, 0)

    def beat(self, doing: str) -> None:
        """Notes that the main thread moves, and what it does now; costs an assignment."""
        self._beat = (self._beat[0] + 1, doing, time.monotonic())

    @property
    def doing(self) -> str:
        """What the main thread said last."""
        return self._beat[1]

    @property
    def limit(self) -> tuple[float, str]:
        """Seconds that one beat may take, 0 without a limit, and the key that says so."""
        return self._limit

    @limit.setter
    def limit(self, limit: tuple[float, str]) -> None:
        self._limit = limit

    def peers(self) -> dict[int, Peer]:
        """The other ranks that have been heard of."""
        return {rank: heard.status.peer for rank, heard in self._heard.items()}

    def leave(self) -> None:
        """The main thread has failed and is leaving; the process ends even where it cannot."""
        self._leaving_at = time.monotonic()

    @property
    def has_waited_for_leaving(self) -> bool:
        """Whether the main thread is leaving for longer than it may."""
        return self._leaving_at is not None and time.monotonic() - self._leaving_at > self._patience.leaving

    def explain(self, *, seconds: float, waited: tuple[float, str] = (0.0, "")) -> Failure | None:
        """Why another rank was lost; waits until that is known. Asked by the main thread.

        Args:
            seconds: How long it may take to find out.
            waited: Seconds that this rank has waited for others in vain, and the key that says so.
        """
        self._explaining = True
        self._hurry.set()
        deadline = time.monotonic() + seconds
        while self._lost is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if self._lost is not None:
            return self._lost[0]
        if not waited[0]:
            return None
        limit, key = waited
        mine = dataclasses.replace(
            self._status(), waits=True, where="", at_rest_seconds=limit, limit_seconds=limit, limit_key=key
        )
        return find_stalled(mine, list(self._heard.values()))

    def _status(self) -> Status:
        number, doing, at = self._beat
        excused_beat, excused = self._excused
        limit, key = self._limit
        where, waits = main_thread_place()
        return Status(
            peer=self._peer,
            num_beats=number,
            doing=doing,
            where=where,
            waits=waits or self._explaining,  # it has waited in vain
            at_rest_seconds=time.monotonic() - at - (excused if excused_beat == number else 0.0),
            limit_seconds=limit,
            limit_key=key,
            tick=self._ticks,
        )

    def _look(self) -> None:
        interval = self._patience.interval
        before = time.monotonic()
        while not self._closed.wait(interval):
            now = time.monotonic()
            if now - before > 5 * interval:  # the whole process was stopped, or the machine slept: no rank's fault
                beat, excused = self._excused
                self._excused = (self._beat[0], now - before + (excused if beat == self._beat[0] else 0.0))
            before = now
            # Code that never gives the interpreter away stops this thread too; an alarm needs no interpreter.
            signal.setitimer(signal.ITIMER_REAL, 2 * self._limit[0])  # 0: never
            failure = self._reason_to_end(now)
            if failure is not None and not self._closed.is_set():
                if self._peer.rank in failure.ranks and self._leaving_at is None:
                    faulthandler.dump_traceback(file=_STDERR, all_threads=True)
                self._end(failure)

    def _reason_to_end(self, now: float) -> Failure | None:
        lost, known_at = self._lost or (None, now)
        if self._leaving_at is not None:
            own = Failure(ranks=(self._peer.rank,), sentence=f"{self._peer} failed and could not leave")
            return (lost or own) if self.has_waited_for_leaving else None
        if lost is not None:
            # Mostly the main thread notices by itself, and ends in the ordinary way.
            named = self._peer.rank in lost.ranks
            return lost if named or now - known_at > self._patience.coming_out else None
        mine = self._status()
        # Who does not listen to all ranks leaves it to those who do to say who hangs.
        if not mine.is_late or not (self._listens_to_all or mine.at_rest_seconds > 1.1 * mine.limit_seconds + 5):
            return None
        if mine.waits and now - self._answered_at > self._patience.store:
            told = (
                f"{self._peer} waits for others since {mine.at_rest_seconds:.0f} s {mine.place}, and torchrun's store"
            )
            return Failure(ranks=(), sentence=f"{told} does not answer; its host may be gone")
        return find_stalled(mine, list(self._heard.values()))

    def _talk(self) -> None:
        while not self._closed.is_set():
            try:
                self._exchange()
                self._answered_at = time.monotonic()
            except RuntimeError:  # the store's host is gone or does not answer: _look knows for how long
                self._closed.wait(self._patience.interval)
            self._hurry.wait(self._patience.interval)
            self._hurry.clear()

    def _exchange(self) -> None:
        self._ticks += 1
        mine = self._status()
        self._store.set_status(self._peer.rank, mine.as_json())
        curious = self._explaining or mine.at_rest_seconds > mine.limit_seconds / 2 > 0
        unknown = [rank for rank in self._beside if rank not in self._heard]
        self._listen(self._others if curious else unknown)
        heard = list(self._heard.values())
        gone = find_gone(mine, heard)
        # Asked after the look at the processes: a rank tells before it ends.
        told = self._store.failure()
        lost = Failure.from_json(told) if told is not None else gone
        if lost is None and self._explaining:
            lost = find_silent(mine, heard)
        if lost is not None and self._lost is None and not self._closed.is_set():
            self._lost = (lost, time.monotonic())

    def _listen(self, ranks: list[int]) -> None:
        for rank, body in self._store.statuses(ranks).items():
            status, now = Status.from_json(body), time.monotonic()
            before = self._heard.get(rank)
            if before is None or before.status.tick != status.tick:
                self._new_at[rank] = now
            silent = now - self._new_at[rank]
            self._heard[rank] = Heard(status=status, silent_seconds=silent, is_silent=silent > self._patience.silent)
