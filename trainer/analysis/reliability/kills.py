"""Kills: what is done to a job, when, and to whom; drawn from a seed."""

from __future__ import annotations

import random
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

KillKind: TypeAlias = Literal["rank", "writing", "evaluation", "agent", "host", "stop"]

MEANINGS: Mapping[KillKind, str] = {
    "rank": "kill -9 of a rank, at any moment of its life",
    "writing": "kill -9 of a rank while a checkpoint is being written",
    "evaluation": "kill -9 of a rank while it evaluates",
    "agent": "kill -9 of torchrun; the same command is started again",
    "host": "kill -9 of torchrun and all ranks at once; the same command is started again",
    "stop": "SIGSTOP of a rank, which hangs from then on",
}
SHARES: Mapping[KillKind, int] = {"rank": 45, "writing": 25, "evaluation": 5, "agent": 10, "host": 10, "stop": 5}
_AIMED = ("writing", "evaluation")
_MOST_KILLS_OF_A_JOB = 6


@dataclass(frozen=True, kw_only=True)
class Life:
    """How long the parts of a run take that nobody kills."""

    start_seconds: float  # from the start of its ranks until the first step is over
    steps_seconds: float
    end_seconds: float  # from the last step's line to the end
    num_steps: int
    write_seconds: float  # of one checkpoint

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.start_seconds + self.steps_seconds + self.end_seconds


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One kill, to be delivered to one attempt of a job.

    Its moment is so many seconds after the ranks' start, or after the line of a step; an aimed one waits from there on
    for the moment it is meant for.
    """

    kind: KillKind
    step: int  # 0: counted from the start of the ranks
    seconds: float
    rank: int  # of the victim, where the kind has one
    lag_seconds: float  # after the moment that an aimed one is meant for

    @property
    def is_aimed(self) -> bool:
        """Whether it waits for a moment."""
        return self.kind in _AIMED

    @property
    def ends_torchrun(self) -> bool:
        """Whether torchrun is among the victims, so that nothing starts the ranks again by itself."""
        return self.kind in ("agent", "host")

    @property
    def signal(self) -> int:
        """What is sent."""
        return signal.SIGSTOP if self.kind == "stop" else signal.SIGKILL


def draw_kills_of_job(*, seed: str) -> int:
    """How many kills a job gets before it may end."""
    return random.Random(seed).randint(1, _MOST_KILLS_OF_A_JOB)


def draw_kill(
    life: Life, *, first_step: int, world_size: int, seed: str, kinds: Mapping[KillKind, int] = SHARES
) -> Kill:
    """The kill of one attempt; the same for the same seed.

    Its moment is uniform over what is left of the run's life: all of its start, the steps behind `first_step`, its
    end. The start and the end are told in seconds, the steps by their number, which does not depend on the machine's
    load.

    Args:
        life: Of an undisturbed run.
        first_step: The step that the job has come to.
        world_size: Number of ranks.
        seed: Names the attempt.
        kinds: Kind -> its share.
    """
    chance = random.Random(seed)
    kind = chance.choices(list(kinds), weights=list(kinds.values()))[0]
    num_steps = max(0, life.num_steps - first_step)
    step_seconds = life.steps_seconds / life.num_steps
    starts, ends = (0.0, 0.0) if kind in _AIMED else (life.start_seconds, life.end_seconds)
    moment = chance.uniform(0.0, starts + num_steps * step_seconds + ends)
    if moment < starts:
        step, seconds = 0, moment
    elif moment < starts + num_steps * step_seconds:
        done, rest = divmod(moment - starts, step_seconds)
        step, seconds = first_step + int(done), rest
    else:
        step, seconds = life.num_steps, moment - starts - num_steps * step_seconds
    return Kill(
        kind=kind,
        step=step,
        seconds=seconds,
        rank=chance.randrange(world_size),
        # The folder is not there from the beginning, and half of that time leaves room for a faster write.
        lag_seconds=chance.uniform(0.0, life.write_seconds / 2 if kind == "writing" else step_seconds),
    )
