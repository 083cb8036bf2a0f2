"""Runtime: this process among the others: rank, device, process groups, votes; a context manager."""

from __future__ import annotations

import ctypes
import datetime
import math
import os
import signal
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from configs.errors import EXIT_INTERRUPTED, ConfigError
from configs.schema import Run
from trainer import library_warnings
from trainer.failures import failure_sentence, lost_a_peer

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_MEANT_AGAIN_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class ProcessPlace:
    """Where torchrun put this process; a plain `python` start is rank 0 of 1."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    attempt: int

    @staticmethod
    def from_environment() -> ProcessPlace:
        """Reads torchrun's variables."""
        env = os.environ
        return ProcessPlace(
            rank=int(env.get("RANK", "0")),
            world_size=int(env.get("WORLD_SIZE", "1")),
            local_rank=int(env.get("LOCAL_RANK", "0")),
            local_world_size=int(env.get("LOCAL_WORLD_SIZE", "1")),
            attempt=int(env.get("TORCHELASTIC_RESTART_COUNT", "0")),
        )


def _end_with_torchrun() -> None:
    """Asks Linux to send SIGTERM when torchrun is gone; it does not end its workers when it is killed."""
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Runtime:
    """This process in the job. Use it as a context manager: it opens and closes the process groups.

    Collectives (`sum`, `from_main`, `gather`, `together`) are called by all ranks or by none.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._place = ProcessPlace.from_environment()
        self.rank = self._place.rank
        self.world_size = self._place.world_size
        self.local_world_size = self._place.local_world_size
        self.device = self._choose_device()
        self._store: dist.Store | None = None
        self._job_store: dist.Store | None = None  # outlives restarts of the workers
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
        library_warnings.silence()
        _end_with_torchrun()
        torch.set_num_threads(self._run.threads_per_rank)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        timeout = datetime.timedelta(seconds=self._run.timeout_seconds)
        self._store = self._open_store(timeout)
        dist.init_process_group(
            backend="cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo",
            store=self._store,
            rank=self.rank,
            world_size=self.world_size,
            timeout=timeout,
        )
        return self

    def _open_store(self, timeout: datetime.timedelta) -> dist.Store:
        if self.world_size == 1:
            self._job_store = dist.HashStore()
            return self._job_store
        # The agent's store outlives a restart of its workers; without a prefix per attempt a new
        # rank 0 finds the dead one's address in it and gloo fails to connect.
        store = dist.TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" and self.is_main,
            timeout=timeout,
        )
        self._job_store = store
        return dist.PrefixStore(f"attempt_{self._place.attempt}", store)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if error is not None:
            # A rank that fails must not wait for the others: its exit is what tells them.
            error.first_report = self._tells(error)  # type: ignore[attr-defined]
            error.wants_traceback = self._run.errors == "traceback"  # type: ignore[attr-defined]
            if self.world_size > 1:
                return
        else:
            dist.barrier()
        dist.destroy_process_group()

    def listen_for_stop(self) -> None:
        """From now on SIGTERM and Ctrl-C ask for a stop with a checkpoint; Ctrl-C again ends the process."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: types.FrameType | None) -> None:
        # Ctrl-C reaches a worker twice, from the terminal and from torchrun, and so may torchrun's death.
        # A person who presses it again later means it.
        if number == signal.SIGINT and time.monotonic() > self._stop_asked_at + _MEANT_AGAIN_SECONDS:
            sys.exit(EXIT_INTERRUPTED)
        self._stop_asked_at = min(self._stop_asked_at, time.monotonic())

    @property
    def stop_requested(self) -> bool:
        """Whether this process was asked to end (SIGTERM or Ctrl-C); agree on it before acting."""
        return self._stop_asked_at < math.inf

    def say(self, text: str) -> None:
        """Prints a line, on rank 0 alone."""
        if self.is_main:
            print(text, flush=True)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over ranks of a CPU tensor, in place."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def from_main(self, make: Callable[[], Any]) -> Any:
        """What rank 0's `make()` returns, on every rank; an exception there is raised on every rank."""
        box: list[Any] = [None, None]
        if self.is_main:
            try:
                box[0] = make()
            except Exception as error:
                box[1] = error
        if self.world_size > 1:
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        if box[1] is not None:
            raise box[1]
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank, on every rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def together(self, do: Callable[[], Any]) -> Any:
        """Runs `do()` on every rank; where any rank's raises, every rank raises the first one's error."""
        result, problem = None, None
        try:
            result = do()
        except Exception as error:
            problem = error
        for found in self.gather(problem):
            if found is not None:
                raise found
        return result

    def once_per_job(self, key: str, make: Callable[[], str]) -> str:
        """What rank 0's `make()` gave the first time, on every rank, also after a restart of the workers."""

        def recall() -> str:
            assert self._job_store is not None, "the runtime is not open"
            if not self._job_store.check([key]):
                self._job_store.set(key, make())
            return self._job_store.get(key).decode()

        return str(self.from_main(recall))

    def _tells(self, error: BaseException) -> bool:
        """Whether this rank says what failed: each failure is told once, a lost rank only where nobody told why."""
        if lost_a_peer(error):
            return not self._is_claimed("failure") and self.claim("lost a peer")
        self.claim("failure")
        return self.claim(failure_sentence(error))

    def _is_claimed(self, key: str) -> bool:
        try:
            return self._store is not None and self._store.check([f"claim:{key}"])
        except RuntimeError:
            return False

    def claim(self, key: str) -> bool:
        """Whether this rank is the first of the job to claim the key, so that a failure is told once."""
        if self._store is None:
            return self._place.local_rank == 0
        try:
            return bool(self._store.add(f"claim:{key}", 1) == 1)
        except RuntimeError:  # the store's host is gone: better twice than never
            return True
