"""JobStore: what the ranks tell each other outside collectives, through torchrun's key-value store."""

from __future__ import annotations

import datetime
import json
import os
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import torch.distributed as dist

from configs.errors import ChorusError
from trainer.launcher import ProcessPlace

_POLL_SECONDS = 0.02
_FAILURE = "failure"


class JobStore:
    """Two spaces of keys: the job's, which outlives restarts of the workers, and this attempt's.

    Args:
        store: The connection; one thread uses it at a time.
        attempt: A name of this attempt that no other has.
    """

    def __init__(self, store: dist.Store, *, attempt: str) -> None:
        self._of_job = store
        self._attempt = attempt
        self.of_attempt = dist.PrefixStore(f"attempt/{attempt}", store)

    @staticmethod
    def open(place: ProcessPlace, *, timeout: datetime.timedelta) -> JobStore:
        """Connects. All ranks must call this.

        Raises:
            ChorusError: a rank did not come within the timeout; names it.
        """
        if place.world_size == 1:
            return JobStore(dist.HashStore(), attempt="only")
        store = dist.TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" and place.rank == 0,
            timeout=timeout,
            wait_for_workers=False,
        )
        meet = _await_ranks if place.rank == 0 else _report_to_main
        return JobStore(store, attempt=meet(store, place, timeout.total_seconds()))

    def connect_again(self, *, timeout: datetime.timedelta) -> JobStore:
        """The same store over a connection of its own, for another thread."""
        if isinstance(self._of_job, dist.HashStore):
            return self
        again = self._of_job.clone()  # type: ignore[attr-defined]
        again.set_timeout(timeout)
        return JobStore(again, attempt=self._attempt)

    def once(self, key: str, make: Callable[[], str]) -> str:
        """What `make()` gave the first time in this job; asked by one rank."""
        if not self._of_job.check([key]):
            self._of_job.set(key, make())
        return self._of_job.get(key).decode()

    def claim(self, key: str) -> bool:
        """Whether this is the first claim of the key in this attempt."""
        return bool(self.of_attempt.add(f"claim/{key}", 1) == 1)

    def tell_failure(self, failure: dict[str, Any]) -> bool:
        """Tells all ranks why the attempt ends; False where another reason was told before."""
        text = json.dumps(failure)
        return bool(self.of_attempt.compare_set(_FAILURE, "", text).decode() == text)

    def failure(self) -> dict[str, Any] | None:
        """The reason that was told."""
        if not self.of_attempt.check([_FAILURE]):
            return None
        told: dict[str, Any] = json.loads(self.of_attempt.get(_FAILURE))
        return told

    def set_status(self, rank: int, status: dict[str, Any]) -> None:
        """Says how a rank is."""
        self.of_attempt.set(f"status/{rank}", json.dumps(status))

    def statuses(self, ranks: Sequence[int]) -> dict[int, dict[str, Any]]:
        """How those of the ranks are that have said so."""
        keys = {rank: f"status/{rank}" for rank in ranks}
        if keys and not self.of_attempt.check(list(keys.values())):  # one question, mostly
            keys = {rank: key for rank, key in keys.items() if self.of_attempt.check([key])}
        texts = self.of_attempt.multi_get(list(keys.values())) if keys else []
        return {rank: json.loads(text) for rank, text in zip(keys, texts, strict=True)}


# torchrun keeps one store over all attempts, and gloo fails on the addresses that the attempt before left in it.
# TORCHELASTIC_RESTART_COUNT does not tell attempts apart: each host counts for itself, and restarts where hosts come or
# go are not counted. So rank 0 names the attempt, and answers each rank under a key that this process alone knows.


def _await_ranks(store: dist.Store, place: ProcessPlace, seconds: float) -> str:
    attempt = uuid.uuid4().hex
    waiting = list(range(1, place.world_size))
    deadline = time.monotonic() + seconds
    while waiting:
        for rank in waiting:
            if store.check([f"hello/{rank}"]):
                store.set(f"answer/{store.get(f'hello/{rank}').decode()}", attempt)
        waiting = [rank for rank in waiting if not store.check([f"here/{attempt}/{rank}"])]
        if waiting and time.monotonic() > deadline:
            missing = ", ".join(map(str, waiting[:8])) + (", ..." if len(waiting) > 8 else "")
            raise ChorusError(f"rank(s) {missing} did not come within {seconds:g} s (run.timeout_seconds)")
        time.sleep(_POLL_SECONDS if waiting else 0)
    return attempt


def _report_to_main(store: dist.Store, place: ProcessPlace, seconds: float) -> str:
    me = uuid.uuid4().hex
    store.set(f"hello/{place.rank}", me)
    try:
        attempt = store.get(f"answer/{me}").decode()
    except dist.DistStoreError as error:
        raise ChorusError(f"rank 0 did not come within {seconds:g} s (run.timeout_seconds)") from error
    store.set(f"here/{attempt}/{place.rank}", "")
    return attempt
