"""Soak: training jobs killed at random, one after the other, each compared with a run that nobody killed."""

from __future__ import annotations

import shlex
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from configs.command import TRAIN, parse_command
from configs.errors import ChorusError, ConfigError
from configs.schema import RunConfig
from trainer import storage
from trainer.analysis.reliability import verdict
from trainer.analysis.reliability.job_output import JobOutput
from trainer.analysis.reliability.kills import SHARES, Kill, KillKind, Life, draw_kill, draw_kills_of_job
from trainer.analysis.reliability.processes import TRAINER, end_all, processes_of, torchrun
from trainer.analysis.reliability.soak_job import JobEnd, JobPlan, SoakJob
from trainer.analysis.reliability.soak_log import SoakCounts, SoakLog
from trainer.clock import clock
from trainer.command_line import training_config

REFERENCE_NAME = "reference"
_SETTINGS_NAME = "settings.json"
_LIFE_NAME = "life.json"
_MAX_RESTARTS = 1000
_MOST_FAILURES = 5
_LEAST_LIMIT_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class SoakSettings:
    """What a soak does."""

    folder: str
    kills: int
    ranks: int
    seed: int
    words: tuple[str, ...]  # of the trainer: --config and overrides
    kinds: tuple[KillKind, ...] = tuple(SHARES)
    limit_seconds: float = 0.0  # a job without progress for so long hangs; 0: from the reference's time


class Soak:
    """Jobs until the number of kills is reached. Started again in the same folder it goes on counting.

    Args:
        settings: What to do.
        say: Told of what happens.

    Raises:
        ConfigError: the folder holds a soak of other settings, or the run is one that cannot be soaked.
    """

    def __init__(self, settings: SoakSettings, *, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._say = say
        self._config = _checked_config(settings)
        storage.make_folder(settings.folder)
        self._keep_settings()
        self.log = SoakLog(settings.folder)
        self._began = time.monotonic()
        self._kills_before = self.log.counts().kills

    def run(self) -> SoakCounts:
        """Runs it to its end.

        Raises:
            ChorusError: the uninterrupted run fails.
        """
        life = self._reference()
        while (counts := self.log.counts()).kills < self._settings.kills or counts.in_flight:
            if len(counts.failures) >= _MOST_FAILURES:
                self._say(f"{_MOST_FAILURES} jobs have failed: stopped")
                break
            self._job(life)
            self._say(self._progress())
        return self.log.counts()

    def _reference(self) -> Life:
        """The uninterrupted run, made once; gives how long things take in it."""
        kept = self._path(_LIFE_NAME)
        if storage.is_file(kept):
            return Life(**storage.read_json(kept))
        self._remove(REFERENCE_NAME)  # an earlier start did not get to its end
        self._say(f"the uninterrupted run: {shlex.join(self._command(REFERENCE_NAME))}")
        output = self._output(REFERENCE_NAME)
        job = SoakJob(
            self._plan(0, REFERENCE_NAME, limit_seconds=self._settings.limit_seconds or 600.0, attempts_before=0),
            output=output,
            log=self.log,
            draw=lambda _attempt, _step: None,
            say=self._say,
        )
        end = job.run()
        problems = end.problems or verdict.problems_of(self._path(REFERENCE_NAME), reference=self._path(REFERENCE_NAME))
        if problems:
            lines = "\n".join(output.tail(40))
            raise ChorusError(f"the uninterrupted run failed: {'; '.join(problems)}; it printed at last:\n{lines}")
        life = Life(
            start_seconds=job.first_step_at - job.ranks_at,
            steps_seconds=job.last_step_at - job.first_step_at,
            end_seconds=job.ended_at - job.last_step_at,
            num_steps=output.highest_step,
            write_seconds=statistics.median(output.write_seconds),
        )
        self._say(
            f"it took {life.seconds:.0f} s: {life.start_seconds:.0f} s until the first step was over,"
            f" {life.steps_seconds:.0f} s for {life.num_steps} steps, {life.end_seconds:.1f} s to end; a checkpoint"
            f" takes {life.write_seconds:.2f} s, and there were {len(output.write_seconds)}"
        )
        storage.write_json(kept, vars(life))
        return life

    def _job(self, life: Life) -> None:
        number = len(self.log.of("job")) + 1
        name = f"job_{number:04d}"
        before = max((line["attempt"] for line in self.log.of("kill") if line["job"] == number), default=0)
        kills_before = sum(line["job"] == number for line in self.log.of("kill"))
        limit = self._settings.limit_seconds or max(_LEAST_LIMIT_SECONDS, 8 * life.seconds)
        self.log.add("start", job=number, command=shlex.join(self._command(name)), attempts_before=before)

        def draw(attempt: int, step: int) -> Kill | None:
            delivered = sum(line["job"] == number for line in self.log.of("kill"))
            enough = len(self.log.of("kill")) >= self._settings.kills
            if enough or delivered >= draw_kills_of_job(seed=f"{self._settings.seed}/{number}"):
                return None
            return draw_kill(
                life,
                first_step=step,
                world_size=self._settings.ranks,
                seed=f"{self._settings.seed}/{number}/{attempt}",
                kinds={kind: SHARES[kind] for kind in self._settings.kinds},
            )

        job = SoakJob(
            self._plan(number, name, limit_seconds=limit, attempts_before=before),
            output=self._output(name),
            log=self.log,
            draw=draw,
            say=self._say,
        )
        end = job.run()
        if not end.problems:
            end.problems += verdict.problems_of(self._path(name), reference=self._path(REFERENCE_NAME))
        self._note(number, name, end, kills=kills_before + end.kills)

    def _note(self, number: int, name: str, end: JobEnd, *, kills: int) -> None:
        self.log.add(
            "job",
            job=number,
            problems=end.problems,
            attempts=end.attempts,
            kills=kills,
            seconds=end.seconds,
            folder=self._path(name),
            unfinished_left=verdict.checkpoints(self._path(name), whole=False),
            **({"tail": end.tail, "seed": self._settings.seed} if end.problems else {}),
        )
        if end.problems:
            self._say(
                f"job {number} FAILED: {'; '.join(end.problems)}; kept: {self._path(name)}, {self._path(name)}.txt"
            )
            return
        self._remove(name)

    def _remove(self, name: str) -> None:
        for folder in (self._path(name), f"{self._path(name)}.stacks"):
            if storage.exists(folder):
                storage.remove_tree(folder)
        if storage.is_file(self._path(f"{name}.txt")):
            storage.remove_file(self._path(f"{name}.txt"))

    def _progress(self) -> str:
        counts, seconds = self.log.counts(), time.monotonic() - self._began
        here = counts.kills - self._kills_before
        left = (self._settings.kills - counts.kills) * seconds / here if here else 0.0
        return (
            f"{counts.kills}/{self._settings.kills} kills in {counts.jobs} jobs, {counts.identical} bit-identical,"
            f" {len(counts.failures)} failures; {clock(seconds)}, ETA {clock(left) if here else 'unknown'}"
        )

    def _path(self, name: str) -> str:
        return storage.join(self._settings.folder, name)

    def _command(self, name: str) -> list[str]:
        words = (*self._settings.words, f"--run.folder={self._path(name)}")
        return torchrun(TRAINER, *words, ranks=self._settings.ranks, max_restarts=_MAX_RESTARTS)

    def _output(self, name: str) -> JobOutput:
        train = self._config.train
        has_rows = not self._config.data.root or bool(self._config.data.valid)
        return JobOutput(
            f"{self._path(name)}.txt",
            evaluates=lambda step: has_rows and train.evaluate_every.due(step, steps_per_epoch=1),
        )

    def _plan(self, number: int, name: str, *, limit_seconds: float, attempts_before: int) -> JobPlan:
        mark = self._path(name)
        if left := processes_of(mark):
            self._say(f"ending {len(left)} processes in {mark} that a start before this one could not end")
            end_all(mark)
        return JobPlan(
            number=number,
            command=self._command(name),
            folder=self._path(name),
            output=f"{self._path(name)}.txt",
            mark=mark,
            world_size=self._settings.ranks,
            limit_seconds=limit_seconds,
            attempts_before=attempts_before,
        )

    def _keep_settings(self) -> None:
        """What the jobs have in common must stay, or kills could not be added up; their number may grow."""
        ours: Mapping[str, Any] = {
            "ranks": self._settings.ranks,
            "seed": self._settings.seed,
            "words": list(self._settings.words),
            "kinds": list(self._settings.kinds),
        }
        path = self._path(_SETTINGS_NAME)
        if not storage.is_file(path):
            storage.write_json(path, dict(ours))
        kept = storage.read_json(path)
        different = [key for key in ours if kept[key] != ours[key]]
        if different:
            key = different[0]
            raise ConfigError(
                f"--folder: {self._settings.folder!r} holds a soak with {key} {kept[key]!r}, and this one has"
                f" {ours[key]!r}; give the same, or another folder"
            )


def _checked_config(settings: SoakSettings) -> RunConfig:
    config = training_config(parse_command(settings.words, program=TRAIN))
    if config.train.log_every.steps != 1:
        raise ConfigError("train.log_every: a soak follows its jobs step by step; leave it at {steps = 1}")
    if not config.checkpoint.every.steps:
        raise ConfigError("checkpoint.every: without a number of steps there is nothing to go on from; give it steps")
    return config


def soak_words(config: str, overrides: Sequence[str]) -> tuple[str, ...]:
    """What the trainer is told: a short run with many checkpoints, and what the user wants otherwise."""
    short = (
        "--train.batch_size=128",
        "--train.until={steps = 400}",
        "--train.log_every={steps = 1}",
        "--train.evaluate_every={steps = 80}",
        "--checkpoint.every={steps = 10}",
        "--data.synthetic={train_rows = 20_000, valid_rows = 4_096, max_table_rows = 20_000}",
        "--run.hang_seconds=6",
        "--run.timeout_seconds=60",
        "--run.device=cpu",
    )
    given = {word.partition("=")[0] for word in overrides}
    return (f"--config={config}", *(word for word in short if word.partition("=")[0] not in given), *overrides)
