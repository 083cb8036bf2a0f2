"""Results of a benchmark that nothing was trained for: labels from a known truth, columns that see it through noise.

Legend: N judged rows of a window, T rows that merges are fitted on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.benchmark_schema import Benchmark, BenchmarkData, Pool, Strategy, Window
from trainer.benchmark.columns import Column, ColumnCost, Results, WindowRows

NOISES = {"deep": 1.0, "cross": 1.2, "dot": 1.5}
_KIND_SHARE = 0.5  # of a member's noise, the part that all its trainings have in common

SINGLE = Strategy(title="one model", family="single", pools=("kinds",), sizes=(1,))
KINDS = Strategy(title="K kinds", family="kinds", pools=("kinds",), sizes=(1, 2, 3), subsets="distinct")


def made_results(
    *,
    noises: Mapping[str, float] = NOISES,
    groups: int = 3,
    windows: tuple[str, ...] = ("all",),
    num_rows: int = 600,
    num_tune: int = 0,
    **changes: Any,
) -> Results:
    """One pool "kinds" of these members, unless `pools` says otherwise; strategies "single" and "kinds".

    Args:
        noises: Member -> scale of the noise in its logits, about half of which its trainings have in common.
        groups: Of the benchmark.
        windows: Their names; each has rows of its own.
        num_rows: N.
        num_tune: T.
        changes: Fields of the benchmark that are other than here.
    """
    benchmark = made_benchmark(
        members=tuple(noises), groups=groups, windows=windows, tune=("tune",) if num_tune else (), **changes
    )
    rows, columns = {}, []
    for window in benchmark.data.windows:
        truth = _draw("truth", window).normal(-0.7, 1.5, size=num_rows + num_tune)
        labels = (_draw("labels", window).random(len(truth)) < 1 / (1 + np.exp(-truth))).astype(np.int8)
        rows[window] = WindowRows(labels_N=labels[:num_rows], tune_labels_T=labels[num_rows:])
        for pool in benchmark.pools:
            for group in range(1, benchmark.groups + 1):
                columns += _columns(
                    benchmark, pool, group=group, window=window, truth=truth, noises=noises, cut=num_rows
                )
    return Results(benchmark=benchmark, rows=rows, columns=tuple(columns), train_seconds=3600.0, cpu_seconds=4000.0)


def made_benchmark(
    *, members: tuple[str, ...], groups: int, windows: tuple[str, ...], tune: tuple[str, ...] = (), **changes: Any
) -> Benchmark:
    """A benchmark of one pool, "kinds"."""
    window = Window(train=("train",), valid=tune, tune=tune, test=("test",))
    benchmark = Benchmark(
        title="made: three kinds",
        about="Nothing was trained for this.",
        run="configs/benchmarks/runs/made.toml",
        groups=groups,
        single="single",
        headline="kinds",
        data=BenchmarkData(
            layout="table",
            schema="configs/tables/made.toml",
            files=("all.csv",),
            origin="Drawn at random.",
            licence="None.",
            judged="all rows",
            windows=dict.fromkeys(windows, window),
        ),
        pools={"kinds": Pool(members=members)},
        strategies={"single": SINGLE, "kinds": replace(KINDS, sizes=tuple(range(1, len(members) + 1)))},
    )
    return replace(benchmark, **changes)


def _columns(
    benchmark: Benchmark,
    pool: str,
    *,
    group: int,
    window: str,
    truth: NDArray[np.float64],
    noises: Mapping[str, float],
    cut: int,
) -> list[Column]:
    found = []
    given = benchmark.pools[pool]
    for replicate in range(1, given.seeds * given.copies * given.checkpoints + 1):
        for place, member in enumerate(given.members, start=1):
            common = _draw("kind", member, window).normal(size=len(truth))
            own = _draw("own", member, window, pool, group, replicate).normal(size=len(truth))
            noise = np.sqrt(_KIND_SHARE) * common + np.sqrt(1 - _KIND_SHARE) * own
            logits = (truth + noises[member] * noise).astype(np.float32)
            name = f"{window}.{pool}.{member}.g{group}.s{replicate}"
            found.append(
                Column(
                    pool=pool,
                    member=member,
                    group=group,
                    replicate=replicate,
                    window=window,
                    logits_N=logits[:cut],
                    tune_logits_T=logits[cut:],
                    cost=ColumnCost(
                        kind=member,
                        dense_parameters=1_000 * place,
                        multiply_adds=2_000 * place,
                        tables={f"{name}/own": 5_000},
                        trainings={name: 10.0 * place},
                    ),
                    checkpoint=name,
                    name=member,
                    epochs=2,
                )
            )
    return found


def _draw(*words: object) -> np.random.Generator:
    return np.random.default_rng(list(hashlib.sha256(repr(words).encode()).digest()))
