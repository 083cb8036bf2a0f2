"""Batch scoring measured: what further members cost, how near the driver comes to its modules, whether memory grows.

A pass is scoring all rows and writing their files: what a job does between its start-up and its figures.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from configs.schema import Run
from trainer.analysis.bench.figures import Findings
from trainer.analysis.bench.one_process import in_one_process
from trainer.analysis.bench.scored_model import Clock, ScoredModel
from trainer.analysis.bench.scoring_place import DAYS, FEW, ScoringPlace
from trainer.runtime import Runtime

COUNTS = (1, 2, 4, 8)
_IN_MEMORY = 16  # batches that stand for all
_MOST_OFF = 0.10
_MOST_OF_SEPARATE = 0.65
_LEAST_OF_BOUND = 0.70
_MOST_GROWTH = 1.10
_MIB = 1 << 20
_S, _D, _SEPARATE, _FORWARD = "S", "D", "separate", "forward"


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """How often is measured, and by which clock."""

    repeats: int
    clock: Clock = "wall"


@dataclass(frozen=True, kw_only=True)
class MemberShape:
    """Members that are measured."""

    hidden: tuple[int, ...]
    precision: str
    most_of_separate: float | None = None  # the target of eight members in one job, as a share of eight jobs

    @property
    def name(self) -> str:
        """For people."""
        return f"mlp {'-'.join(map(str, self.hidden))} {self.precision}"


SHAPES = (
    MemberShape(hidden=(200, 80), precision="bf16", most_of_separate=_MOST_OF_SEPARATE),
    MemberShape(hidden=(400, 400, 400), precision="bf16"),
    MemberShape(hidden=(400, 400, 400), precision="fp32"),
)


def measure_members(scoring: ScoringPlace, *, shapes: Sequence[MemberShape], rounds: Rounds) -> Findings:
    """The pass of K = 1, 2, 4, 8 members in one job beside S + K D and beside K jobs; start-up apart.

    S is a pass of the same model with the members taken out: reading, ids, lookup, writing. D is the first member
    alone on embeddings in memory. Neither is fitted to the passes. All of it on one core, in turns, in one process.

    Raises:
        ChorusError: a program failed.
    """
    findings, place = Findings(), scoring.place
    for shape in shapes:
        checkpoint = scoring.trained(shape.hidden, members=max(COUNTS), steps=1)
        place.say(f"{shape.name}: {rounds.repeats} rounds of passes over {scoring.size.rows:,} rows on one core")
        words = _words(scoring, shape)
        seconds = in_one_process(member_seconds, checkpoint, words, place.path("scratch"), rounds, one_core=True)
        _add_members(findings, shape, seconds, rows=scoring.size.rows)
        findings.facts[shape.name] = seconds
    lone = scoring.trained(shapes[0].hidden, members=1, steps=1)
    for name, checkpoint in (("one member", lone), ("eight", scoring.trained(shapes[0].hidden, members=8, steps=1))):
        runs = [_program_seconds(scoring, checkpoint, [FEW]) for _ in range(rounds.repeats)]
        findings.add(f"start-up and figures of a job of {name}: the whole program on few rows", runs, "s")
    findings.facts |= {"rows": scoring.size.rows, **dataclasses.asdict(scoring.size)}
    findings.remarks.append("S, D: measured by themselves, not fitted; K jobs: K passes of a job of one member")
    return findings


def member_seconds(checkpoint: str, words: Sequence[str], scratch: str, rounds: Rounds) -> dict[str, list[float]]:
    """Seconds of each round, behind one that is not counted, for S, D, each K, and the K jobs of one member."""
    with Runtime(Run()) as runtime:
        scored = ScoredModel(checkpoint, words=words, scratch=scratch, runtime=runtime, clock=rounds.clock)
        inputs = scored.inputs(scored.batches(_IN_MEMORY))

        def passing(number: int) -> Callable[[], float]:
            def run() -> float:
                with scored.only(number):
                    return scored.pass_seconds()

            return run

        def separate() -> list[float]:
            return [passing(1)() for _ in range(max(COUNTS))]

        seconds: dict[str, list[float]] = {name: [] for name in (_S, _D, *_keys("K"), *_keys(_SEPARATE))}
        for turn in range(rounds.repeats + 1):
            found = {_S: passing(0)(), _D: scored.dense_seconds(inputs)}
            found |= {f"K{count}": passing(count)() for count in COUNTS}
            alone = separate() if turn else []
            found |= {f"{_SEPARATE}{count}": sum(alone[:count]) for count in COUNTS}
            if turn:
                for name, value in found.items():
                    seconds[name].append(value)
        return seconds


def _keys(before: str) -> list[str]:
    return [f"{before}{count}" for count in COUNTS]


def _add_members(findings: Findings, shape: MemberShape, seconds: Mapping[str, Sequence[float]], *, rows: int) -> None:
    def per_row(values: Sequence[float]) -> list[float]:
        return [value / rows * 1e6 for value in values]

    findings.add(f"{shape.name}: S, shared cost", per_row(seconds[_S]), "us/row")
    findings.add(f"{shape.name}: D, a member's dense cost", per_row(seconds[_D]), "us/row")
    for count in COUNTS:
        together = seconds[f"K{count}"]
        sums = [shared + count * dense for shared, dense in zip(seconds[_S], seconds[_D], strict=True)]
        note = f"S + K D: {statistics.median(per_row(sums)):.3g} us/row"
        findings.add(f"{shape.name}: K = {count}, one job", per_row(together), "us/row", note=note)
        off = [abs(one / expected - 1) for one, expected in zip(together, sums, strict=True)]
        ratio = statistics.median(one / expected for one, expected in zip(together, sums, strict=True))
        name, note = f"{shape.name}: K = {count}, off S + K D by", f"{ratio:.3f} times S + K D"
        findings.add(name, off, "", target=_MOST_OFF, bound="most", note=note)
        if count > 1:
            alone = seconds[f"{_SEPARATE}{count}"]
            shares = [one / apart for one, apart in zip(together, alone, strict=True)]
            target = shape.most_of_separate if count == max(COUNTS) else None
            findings.add(f"{shape.name}: K = {count}, one job of K jobs' time", shares, "", target=target, bound="most")


def measure_bound(scoring: ScoringPlace, *, shapes: Sequence[MemberShape], rounds: Rounds) -> Findings:
    """Rows/s of the driver beside those of the forward pass of the same modules on batches in memory.

    Raises:
        ChorusError: a program failed.
    """
    findings, place, rows = Findings(), scoring.place, scoring.size.rows
    for shape in shapes:
        checkpoint = scoring.trained(shape.hidden, members=max(COUNTS), steps=1)
        place.say(f"{shape.name}: {rounds.repeats} rounds of the driver and of its modules alone")
        seconds = in_one_process(bound_seconds, checkpoint, _words(scoring, shape), place.path("scratch"), rounds)
        for count in (1, max(COUNTS)):
            driver, forward = seconds[f"K{count}"], seconds[f"{_FORWARD}{count}"]
            name = f"{shape.name}: K = {count}"
            findings.add(f"{name}, driver", [rows / value for value in driver], "rows/s")
            findings.add(f"{name}, forward pass in memory", [rows / value for value in forward], "rows/s")
            shares = [bound / value for bound, value in zip(forward, driver, strict=True)]
            findings.add(f"{name}, driver's share", shares, "", target=_LEAST_OF_BOUND)
    findings.remarks.append("a rank with one thread for operators; reading and writing have threads of their own")
    return findings


def bound_seconds(checkpoint: str, words: Sequence[str], scratch: str, rounds: Rounds) -> dict[str, list[float]]:
    """Seconds of each round, behind one that is not counted, of the driver and of the forward pass."""
    with Runtime(Run()) as runtime:
        scored = ScoredModel(checkpoint, words=words, scratch=scratch, runtime=runtime, clock=rounds.clock)
        batches = scored.batches(_IN_MEMORY)
        counts = (1, max(COUNTS))
        seconds: dict[str, list[float]] = {f"{what}{count}": [] for what in ("K", _FORWARD) for count in counts}
        for turn in range(rounds.repeats + 1):
            for count in counts:
                with scored.only(count):
                    found = {f"K{count}": scored.pass_seconds(), f"{_FORWARD}{count}": scored.forward_seconds(batches)}
                if turn:
                    for name, value in found.items():
                        seconds[name].append(value)
        return seconds


def measure_memory(scoring: ScoringPlace, *, shape: MemberShape) -> Findings:
    """Peak memory of the whole program over one day and over four.

    Raises:
        ChorusError: a program failed.
    """
    findings, rows = Findings(), scoring.size.rows
    checkpoint = scoring.trained(shape.hidden, members=max(COUNTS), steps=1)
    peaks = []
    for parts in (DAYS[:1], DAYS):
        output = scoring.place.path("predictions")
        words = ["--checkpoint", checkpoint, "--output", output, *_parts(parts)]
        ran = scoring.place.run("trainer/score.py", *words, watched="")
        scoring.place.remove("predictions")
        assert ran.peak is not None
        peaks.append(ran.peak.of_one_process_bytes)
        note = f"{ran.seconds:,.0f} s, start-up and figures included"
        findings.add(f"peak memory, {len(parts) * rows:,} rows", peaks[-1] / _MIB, "MiB", note=note)
    findings.add("four times the rows take", peaks[1] / peaks[0], "x", target=_MOST_GROWTH, bound="most")
    findings.remarks.append("anonymous memory of one rank, weights included; mapped files are the cache's")
    return findings


def _program_seconds(scoring: ScoringPlace, checkpoint: str, parts: Sequence[str]) -> float:
    output = scoring.place.path("predictions")
    ran = scoring.place.run("trainer/score.py", "--checkpoint", checkpoint, "--output", output, *_parts(parts))
    scoring.place.remove("predictions")
    return ran.seconds


def _words(scoring: ScoringPlace, shape: MemberShape) -> list[str]:
    return [f"--data.root={scoring.data}", f"--dense.precision={shape.precision}", *_parts(DAYS[:1])]


def _parts(parts: Sequence[str]) -> list[str]:
    names = ", ".join(f'"{part}"' for part in parts)
    return [f"--score.parts=[{names}]"]
