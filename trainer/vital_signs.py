"""Vital signs: what each rank says of itself, and who is to blame when a job stands still."""

from __future__ import annotations

import dataclasses
import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import EXIT_FAILURE
from trainer.peers import Peer

_ROOT = str(Path(__file__).resolve().parents[1]) + "/"
# Where Python stands while it waits for other ranks; the last is ours, around a wait that is timed.
_TIMED_WAIT = "sharding/collective_waits.py"
_COLLECTIVES = ("/torch/distributed/", "/torchrec/distributed/", f"/{_TIMED_WAIT}")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why an attempt ends."""

    ranks: tuple[int, ...]  # who failed
    sentence: str
    exit_code: int = EXIT_FAILURE
    hangs: bool = False  # then the ranks will not end by themselves

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Failure:
        """From plain values."""
        return Failure(**{**body, "ranks": tuple(body["ranks"])})


@dataclass(frozen=True, kw_only=True)
class Status:
    """What a rank says of itself."""

    peer: Peer
    num_beats: int
    doing: str
    where: str  # the line of ours that its main thread is in; empty: none
    waits: bool  # for other ranks, as far as its Python stack tells; work on a GPU does not show there
    at_rest_seconds: float  # since its main thread moved
    limit_seconds: float  # what it may rest; 0: no limit
    limit_key: str
    tick: int  # grows with every status

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Status:
        """From plain values."""
        return Status(**{**body, "peer": Peer(**body["peer"])})

    @property
    def is_late(self) -> bool:
        """Whether it has rested for longer than it may."""
        return 0 < self.limit_seconds < self.at_rest_seconds

    @property
    def place(self) -> str:
        """Where it stands, in words."""
        return f"at {self.doing}" + (f", in {self.where}" if self.where else "")


@dataclass(frozen=True, kw_only=True)
class Heard:
    """Another rank's last status."""

    status: Status
    silent_seconds: float  # that it has been the last for
    is_silent: bool  # for longer than a loaded machine explains


def main_thread_place() -> tuple[str, bool]:
    """The line of ours that the main thread is in, and whether it waits for other ranks."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    waits = frame is not None and any(part in frame.f_code.co_filename for part in _COLLECTIVES)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(_ROOT) and "/site-packages/" not in path and path != _ROOT + _TIMED_WAIT:
            return f"{path.removeprefix(_ROOT)}:{frame.f_lineno} ({frame.f_code.co_name})", waits
        frame = frame.f_back
    return "", waits


def find_gone(mine: Status, heard: Iterable[Heard]) -> Failure | None:
    """The first rank beside this process that is no more."""
    for other in heard:
        peer = other.status.peer
        if peer.is_beside(mine.peer) and peer.state() == "gone":
            sentence = f"{peer} ended without a word; {_last_seen(other.status, mine)}"
            return Failure(ranks=(peer.rank,), sentence=sentence)
    return None


def find_silent(mine: Status, heard: Iterable[Heard]) -> Failure | None:
    """The ranks whose whole process does not run: stopped, or its host is gone."""
    told = {}
    for other in heard:
        peer, seen = other.status.peer, _last_seen(other.status, mine)
        if peer.is_beside(mine.peer) and peer.state() == "stopped":
            told[peer.rank] = f"{peer} is stopped by a signal; {seen}"
        elif other.is_silent:
            told[peer.rank] = f"{peer} has not answered for {other.silent_seconds:.0f} s; {seen}"
    return Failure(ranks=tuple(told), sentence="; ".join(told.values()), hangs=True) if told else None


def find_stalled(mine: Status, heard: Iterable[Heard]) -> Failure:
    """Who holds the job up, once this rank is late.

    Ranks that do not run at all come first. Otherwise, of those that do not wait for others, the one that has come
    least far: all ranks go the same way and meet at every step.
    """
    heard = list(heard)
    silent = find_silent(mine, heard)
    if silent is not None:
        return silent
    everyone = [mine, *(other.status for other in heard)]
    busy = [status for status in everyone if not status.waits]
    least = min(status.num_beats for status in busy or everyone)
    behind = sorted((status for status in busy or everyone if status.num_beats == least), key=lambda s: s.peer.rank)
    first, *more = behind
    ranks = tuple(status.peer.rank for status in behind)
    spent = f"{mine.at_rest_seconds:.0f} s ({mine.limit_key} = {mine.limit_seconds:g}) {first.place}"
    if not busy and len(everyone) > 1:
        told = f"{first.peer} and all others have waited for each other for {spent}"
        return Failure(ranks=ranks, sentence=told, hangs=True)
    others = f"; nor have ranks {', '.join(str(status.peer.rank) for status in more)}" if more else ""
    return Failure(ranks=ranks, sentence=f"{first.peer} has not moved for {spent}{others}", hangs=True)


def _last_seen(status: Status, mine: Status) -> str:
    seen = f"it was last seen {status.place}"
    return seen if status.doing == mine.doing else f"{seen}, and rank {mine.peer.rank} is at {mine.doing}"
