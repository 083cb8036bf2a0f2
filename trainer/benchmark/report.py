"""Report: everything that a benchmark found, as its page shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from configs.benchmark_schema import Benchmark
from trainer.analysis.bench.figures import machine
from trainer.benchmark.baselines import baseline_logits
from trainer.benchmark.columns import Results, read_results
from trainer.benchmark.comparisons import Comparison, comparisons
from trainer.benchmark.diversity import DiversityStudy, diversity_study
from trainer.benchmark.fitted import FittedMerge, fitted_merges
from trainer.benchmark.jobs import Job
from trainer.benchmark.points import Figures, Point, figures, points
from trainer.benchmark.running import Runner
from trainer.benchmark.speed import speeds
from trainer.benchmark.stability import Stability, stabilities


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was measured; what a benchmark has not asked for is empty."""

    results: Results
    points: Sequence[Point]
    """All strategies at all their sizes."""

    num_trainings: int
    machine: str
    """Where everything was trained and timed, in a few words."""

    baselines: Mapping[str, Figures] = field(default_factory=dict)
    """Name -> its figures, the mean over windows."""

    comparisons: Sequence[Comparison] = ()
    fitted: Sequence[FittedMerge] = ()
    diversity: Sequence[DiversityStudy] = ()
    stability: Sequence[Stability] = ()
    speeds: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Pool and member -> rows scored a second by one of its columns."""

    @property
    def benchmark(self) -> Benchmark:
        """What was run."""
        return self.results.benchmark

    def of(self, strategy: str) -> list[Point]:
        """The points of a strategy, the smallest first."""
        return sorted((one for one in self.points if one.strategy == strategy), key=lambda one: one.size)

    @property
    def single(self) -> Point:
        """One model, which the others are compared with."""
        return self.of(self.benchmark.single)[0]

    @property
    def headline(self) -> Point:
        """The strategy that the benchmark is about, at its largest size."""
        return self.of(self.benchmark.headline)[-1]


def report(
    benchmark: Benchmark,
    *,
    jobs: Sequence[Job],
    runner: Runner,
    data: Mapping[str, str],
    folder: str,
    say: Callable[[str], None],
) -> Report:
    """Measures everything that a benchmark asks for.

    Args:
        benchmark: What was run.
        jobs: All of its, done.
        runner: Knows where they lie.
        data: Window -> prepared folder.
        folder: Of the benchmark, where baselines and speeds are kept.
        say: Told what is being done.

    Raises:
        ChorusError: what a job left cannot be read, or a merge or baseline cannot be fitted.
    """
    say("reading predictions")
    results = read_results(benchmark, jobs=jobs, runner=runner)
    baselines = baseline_logits(benchmark, data=data, folder=folder, say=say)
    say(f"merging: {len(benchmark.strategies)} strategies")
    found = points(results)
    say("comparing in pairs")
    compared = comparisons(results, baselines=baselines)
    return Report(
        results=results,
        points=found,
        num_trainings=sum(job.averaging is None for job in jobs),
        machine=machine_name(),
        baselines={name: _figures(results, logits) for name, logits in baselines.items()},
        comparisons=compared,
        fitted=fitted_merges(results),
        diversity=diversity_study(results, say=say),
        stability=stabilities(results, say=say),
        speeds=speeds(results, data=data, folder=folder, say=say),
    )


def machine_name() -> str:
    """This machine in a few words."""
    here = machine()
    kernels = torch.backends.cpu.get_cpu_capability()  # figures of machines with others agree less closely
    name = f"{here['processor']}, {here['cores']} cores, {kernels}"
    if torch.cuda.is_available():
        name = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}, {name}"
    return f"{name}, torch {torch.__version__}"


def _figures(results: Results, logits: Mapping[str, NDArray[np.float64]]) -> Figures:
    return Figures.mean([figures(rows.labels_N, logits[window]) for window, rows in results.rows.items()])
