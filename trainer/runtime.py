"""Runtime: this process among the others: rank, device, process groups, votes, limits; a context manager."""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import signal
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from configs.errors import ConfigError
from configs.schema import Run
from trainer import launcher, quiet_libraries
from trainer.failures import (
    Explanation,
    exit_code_of,
    explanation_of,
    failure_sentence,
    is_refusal,
    lost_a_peer,
    tell,
    timed_out,
)
from trainer.heap import keep_freed_memory
from trainer.job_store import JobStore
from trainer.launcher import ProcessPlace
from trainer.peers import Peer
from trainer.vital_signs import Failure
from trainer.votes import Ranks
from trainer.watchdog import Patience, Watchdog

_MEANT_AGAIN_SECONDS = 2.0
_EXPLAIN_SECONDS = 8.0  # more than a silent rank takes to be noticed
_STOPPED_SECONDS = 0.5  # torchrun stops the others at once when it has lost one
_OWN_END_SECONDS = 2.0
_LAST_WORDS_SECONDS = 10.0  # what a process that must end may take to record why
_STORE_SECONDS = 10.0
_WATCHDOG_FIRST_SECONDS = 10.0  # by which collectives wait longer than the watchdog, which knows more to say


class Runtime:
    """This process in the job. Use it as a context manager: it opens and closes the process groups.

    Collectives (`sum`, `from_main`, `gather`, `together`) are called by all ranks or by none.

    A watchdog looks after all ranks. Within `steps` a rank that does not `beat` for run.hang_seconds ends the job on
    all ranks, within `patience` it has run.timeout_seconds; elsewhere a rank may work for as long as it wants, and
    others wait for it for run.timeout_seconds.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._place = ProcessPlace.from_environment()
        self.rank = self._place.rank
        self.world_size = self._place.world_size
        self.local_world_size = self._place.local_world_size
        self.device = self._choose_device()
        self._peer = Peer.this_process(self.rank)
        self._store: JobStore | None = None
        self._ranks: Ranks | None = None
        self._watchdog: Watchdog | None = None
        self._watchdog_store: JobStore | None = None
        self._warming_beats = 0
        self._record: Callable[[int, str], None] = lambda _code, _sentence: None
        self._last_word = threading.Lock()  # whoever takes it ends this process: the main thread or the watchdog
        self._main_has_last_word = False
        self.stopped_on_request = False  # set where the program ends before its end for that
        self._stop_asked_at = math.inf

    def _choose_device(self) -> torch.device:
        if self._run.device == "cpu" or (self._run.device == "auto" and not torch.cuda.is_available()):
            return torch.device("cpu")
        if not torch.cuda.is_available():
            raise ConfigError("run.device: 'cuda', but no GPU is visible; take 'auto' or 'cpu'")
        if self.local_world_size > torch.cuda.device_count():
            raise ConfigError(
                f"{self.local_world_size} ranks on this host, but {torch.cuda.device_count()} GPUs;"
                " start one rank a GPU, or set run.device = 'cpu'"
            )
        return torch.device("cuda", self._place.local_rank)

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which alone prints and writes what is common to all."""
        return self.rank == 0

    @property
    def group(self) -> dist.ProcessGroup:
        """All ranks."""
        group = dist.group.WORLD
        assert group is not None, "the runtime is not open"
        return group

    def __enter__(self) -> Runtime:
        quiet_libraries.silence()
        launcher.end_with_torchrun()
        torch.set_num_threads(self._run.threads_per_rank)
        keep_freed_memory()
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        timeout = datetime.timedelta(seconds=self._run.timeout_seconds)
        self._store = JobStore.open(self._place, timeout=timeout)
        if threading.current_thread() is threading.main_thread():  # the only one that Python lets listen
            # torchrun ends the others when it has lost one: what they know of that is told first. Not before the
            # store is there: waiting for one whose host is gone takes no notice of Python's signals.
            signal.signal(signal.SIGTERM, self._on_early_signal)
        self._watchdog_store = self._store.connect_again(timeout=datetime.timedelta(seconds=_STORE_SECONDS))
        self._watchdog = Watchdog(
            store=self._watchdog_store,
            peer=self._peer,
            world_size=self.world_size,
            beside=self._place.ranks_beside,
            end=self._end_at_once,
            patience=Patience.for_limit(self._run.hang_seconds),
        )
        self._watchdog.start()
        try:
            dist.init_process_group(
                backend="cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo",
                store=self._store.of_attempt,
                rank=self.rank,
                world_size=self.world_size,
                timeout=self._group_timeout,
            )
        except BaseException as error:  # a rank that ends meanwhile
            self.explain(error)
            raise
        self._ranks = Ranks(self.group, beat=self.beat)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if error is not None:
            self.explain(error)
            if self.world_size > 1:
                return  # a rank that fails must not wait for the others: its exit is what tells them
        assert self._watchdog is not None
        self._watchdog.close()
        if error is None:
            asked = self.gather((self._peer.home, self.stop_requested))
            if self.stopped_on_request and _asked_by_hand(asked) and self._place.local_rank == 0:
                launcher.forbid_restart()
        dist.destroy_process_group()

    def listen_for_stop(self) -> None:
        """From now on SIGTERM and Ctrl-C ask for a stop with a checkpoint; Ctrl-C again ends the process."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_early_signal(self, _number: int, _frame: types.FrameType | None) -> None:
        raise KeyboardInterrupt  # there is nothing to save

    def _on_signal(self, number: int, _frame: types.FrameType | None) -> None:
        # Ctrl-C reaches a worker twice, from the terminal and from torchrun, and so may torchrun's death.
        # A person who presses it again later means it.
        if number == signal.SIGINT and time.monotonic() > self._stop_asked_at + _MEANT_AGAIN_SECONDS:
            raise KeyboardInterrupt
        self._stop_asked_at = min(self._stop_asked_at, time.monotonic())

    @property
    def stop_requested(self) -> bool:
        """Whether this process was asked to end (SIGTERM or Ctrl-C); agree on it before acting."""
        return self._stop_asked_at < math.inf

    def say(self, text: str) -> None:
        """Prints a line, on rank 0 alone."""
        if self.is_main:
            print(text, flush=True)

    @property
    def ranks(self) -> Ranks:
        """All ranks, over the main process group; for the main thread."""
        assert self._ranks is not None, "the runtime is not open"
        return self._ranks

    def open_side_group(self) -> Ranks:
        """All ranks, over a gloo group of their own, so that a thread can vote beside the main one. A collective.

        It is closed with the runtime.
        """
        return Ranks(dist.new_group(backend="gloo", timeout=self._group_timeout), beat=self.beat)

    @property
    def _group_timeout(self) -> datetime.timedelta:
        return datetime.timedelta(seconds=self._run.timeout_seconds + _WATCHDOG_FIRST_SECONDS)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over ranks of a CPU tensor, in place."""
        return self.ranks.sum(values)

    def from_main(self, make: Callable[[], Any]) -> Any:
        """What rank 0's `make()` returns, on every rank; an exception there is raised on every rank."""
        return self.ranks.from_main(make)

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank, on every rank."""
        return self.ranks.gather(value)

    def together(self, do: Callable[[], Any]) -> Any:
        """Runs `do()` on every rank; where any rank's raises, every rank raises the first one's error."""
        return self.ranks.together(do)

    def once_per_job(self, key: str, make: Callable[[], str]) -> str:
        """What rank 0's `make()` gave the first time, on every rank, also after a restart of the workers."""

        def recall() -> str:
            assert self._store is not None, "the runtime is not open"
            return self._store.once(key, make)

        return str(self.from_main(recall))

    def claim(self, key: str) -> bool:
        """Whether this rank is the first of the job to claim the key, so that a failure is told once."""
        if self._store is None:
            return self._place.local_rank == 0
        return _claim(self._store, key)

    def beat(self, doing: str) -> None:
        """Tells the watchdog that this rank moves, and what it does now, as "step 12". Cheap enough for every step."""
        self._of_watchdog.beat(doing)
        if self._warming_beats:
            self._warming_beats -= 1
            if not self._warming_beats:
                self._of_watchdog.limit = (self._run.hang_seconds, "run.hang_seconds")

    @contextlib.contextmanager
    def steps(self) -> Iterator[None]:
        """A block of steps: `beat` at the beginning of each. The first one, which compiles and allocates, may last."""
        before = self._of_watchdog.limit
        self._of_watchdog.beat("the first step")
        self._of_watchdog.limit = (self._run.timeout_seconds, "run.timeout_seconds")
        self._warming_beats = 2
        yield
        self._of_watchdog.limit, self._warming_beats = before, 0

    @contextlib.contextmanager
    def patience(self, doing: str) -> Iterator[None]:
        """A block that may last, as "restoring"; all ranks leave it together. A collective.

        Work of many parts should `beat` in it: run.timeout_seconds is for one part.
        """
        watchdog = self._of_watchdog
        limit, before = watchdog.limit, watchdog.doing
        watchdog.limit = (self._run.timeout_seconds, "run.timeout_seconds")
        watchdog.beat(doing)
        yield
        self.ranks.wait()  # a rank that still publishes would look hung to one that steps on
        watchdog.beat(before)
        watchdog.limit = limit

    @property
    def _of_watchdog(self) -> Watchdog:
        assert self._watchdog is not None, "the runtime is not open"
        return self._watchdog

    def at_sudden_end(self, record: Callable[[int, str], None]) -> None:
        """Has the exit code and the sentence recorded where the watchdog ends this process."""
        self._record = record

    def explain(self, error: BaseException) -> None:
        """Finds out why this rank ends, and tells the others. The error carries what there is to say; once is enough.

        From here on SIGTERM does nothing: torchrun sends it to the ranks that are left.
        """
        if explanation_of(error) is not None:
            return
        self._main_has_last_word = self._main_has_last_word or self._last_word.acquire(blocking=False)
        if not self._main_has_last_word:
            time.sleep(_LAST_WORDS_SECONDS + 2 * _OWN_END_SECONDS)  # the watchdog is ending this process
        if self.world_size > 1:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._of_watchdog.leave()
        lost, failure = lost_a_peer(error), None
        if lost and self.world_size > 1:
            waited = self._run.timeout_seconds if timed_out(error) else 0.0
            failure = self._of_watchdog.explain(seconds=_EXPLAIN_SECONDS, waited=(waited, "run.timeout_seconds"))
        elif isinstance(error, KeyboardInterrupt) and self.world_size > 1:
            failure = self._of_watchdog.explain(seconds=_STOPPED_SECONDS)
        if failure is None:
            sentence, code = failure_sentence(error), exit_code_of(error)
            is_first = self.claim("a lost peer" if lost else sentence)
            self.claim(self._told_here)
            if not lost:
                told = f"{self._peer} failed at {self._of_watchdog.doing}: {sentence}"
                self._tell(Failure(ranks=(self.rank,), sentence=told, exit_code=code))
        else:
            sentence, code, is_first = failure.sentence, failure.exit_code, self.claim(self._told_here)
            self._tell(failure)
            self._end_hanging_ranks(failure)
        error.explanation = Explanation(  # type: ignore[attr-defined]
            sentence=sentence,
            exit_code=code,
            is_first=is_first,
            wants_traceback=self._run.errors == "traceback",
        )
        if is_refusal(code) and self.claim(f"no restart on {self._peer.home}"):
            launcher.forbid_restart()

    @property
    def _told_here(self) -> str:
        return f"told on {self._peer.home}"

    def _tell(self, failure: Failure) -> None:
        assert self._store is not None
        with contextlib.suppress(RuntimeError):  # the store's host is gone
            self._store.tell_failure(failure.as_json())

    def _end_at_once(self, failure: Failure) -> None:
        """Ends this process from the watchdog's thread, and those of its host that hang.

        Returns where the main thread is ending it.
        """
        if not self._last_word.acquire(blocking=False) and not self._of_watchdog.has_waited_for_leaving:
            return
        words = threading.Thread(target=self._say_last_words, args=(failure,), daemon=True)
        words.start()
        words.join(_LAST_WORDS_SECONDS)  # a disk that hangs may be the reason
        self._end_hanging_ranks(failure)
        os._exit(failure.exit_code)

    def _end_hanging_ranks(self, failure: Failure) -> None:
        """Ends those of this host: torchrun would take 30 s."""
        peers = self._of_watchdog.peers()
        beside = [peers[rank] for rank in failure.ranks if rank in peers and peers[rank].is_beside(self._peer)]
        deadline = time.monotonic() + _OWN_END_SECONDS
        while failure.hangs and any(peer.state() == "there" for peer in beside) and time.monotonic() < deadline:
            time.sleep(0.05)  # a rank that can shows its stacks first
        for peer in beside if failure.hangs else ():
            peer.kill()

    def _say_last_words(self, failure: Failure) -> None:
        assert self._watchdog_store is not None  # the main thread may hold the other one
        with contextlib.suppress(RuntimeError):
            self._watchdog_store.tell_failure(failure.as_json())
        self._end_hanging_ranks(failure)
        # Where others can, they speak: a rank that hangs shows its stacks, and those who watch may end it meanwhile.
        witnesses = set(self._place.ranks_beside) - set(failure.ranks)
        if (self.rank in witnesses or not witnesses) and _claim(self._watchdog_store, self._told_here):
            tell(failure.sentence)
        if self.rank not in failure.ranks or len(failure.ranks) == self.world_size:
            self._record(failure.exit_code, failure.sentence)


def _claim(store: JobStore, key: str) -> bool:
    try:
        return store.claim(key)
    except RuntimeError:  # the store's host is gone: better twice than never
        return True


def _asked_by_hand(asked: list[tuple[str, bool]]) -> bool:
    """Whether some ranks of a host were asked to stop and others were not.

    torchrun asks all of its workers. Where it did, it has its own reason, and knows whether to start them again.

    Args:
        asked: Host and whether it was asked, by rank.
    """
    hosts = {host for host, _ in asked}
    return any(len({was for host, was in asked if host == name}) > 1 for name in hosts)
