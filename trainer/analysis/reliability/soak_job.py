"""SoakJob: one training job, started, killed, started again, until it ends by itself."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainer.analysis.reliability import verdict
from trainer.analysis.reliability.job_output import JobOutput
from trainer.analysis.reliability.kills import Kill
from trainer.analysis.reliability.processes import (
    end_all,
    launch,
    processes_of,
    ranks_of,
    show_stacks,
    wait_until_gone,
)
from trainer.analysis.reliability.rank_stacks import RankStacks
from trainer.analysis.reliability.soak_log import SoakLog

_LOOK_SECONDS = 0.2
_POLL_SECONDS, _AIM_SECONDS = 0.02, 0.004
_GONE_SECONDS = 90.0  # torchrun waits 30 s for a stopped rank, workers without torchrun write a checkpoint
_TAIL_LINES = 60


@dataclass(frozen=True, kw_only=True)
class JobPlan:
    """What a job is."""

    number: int
    command: Sequence[str]
    folder: str  # of the run
    output: str  # file
    mark: str
    world_size: int
    limit_seconds: float  # without a new highest step, a kill or an end
    attempts_before: int  # of earlier starts of this command


@dataclass(kw_only=True)
class JobEnd:
    """How a job ended."""

    seconds: float = 0.0
    attempts: int = 0
    kills: int = 0
    problems: list[str] = field(default_factory=list)
    tail: list[str] = field(default_factory=list)


class SoakJob:
    """Runs one job to its end.

    Args:
        plan: What it is.
        output: Follows its output file.
        log: Takes the events.
        draw: Attempt number and the step that was reached -> its kill; None: none.
        say: Told of every kill.
    """

    def __init__(
        self,
        plan: JobPlan,
        *,
        output: JobOutput,
        log: SoakLog,
        draw: Callable[[int, int], Kill | None],
        say: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._output = output
        self._log = log
        self._draw = draw
        self._say = say
        self._stacks = RankStacks(f"{plan.folder}.stacks")
        self._end = JobEnd(attempts=plan.attempts_before)
        self._waiting_kill: dict[str, Any] | None = None  # delivered, and no step since then
        self._killed_at = 0.0
        self._ended_torchrun = False
        self._kill: Kill | None = None  # to be delivered
        self._highest = self._step = 0
        self._moved_at = self._step_at = self._writing_since = 0.0
        self.ranks_at = 0.0  # when those of the last attempt were started
        self._ranks_time = 0.0  # the same, by the clock of the file system
        self.first_step_at = self.last_step_at = self.ended_at = 0.0

    def run(self) -> JobEnd:
        """Returns once it has ended, by itself or because it hung; nothing of it is left running."""
        began = time.monotonic()
        try:
            while True:
                code = self._launch_once()
                if code is None:
                    break
                if self._ended_torchrun:
                    if self._left(_GONE_SECONDS, "torchrun was killed"):
                        break
                    continue
                if code:
                    self._fail(f"torchrun ended with code {code}, and nobody had killed it")
                else:
                    self._left(2.0, "the job was done")
                break
        finally:
            end_all(self._plan.mark)
        self.ended_at = time.monotonic()
        self._end.seconds = round(self.ended_at - began, 1)
        return self._end

    def _launch_once(self) -> int | None:
        """Starts torchrun and looks after it until it ends; gives its code, None where the job hung."""
        self._output.read()  # what was printed so far belongs to the attempt before
        self._output.begin_launch()
        self._ended_torchrun = False
        agent = launch(
            self._plan.command, mark=self._plan.mark, output=self._plan.output, variables=self._stacks.environment()
        )
        self._begin_attempt()
        pids: set[int] = set()
        looked_at = 0.0
        while agent.poll() is None:
            now = time.monotonic()
            if now - looked_at >= _LOOK_SECONDS:
                looked_at = now
                ranks = {process.pid for process in ranks_of(self._plan.mark)}
                if len(ranks) == self._plan.world_size and not ranks & pids:
                    self._output.read()
                    if pids:  # torchrun has started them again
                        self._begin_attempt()
                    pids, self.ranks_at, self._ranks_time = ranks, now, time.time()
                    self._output.begin_attempt()
            self._follow(now)
            if now - max(self._moved_at, self._killed_at) > self._plan.limit_seconds:
                self._hangs()
                return None
            due = self._kill if self._is_time(now, ranks_there=bool(pids)) else None
            if due is not None and self._deliver(due, agent.pid):
                self._kill = None
            time.sleep(_AIM_SECONDS if self._kill is not None and self._kill.is_aimed else _POLL_SECONDS)
        self._follow(time.monotonic())
        return agent.returncode

    def _begin_attempt(self) -> None:
        self._end.attempts += 1
        self._kill = self._draw(self._end.attempts, self._output.highest_step)
        self.ranks_at = self._moved_at = time.monotonic()

    def _follow(self, now: float) -> None:
        """Takes in what the job printed."""
        self._output.read()
        self._step_at = now if self._output.step != self._step else self._step_at
        self._step = self._output.step
        if self._output.highest_step > self._highest:
            self._highest, self._moved_at, self.last_step_at = self._output.highest_step, now, now
            self.first_step_at = self.first_step_at or now
        waiting, done = self._waiting_kill, self._output.phase == "end"
        if waiting and waiting["attempt"] != self._end.attempts and (self._output.stepped_in_attempt or done):
            # A job that was killed behind its last step takes none.
            self._recovered(round(now - self._killed_at, 2) if self._output.stepped_in_attempt else None)

    def _recovered(self, seconds: float | None) -> None:
        assert self._waiting_kill is not None
        self._log.add("recovered", kill=self._waiting_kill["kill"], seconds=seconds)
        self._waiting_kill = None

    def _is_time(self, now: float, *, ranks_there: bool) -> bool:
        output, kill = self._output, self._kill
        if kill is None:
            return False
        if kill.step == 0:
            is_due = output.stepped_in_attempt or now - self.ranks_at >= kill.seconds
        else:
            past = output.step > kill.step or now - self._step_at >= kill.seconds
            is_due = output.stepped_in_attempt and output.step >= kill.step and past
        if not is_due:
            return False
        if kill.kind == "writing":
            self._writing_since = (self._writing_since or now) if self._is_writing() else 0.0
            return self._writing_since > 0.0 and now - self._writing_since >= kill.lag_seconds
        if kill.kind == "evaluation":
            return output.phase == "evaluation"
        if kill.kind == "stop":  # a rank on its way out is looked after by nobody
            return ranks_there and output.phase != "end"
        return kill.kind == "agent" or ranks_there

    def _is_writing(self) -> bool:
        """Whether a checkpoint is being written; what the attempts before left unfinished is older than this one."""
        for name in verdict.checkpoints(self._plan.folder, whole=False):
            with contextlib.suppress(OSError):  # finished or removed meanwhile
                if os.stat(verdict.checkpoint_path(self._plan.folder, name)).st_ctime > self._ranks_time:
                    return True
        return False

    def _deliver(self, kill: Kill, agent_pid: int) -> bool:
        """Gives whether the moment it was meant for was still there, or the victim gone."""
        if kill.kind == "evaluation":
            time.sleep(kill.lag_seconds)
        self._output.read()
        processes = processes_of(self._plan.mark)
        if kill.kind == "agent":
            victims = [process for process in processes if process.pid == agent_pid]
        elif kill.kind == "host":
            victims = [*(p for p in processes if p.pid == agent_pid), *(p for p in processes if p.pid != agent_pid)]
        else:
            victims = [process for process in processes if process.rank == kill.rank]
        asked = next((process for process in (*victims, *processes) if process.rank is not None), None)
        place = self._stacks.ask(asked) if asked is not None else None
        writing = self._is_writing()
        if kill.kind == "writing" and not writing:
            return False
        hit = [process for process in victims if process.signal(kill.signal)]
        if not hit:  # it has just ended
            return True
        self._killed_at = time.monotonic()
        self._ended_torchrun = kill.ends_torchrun
        self._end.kills += 1
        if self._waiting_kill is not None:
            self._recovered(None)
        phase = place.phase if place else self._output.phase
        number = 1 + max((line["kill"] for line in self._log.of("kill")), default=0)
        self._waiting_kill = self._log.add(
            "kill",
            kill=number,
            job=self._plan.number,
            attempt=self._end.attempts,
            kind=kill.kind,
            rank=None if kill.ends_torchrun else kill.rank,
            pids=[process.pid for process in hit],
            seconds_into_attempt=round(self._killed_at - self.ranks_at, 3),
            phase=phase,
            line=place.line if place else "",
            step=self._output.step,
            writing=writing,
        )
        self._say(f"kill {number}: {kill.kind} in {phase}, step {self._output.step}")
        return True

    def _left(self, seconds: float, when: str) -> bool:
        left = wait_until_gone(self._plan.mark, seconds=seconds)
        if left:
            pids = ", ".join(f"{process.pid} (rank {process.rank})" for process in left)
            self._fail(f"processes {pids} were still there {seconds:.0f} s after {when}")
            show_stacks(self._plan.mark)
            self._end.tail = self._output.tail(_TAIL_LINES)
        return bool(left)

    def _hangs(self) -> None:
        show_stacks(self._plan.mark)
        self._fail(
            f"hung: no new step and no end for {self._plan.limit_seconds:.0f} s, at step {self._output.step};"
            f" the stacks of all ranks are at the end of {self._plan.output}"
        )

    def _fail(self, problem: str) -> None:
        self._end.problems.append(problem)
        self._end.tail = self._output.tail(_TAIL_LINES)
