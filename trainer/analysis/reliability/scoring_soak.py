"""ScoringSoak: one scoring job, killed at random moments until its kills are used up, beside one that nobody kills.

Both score the same rows of the synthetic stream with the same checkpoint. The killed one must end in the same bytes,
file by file, and its folder must pass tools/verify_predictions.py.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from configs.errors import ChorusError
from trainer import storage
from trainer.analysis.reliability.processes import (
    ROOT,
    TRAINER,
    end_all,
    launch,
    processes_of,
    ranks_of,
    torchrun,
    wait_until_gone,
)
from trainer.assembly import CHECKPOINTS_NAME
from trainer.clock import clock
from trainer.predictions.manifest import PredictionManifest

SCORER = str(ROOT / "trainer" / "score.py")
_VERIFIER = str(ROOT / "tools" / "verify_predictions.py")
_POLL_SECONDS = 0.05
_GONE_SECONDS = 60.0
_TRAINED_STEPS = 64

Victim = Literal["rank", "agent", "host"]
VICTIMS: tuple[Victim, ...] = ("rank", "agent", "host")


@dataclass(frozen=True, kw_only=True)
class ScoringSoakSettings:
    """What is scored and how often it is killed."""

    folder: str
    num_rows: int
    kills: int
    ranks: int
    seed: int
    words: tuple[str, ...]  # more keys for trainer/score.py


@dataclass(frozen=True, kw_only=True)
class DeliveredKill:
    """One kill -9."""

    victim: Victim
    seconds: float  # after that attempt's start
    ranges_done: int


@dataclass(frozen=True, kw_only=True)
class ScoringSoakResult:
    """What the soak came to."""

    num_rows: int
    num_ranges: int
    ranks: int
    kills: tuple[DeliveredKill, ...]
    undisturbed_seconds: float
    killed_seconds: float  # of all attempts together
    different_files: tuple[str, ...]
    verifier_code: int
    verifier_output: str

    @property
    def passed(self) -> bool:
        """Whether the killed job left the very files of the undisturbed one, and they are verified."""
        return not self.different_files and self.verifier_code == 0

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "passed": self.passed}

    def lines(self) -> list[str]:
        """For a person."""
        victims = ", ".join(f"{sum(kill.victim == who for kill in self.kills)} of a {who}" for who in VICTIMS)
        same = (
            "all files are those of the undisturbed job, byte for byte"
            if not self.different_files
            else f"{len(self.different_files)} files differ, the first is {self.different_files[0]}"
        )
        return [
            f"{self.num_rows:,} rows in {self.num_ranges:,} ranges, {self.ranks} ranks, {len(self.kills)} kill -9"
            f" ({victims.replace('a agent', 'torchrun').replace('a host', 'everything')})",
            f"undisturbed {clock(self.undisturbed_seconds)}, killed and started again {clock(self.killed_seconds)}",
            same,
            f"tools/verify_predictions.py: exit code {self.verifier_code}; {self.verifier_output.splitlines()[-1]}"
            if self.verifier_output.strip()
            else f"tools/verify_predictions.py: exit code {self.verifier_code}",
        ]


class ScoringSoak:
    """Scores undisturbed, scores under kills, compares.

    Args:
        settings: What and how often.
        say: Prints a line.
    """

    def __init__(self, settings: ScoringSoakSettings, *, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._say = say
        self._chance = random.Random(settings.seed)
        self._log = storage.join(settings.folder, "output.log")
        self._mark = storage.join(settings.folder, "soak")

    def run(self) -> ScoringSoakResult:
        """All of it; an undisturbed job that is there already is not run again.

        Raises:
            ChorusError: a job failed that nobody killed.
        """
        storage.make_folder(self._settings.folder)
        checkpoint = self._checkpoint()
        undisturbed = self._undisturbed(checkpoint)
        kills, seconds = self._killed(checkpoint, undisturbed_seconds=undisturbed)
        reference, scored = (PredictionManifest.read(self._path(name)) for name in ("undisturbed", "killed"))
        ours = {file.path: file for file in scored.files}
        theirs = {file.path: file for file in reference.files}
        done = subprocess.run(
            [sys.executable, _VERIFIER, self._path("killed")], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return ScoringSoakResult(
            num_rows=scored.num_rows,
            num_ranges=len(scored.files),
            ranks=self._settings.ranks,
            kills=tuple(kills),
            undisturbed_seconds=undisturbed,
            killed_seconds=seconds,
            different_files=tuple(
                sorted(path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path))
            ),
            verifier_code=done.returncode,
            verifier_output=done.stderr + done.stdout,
        )

    def _path(self, name: str) -> str:
        return storage.join(self._settings.folder, name)

    def _checkpoint(self) -> str:
        """A demo ensemble, trained for a moment."""
        folder = storage.join(self._path("run"), CHECKPOINTS_NAME, f"step_{_TRAINED_STEPS:010d}")
        if not storage.exists(folder):
            self._say("training the demo ensemble for a moment")
            words = [f"--run.folder={self._path('run')}", f"--train.until={{steps = {_TRAINED_STEPS}}}"]
            self._run_alone([*torchrun(TRAINER, *words, "--run.device=cpu", ranks=1)], what="training")
        return folder

    def _command(self, checkpoint: str, output: str) -> list[str]:
        words = ["--checkpoint", checkpoint, "--output", output]
        words += [f"--data.synthetic.valid_rows={self._settings.num_rows}", *self._settings.words]
        restarts = self._settings.kills
        return torchrun(SCORER, *words, ranks=self._settings.ranks, max_restarts=restarts)

    def _undisturbed(self, checkpoint: str) -> float:
        """Seconds of the job that nobody kills; kept beside its predictions."""
        kept, output = self._path("undisturbed_seconds.json"), self._path("undisturbed")
        if not storage.is_file(kept):
            self._say(f"scoring {self._settings.num_rows:,} rows undisturbed")
            began = time.monotonic()
            self._run_alone(self._command(checkpoint, output), what="the undisturbed job")
            storage.write_json(kept, {"seconds": time.monotonic() - began})
        return float(storage.read_json(kept)["seconds"])

    def _run_alone(self, command: Sequence[str], *, what: str) -> None:
        process = launch(command, mark=self._mark, output=self._log)
        try:
            code = process.wait()
        except BaseException:
            end_all(self._mark)
            raise
        if code:
            raise ChorusError(f"{what} ended with exit code {code}; {self._log} has what it said")

    def _killed(self, checkpoint: str, *, undisturbed_seconds: float) -> tuple[list[DeliveredKill], float]:
        output, kills = self._path("killed"), list[DeliveredKill]()
        command = self._command(checkpoint, output)
        began = time.monotonic()
        process = launch(command, mark=self._mark, output=self._log)
        try:
            while len(kills) < self._settings.kills:
                # Later ones find less left to do, so the moments are drawn from a share of the whole.
                share = undisturbed_seconds / (self._settings.kills + 1)
                wait = self._chance.uniform(0.0, 2 * share)
                victim = self._chance.choice(VICTIMS)
                if self._ends_within(process, wait):
                    raise ChorusError(
                        f"the job ended with exit code {process.returncode} after {len(kills)} of"
                        f" {self._settings.kills} kills; {self._log} has what it said; take more rows or fewer kills"
                    )
                if self._kill(victim):
                    done = sum(name.endswith(".parquet") for name in storage.names(output))
                    kills.append(DeliveredKill(victim=victim, seconds=wait, ranges_done=done))
                    self._say(f"kill {len(kills)} of {self._settings.kills}: {victim}, {done:,} ranges are there")
                if victim != "rank":
                    end_all(self._mark) if victim == "host" else wait_until_gone(self._mark, seconds=_GONE_SECONDS)
                    process.wait()
                    process = launch(command, mark=self._mark, output=self._log)
            code = process.wait()
        finally:
            end_all(self._mark)
        if code:
            raise ChorusError(f"the killed job ended with exit code {code}; {self._log} has what it said")
        return kills, time.monotonic() - began

    def _ends_within(self, process: subprocess.Popen[bytes], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return process.poll() is not None

    def _kill(self, victim: Victim) -> bool:
        """Sends the signal; gives whether anything was hit."""
        if victim == "rank":
            ranks = ranks_of(self._mark)
            return bool(ranks) and self._chance.choice(ranks).signal(signal.SIGKILL)
        everything = processes_of(self._mark)
        hit = everything if victim == "host" else [process for process in everything if process.rank is None][:1]
        return any([process.signal(signal.SIGKILL) for process in reversed(hit)])
