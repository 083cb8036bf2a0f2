"""What checkpoints cost: the throughput of one run without them, with them in the background, and in the foreground."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.errors import ChorusError, ConfigError
from trainer import storage
from trainer.analysis.bench.figures import Findings
from trainer.analysis.reliability.job_output import JobOutput
from trainer.analysis.reliability.processes import ROOT, end_all, launch, torchrun
from trainer.checkpoints.manifest import MANIFEST_NAME
from trainer.checkpoints.stored_checkpoint import CHECKPOINTS_NAME
from trainer.clock import clock
from trainer.reporting import METRICS_NAME

PROGRAM = str(ROOT / "tools" / "bench_checkpoints.py")
NONE, BACKGROUND, FOREGROUND = "no checkpoints", "in the background", "in the foreground"
MOST_OVERHEAD_PERCENT = 5.0
_CALIBRATION_STEPS = 60
_LOG_STEPS = 10
_SAY_SECONDS = 15.0
_ROOM_FACTOR = 4  # a checkpoint beside the one before, and what is being written
_MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class CostSettings:
    """What is measured."""

    folder: str
    words: tuple[str, ...]  # of the trainer: --config and overrides
    ranks: int
    every_seconds: float
    seconds: float  # of steps, in each run
    rounds: int


@dataclass(frozen=True, kw_only=True)
class CostRun:
    """One run of one variant."""

    rows_per_second: float  # by the clock on the wall, whatever held training up included
    seconds: float
    held_up_seconds: tuple[float, ...]  # training, by each checkpoint but the last, which is behind the clock's end
    write_seconds: tuple[float, ...]
    num_bytes: int  # of the last checkpoint


@dataclass(kw_only=True)
class Costs:
    """All runs."""

    steps: int
    batch_size: int
    runs: dict[str, list[CostRun]] = field(default_factory=dict)


class CheckpointCost:
    """Measures it, in turns.

    Args:
        settings: What to measure.
        batch_size: Rows of a step.
        say: Told of progress.
    """

    def __init__(self, settings: CostSettings, *, batch_size: int, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._batch_size = batch_size
        self._say = say
        self._folder = Path(settings.folder)
        self._began = time.monotonic()

    def measure(self) -> Costs:
        """Runs every variant once a round.

        Raises:
            ChorusError: a run fails, or the disk has no room.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._say(f"a run of {_CALIBRATION_STEPS} steps, to see how long a step takes and how large the state is")
        first = self._run(NONE, steps=_CALIBRATION_STEPS, seconds_after=0.0)
        free = shutil.disk_usage(self._folder).free
        if free < _ROOM_FACTOR * first.num_bytes:
            raise ConfigError(
                f"--folder: {self._folder} has {free / _MIB:,.0f} MiB free, and a checkpoint has"
                f" {first.num_bytes / _MIB:,.0f}; give another folder"
            )
        steps = max(2 * _CALIBRATION_STEPS, round(self._settings.seconds * first.rows_per_second / self._batch_size))
        costs = Costs(steps=steps, batch_size=self._batch_size)
        variants = (NONE, BACKGROUND, FOREGROUND)
        for number in range(self._settings.rounds):
            for place, variant in enumerate(variants):
                self._say(f"round {number + 1} of {self._settings.rounds}, {variant}: {steps} steps")
                after = (self._settings.rounds - number) * len(variants) - place - 1
                run = self._run(variant, steps=steps, seconds_after=after * self._settings.seconds)
                costs.runs.setdefault(variant, []).append(run)
                self._say(f"{variant}: {run.rows_per_second:,.0f} rows/s, {len(run.held_up_seconds)} checkpoints")
        return costs

    def _run(self, variant: str, *, steps: int, seconds_after: float) -> CostRun:
        folder = self._folder / "run"
        shutil.rmtree(folder, ignore_errors=True)
        every = 0 if variant == NONE else self._settings.every_seconds
        words = [
            *self._settings.words,
            f"--run.folder={folder}",
            f"--train.until={{steps = {steps}}}",
            f"--train.log_every={{steps = {_LOG_STEPS}}}",
            f"--checkpoint.every={{seconds = {every}}}",
            f"--checkpoint.background={'false' if variant == FOREGROUND else 'true'}",
        ]
        task, output, result = (self._folder / name for name in ("task.json", "output.txt", "result.json"))
        output.unlink(missing_ok=True)
        result.unlink(missing_ok=True)
        storage.write_json(str(task), {"words": words, "result": str(result)})
        command = torchrun(PROGRAM, "--worker", str(task), ranks=self._settings.ranks)
        process = launch(command, mark=str(folder), output=str(output))
        said_at = time.monotonic()
        try:
            while process.poll() is None:
                time.sleep(0.5)
                if time.monotonic() - said_at > _SAY_SECONDS:
                    said_at = time.monotonic()
                    self._say_progress(folder, steps=steps, seconds_after=seconds_after)
        finally:
            end_all(str(folder))
        follower = JobOutput(str(output), evaluates=lambda _step: False)
        follower.read()
        if process.returncode:
            lines = "\n".join(follower.tail(40))
            raise ChorusError(f"{variant}: the run ended with code {process.returncode}; it printed at last:\n{lines}")
        saves = storage.read_json(str(result))["saves"]
        found = cost_run(folder, batch_size=self._batch_size, saves=saves, writes=follower.write_seconds)
        shutil.rmtree(folder, ignore_errors=True)
        return found

    def _say_progress(self, folder: Path, *, steps: int, seconds_after: float) -> None:
        lines = _metrics(folder)
        if len(lines) < 2:
            self._say(f"  starting; {clock(time.monotonic() - self._began)} so far")
            return
        step = lines[-1]["step"]
        rate = (step - lines[0]["step"]) / max(lines[-1]["seconds"] - lines[0]["seconds"], 1e-9)
        left = (steps - step) / max(rate, 1e-9) + seconds_after
        self._say(f"  step {step}/{steps}; {clock(time.monotonic() - self._began)} so far, ETA {clock(left)}")


def cost_run(folder: Path, *, batch_size: int, saves: Sequence[tuple[int, float]], writes: Sequence[float]) -> CostRun:
    """What a finished run took: by its metrics, from its first line to its last.

    Args:
        folder: Of the run.
        batch_size: Rows of a step.
        saves: Step and seconds that training was held up, of each checkpoint; the last is the one at the end.
        writes: Seconds of each.
    """
    first, *_, last = _metrics(folder)
    seconds = last["seconds"] - first["seconds"]
    within = [
        (held, written)
        for (step, held), written in zip(saves, writes, strict=True)
        if first["step"] < step < last["step"]
    ]
    newest = sorted((folder / CHECKPOINTS_NAME).iterdir())[-1]
    files = storage.read_json(str(newest / MANIFEST_NAME))["files"]
    return CostRun(
        rows_per_second=batch_size * (last["step"] - first["step"]) / seconds,
        seconds=seconds,
        held_up_seconds=tuple(held for held, _ in within),
        write_seconds=tuple(written for _, written in within),
        num_bytes=sum(file["num_bytes"] for file in files.values()),
    )


def _metrics(folder: Path) -> list[dict[str, Any]]:
    path = folder / METRICS_NAME
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [line for line in map(json.loads, lines) if "train/rows_per_second" in line]


def findings_of(costs: Costs, settings: CostSettings) -> Findings:
    """The figures: medians over the rounds, overheads within each round."""
    findings = Findings()
    baseline = costs.runs[NONE]
    size = baseline[0].num_bytes
    findings.add("state, one checkpoint", size / _MIB, "MiB")
    for variant, runs in costs.runs.items():
        findings.add(f"{variant}: throughput", [run.rows_per_second for run in runs], "rows/s")
        if variant == NONE:
            continue
        held = [seconds for run in runs for seconds in run.held_up_seconds]
        if not held:
            raise ConfigError("--seconds: no checkpoint came due within a run; give more, or a shorter --every")
        overheads = [
            100 * (1 - run.rows_per_second / without.rows_per_second)
            for run, without in zip(runs, baseline, strict=True)
        ]
        goal = {"target": MOST_OVERHEAD_PERCENT, "bound": "most"} if variant == BACKGROUND else {}
        findings.add(f"{variant}: overhead", overheads, "%", **goal)
        interval = sum(run.seconds for run in runs) / len(held)
        findings.add(f"{variant}: one checkpoint every", interval, "s", note=f"{len(held)} in {len(runs)} runs")
        what = "copying the state, training held up" if variant == BACKGROUND else "training held up"
        findings.add(f"{variant}: {what}", held, "s")
        findings.add(
            f"{variant}: from the beginning to the manifest", [s for run in runs for s in run.write_seconds], "s"
        )
    findings.facts = {
        "steps": costs.steps,
        "batch_size": costs.batch_size,
        "ranks": settings.ranks,
        "every_seconds": settings.every_seconds,
        "rounds": settings.rounds,
        "bytes": size,
        "words": list(settings.words),
    }
    return findings


def as_markdown(findings: Findings, *, command: str) -> str:
    """The figures, to be pasted into the documentation."""
    lines = [f"`{command}`", "", "| What | Median | All |", "|---|---|---|"]
    for figure in findings.figures:
        goal = f" (goal: at most {figure.target:g}; {figure.verdict})" if figure.target is not None else ""
        runs = ", ".join(f"{run:,.4g}" for run in figure.runs)
        lines.append(f"| {figure.name} | {figure.value:,.4g} {figure.unit}{goal} | {runs or figure.note} |")
    return "\n".join(lines) + "\n"
