"""Columns: what a benchmark's trainings predict for the judged rows, and what each of them costs to serve.

Legend: N judged rows of a window, T rows that merges are fitted on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.benchmark_schema import Benchmark, Window
from configs.errors import DataError
from configs.loader import read_run
from configs.schema import RunConfig
from modules import members
from modules.member_fields import MemberFields
from modules.tables import FIRST_ORDER_SUFFIX
from trainer import storage
from trainer.benchmark.job_process import DONE_NAME, PREDICTIONS_NAME, checkpoints_of
from trainer.benchmark.jobs import Job
from trainer.benchmark.running import Runner
from trainer.checkpoints.manifest import RUN_NAME, read_manifest
from trainer.predictions.reading import Predictions

BYTES_PER_PARAMETER = 4


@dataclass(frozen=True, kw_only=True)
class ColumnCost:
    """What one column takes to serve."""

    kind: str
    """The architecture."""

    dense_parameters: int
    multiply_adds: int
    """Per row of a forward pass."""

    tables: dict[str, int]
    """Set of tables -> its parameters; columns that read one set in common name it alike."""

    trainings: dict[str, float] = field(default_factory=dict)
    """Job -> processor seconds of the trainings that it comes from; columns of one job name it alike."""

    @property
    def parameters(self) -> int:
        """Tables included."""
        return self.dense_parameters + sum(self.tables.values())


@dataclass(frozen=True, kw_only=True)
class MergedCost:
    """What several columns take to serve together; what they share counts once."""

    parameters: int
    table_bytes: int
    multiply_adds: int
    train_seconds: float = 0.0
    """Of processors, in all trainings together."""

    @staticmethod
    def of(costs: Iterable[ColumnCost]) -> MergedCost:
        """Of these columns."""
        there = list(costs)
        tables = {name: size for cost in there for name, size in cost.tables.items()}
        trainings = {name: seconds for cost in there for name, seconds in cost.trainings.items()}
        return MergedCost(
            parameters=sum(cost.dense_parameters for cost in there) + sum(tables.values()),
            table_bytes=BYTES_PER_PARAMETER * sum(tables.values()),
            multiply_adds=sum(cost.multiply_adds for cost in there),
            train_seconds=sum(trainings.values()),
        )


@dataclass(frozen=True, kw_only=True)
class Column:
    """One prediction of a window's rows."""

    pool: str
    member: str
    """As the run file calls it."""

    group: int
    replicate: int
    """Counts the columns of a pool's member in a group, from 1: seeds, copies and checkpoints."""

    window: str
    logits_N: NDArray[np.float32]
    """Of the judged rows."""

    tune_logits_T: NDArray[np.float32]
    """Of the rows that merges are fitted on; none where the window has none."""

    cost: ColumnCost
    checkpoint: str
    """The folder of its weights."""

    name: str
    """In that checkpoint."""

    epochs: int | None
    """That it was trained for, where the run says."""


@dataclass(frozen=True, kw_only=True)
class WindowRows:
    """The labels of a window."""

    labels_N: NDArray[np.int8]
    tune_labels_T: NDArray[np.int8]


@dataclass(frozen=True, kw_only=True)
class Results:
    """All columns of a benchmark."""

    benchmark: Benchmark
    rows: dict[str, WindowRows]
    """Window -> its labels."""

    columns: tuple[Column, ...]
    train_seconds: float
    """Of all trainings, one after the other."""

    cpu_seconds: float
    """Of all processors together, scoring included."""

    def of(self, pools: Sequence[str], *, group: int, window: str, only: Sequence[str] = ()) -> list[Column]:
        """The columns of these pools in a group and a window, in the order of pools, members and replicates."""
        order = {name: place for place, name in enumerate(pools)}
        found = [
            column
            for column in self.columns
            if column.pool in order and column.group == group and column.window == window
            if not only or column.member in only
        ]
        return sorted(found, key=lambda column: (order[column.pool], column.replicate))


def read_results(benchmark: Benchmark, *, jobs: Sequence[Job], runner: Runner) -> Results:
    """Reads what the jobs left; all must be done.

    Raises:
        DataError: predictions are not as they were written; names the job.
    """
    columns: list[Column] = []
    rows: dict[str, WindowRows] = {}
    train_seconds = cpu_seconds = 0.0
    counts: dict[tuple[str, str, int, str], int] = {}
    seconds: dict[str, float] = {}
    for job in jobs:
        folder = runner.folder_of(job)
        done = storage.read_json(storage.join(folder, DONE_NAME))
        _check(folder)
        train_seconds += done["train_seconds"]
        cpu_seconds += done["cpu_seconds"]
        seconds[job.name] = done["cpu_seconds"]
        trainings = {of.name: seconds[of.name] for of in job.sources or (job,)}
        for column in _columns(job, folder=folder, window=benchmark.data.windows[job.window], epochs=done["epochs"]):
            place = (column.pool, column.member, column.group, column.window)
            counts[place] = counts.get(place, 0) + 1
            cost = replace(column.cost, trainings=trainings)
            columns.append(replace(column, replicate=counts[place], cost=cost))
        if job.window not in rows:
            rows[job.window] = _rows(folder, window=benchmark.data.windows[job.window])
    return Results(
        benchmark=benchmark,
        rows=rows,
        columns=tuple(columns),
        train_seconds=train_seconds,
        cpu_seconds=cpu_seconds,
    )


def _check(folder: str) -> None:
    """Refuses predictions that are not as they were written."""
    try:
        Predictions(storage.join(folder, PREDICTIONS_NAME)).check_bytes()
    except DataError as error:
        raise DataError(f"{error}; delete {folder} and the same command trains it again") from error


def _rows(folder: str, *, window: Window) -> WindowRows:
    predictions = storage.join(folder, PREDICTIONS_NAME)
    tune = Predictions(predictions, parts=window.tune).labels() if window.tune else np.empty(0, dtype=np.int8)
    return WindowRows(labels_N=Predictions(predictions, parts=window.test).labels(), tune_labels_T=tune)


def _columns(job: Job, *, folder: str, window: Window, epochs: dict[str, int]) -> list[Column]:
    predictions = storage.join(folder, PREDICTIONS_NAME)
    test = Predictions(predictions, parts=window.test)
    logits_NM = test.logits()
    tune_logits_TM = Predictions(predictions, parts=window.tune).logits() if window.tune else logits_NM[:0]
    checkpoints = checkpoints_of(folder, count=job.checkpoints, take=job.take)
    run = _run(checkpoints[-1])
    costs = _costs(run, model=read_manifest(checkpoints[-1]).model, job=job)
    bases = _base_names(run)
    found = []
    for place, name in enumerate(test.members):
        at, plain = place // len(costs), name
        if len(checkpoints) > 1:
            plain = name.partition("_")[2]  # cN_MEMBER
        found.append(
            Column(
                pool=job.pool,
                member=bases[plain],
                group=job.group,
                replicate=0,
                window=job.window,
                logits_N=logits_NM[:, place],
                tune_logits_T=tune_logits_TM[:, place],
                cost=_apart(costs[plain], at=at) if len(checkpoints) > 1 else costs[plain],
                checkpoint=checkpoints[at],
                name=plain,
                epochs=_epochs(run, counted=epochs.get(plain)),
            )
        )
    return found


def _apart(cost: ColumnCost, *, at: int) -> ColumnCost:
    """Of another checkpoint, whose tables are its own."""
    return replace(cost, tables={f"{name}@{at}": size for name, size in cost.tables.items()})


def _epochs(run: RunConfig, *, counted: int | None) -> int | None:
    """Epochs of a training: lines of its log where it wrote one an epoch, else those it was given."""
    if run.train.log_every.epochs == 1.0:
        return counted
    return None if run.train.early_stop.evaluations else run.train.until.epochs


def _base_names(run: RunConfig) -> dict[str, str]:
    """Name in the checkpoint -> name in the run file, which copies have in common."""
    found = {}
    for name, member in run.members.items():
        for copy in range(1, member.copies + 1):
            found[name if member.copies == 1 else f"{name}_{copy}"] = name
    return found


def _run(checkpoint: str) -> RunConfig:
    path = storage.join(checkpoint, RUN_NAME)
    return read_run(storage.read_text(path), source=path, resolve_arch=members.config_class, arch_kinds=members.kinds())


def _costs(run: RunConfig, *, model: Any, job: Job) -> dict[str, ColumnCost]:
    """Name in the checkpoint -> its cost."""
    found = {}
    for name, member in run.expanded_members():
        fields, group = MemberFields.of_json(model["inputs"][name]), model["groups"][name]
        cost = fields.cost(member.arch, dim=_dim(model, group, fields=fields))
        size = _table_parameters(model, group, fields=fields)
        found[name] = ColumnCost(
            kind=member.arch.kind,
            dense_parameters=cost.parameters,
            multiply_adds=cost.multiply_adds,
            tables={f"{job.name}/{group}": size},
        )
    return found


def _dim(model: Any, group: str, *, fields: MemberFields) -> int:
    return int(model["tables"][f"{group}/{fields.features[0]}"][1]) if fields.embedded and fields.features else 0


def _table_parameters(model: Any, group: str, *, fields: MemberFields) -> int:
    total = 0
    for feature in fields.features:
        rows, dim = model["tables"].get(f"{group}/{feature}", (0, 0))
        weighted = f"{group}{FIRST_ORDER_SUFFIX}/{feature}" in model["tables"]
        total += rows * dim + (model["table_rows"][feature] if weighted else 0)
    return total
