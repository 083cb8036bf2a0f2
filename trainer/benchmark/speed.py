"""Speed: rows/s at which each column's architecture is served, measured on rows that are judged.

Served means: lookups in the tables and the dense part of the exported member (trainer/checkpoints/export.py), in fp32,
ids in memory to logits in memory, in batches of `BATCH_ROWS`. On a CPU by one thread, in seconds of this process's
processor time, which do not count while others hold the processor; yet others still take caches and memory from it, so
good figures need a quiet machine. On a GPU, where there is one, in seconds of the clock, to the end of the last kernel.
Architectures take turns, and the median turn counts. Weights do not matter to the time, so all trainings of an
architecture have one figure, kept in the benchmark's folder.

A merge's members run one after the other: its rate is 1 / sum of 1 / rate. What members with common tables could save
by one lookup for all is not taken off.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from configs.benchmark_schema import Strategy
from configs.schema import Data
from trainer import storage
from trainer.analysis.bench.figures import machine
from trainer.benchmark.columns import Column, Results
from trainer.benchmark.points import subsets
from trainer.checkpoints.export import LoadedMember, MemberExport, load_member
from trainer.checkpoints.stored_checkpoint import StoredCheckpoint
from trainer.clock import clock
from trainer.data.reading.batch import make_batch
from trainer.data.reading.opening import open_scoring_source

SPEED_NAME = "speed.json"
BATCH_ROWS = 4_096
NUM_BATCHES = 8
ROUNDS = 7
SECONDS_A_TURN = 0.2
_SAY_EVERY_SECONDS = 5.0

Speeds: TypeAlias = Mapping[tuple[str, str], float]  # pool and member -> rows/s


@dataclass(frozen=True, kw_only=True)
class Served:
    """An architecture as it was measured; all but the rates decide whether a measurement still holds."""

    architecture: Mapping[str, Any]
    """Its kind and keys, as in a configuration."""

    dim: int
    numeric: str
    """How it takes numeric features."""

    dense_features: int
    table_rows: Mapping[str, int]
    machine: str
    rates: tuple[float, ...] = ()
    """Rows/s of each turn."""

    @property
    def key(self) -> str:
        """Of what is measured and where."""
        parts = {name: value for name, value in asdict(self).items() if name != "rates"}
        return hashlib.sha256(json.dumps([parts, BATCH_ROWS], sort_keys=True).encode()).hexdigest()[:16]

    @property
    def rows_per_second(self) -> float:
        """The median turn."""
        return statistics.median(self.rates)


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """A batch in memory."""

    dense_BN: Tensor
    bags: Mapping[str, tuple[Tensor, Tensor]]


def speeds(
    results: Results, *, data: Mapping[str, str], folder: str, say: Callable[[str], None], again: bool = False
) -> dict[tuple[str, str], float]:
    """Rows/s of every pool's member.

    Args:
        results: Its columns' checkpoints are read.
        data: Window -> prepared folder.
        folder: Of the benchmark; what was measured on this machine before is there.
        say: Told how far it is.
        again: Measure all anew.

    Raises:
        ChorusError: a checkpoint or the prepared rows cannot be read.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    columns: dict[tuple[str, str], Column] = {}
    for column in results.columns:
        columns.setdefault((column.pool, column.member), column)
    wanted = {place: _served(column, device=device) for place, column in columns.items()}
    path = storage.join(folder, SPEED_NAME)
    known = {} if again or not storage.is_file(path) else _read(path)
    missing = {served.key: columns[place] for place, served in wanted.items() if served.key not in known}
    if missing:
        say(f"speed: {len(missing)} architectures on {device}, {ROUNDS} turns of {SECONDS_A_TURN:g} s each")
        rates = _Bench(results, data=data, device=device, say=say).rates(missing)
        for served in wanted.values():
            if served.key in rates:
                known[served.key] = replace(served, rates=tuple(rates[served.key]))
        kept = {} if not storage.is_file(path) else _read(path)
        storage.write_json(path, {key: asdict(one) for key, one in (kept | known).items()})
    return {place: known[served.key].rows_per_second for place, served in wanted.items()}


def merged_rate(columns: Iterable[Column], *, of: Speeds) -> float:
    """Rows/s of a merge whose members run one after the other."""
    return 1.0 / sum(1.0 / of[column.pool, column.member] for column in columns)


def strategy_rate(results: Results, *, strategy: Strategy, size: int, of: Speeds) -> float:
    """Rows/s of a strategy at a size: one over the mean time of a row over its subsets."""
    window = next(iter(results.rows))
    seconds = [
        1.0 / merged_rate(subset, of=of)
        for group in range(1, results.benchmark.groups + 1)
        for subset in subsets(
            results.of(strategy.pools, group=group, window=window, only=strategy.members),
            size=size,
            distinct=strategy.subsets == "distinct",
        )
    ]
    return 1.0 / statistics.fmean(seconds)


def _served(column: Column, *, device: str) -> Served:
    facts = MemberExport.of(StoredCheckpoint.open(column.checkpoint), member=column.name).facts
    return Served(
        architecture=dict(facts.architecture),
        dim=facts.dim,
        numeric=facts.numeric,
        dense_features=len(facts.dense_features),
        table_rows=dict(facts.table_rows),
        machine=_machine(device),
    )


def _machine(device: str) -> str:
    here = machine()
    name = torch.cuda.get_device_name() if device == "cuda" else f"{here['processor']}, one thread"
    return f"{name}, torch {torch.__version__}"


def _read(path: str) -> dict[str, Served]:
    return {
        key: Served(**fields | {"rates": tuple(fields["rates"])}) for key, fields in storage.read_json(path).items()
    }


class _Bench:
    """Measures architectures in turns."""

    def __init__(self, results: Results, *, data: Mapping[str, str], device: str, say: Callable[[str], None]) -> None:
        self._results, self._data, self._device, self._say = results, data, device, say
        self._batches: dict[str, list[_Rows]] = {}

    def rates(self, columns: Mapping[str, Column]) -> dict[str, list[float]]:
        """Key -> rows/s of each turn."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            members = {key: self._load(column) for key, column in columns.items()}
            batches = {key: self._batches_of(column.window) for key, column in columns.items()}
            with torch.inference_mode():
                return self._turns(members, batches)
        finally:
            torch.set_num_threads(threads)

    def _turns(
        self, members: Mapping[str, LoadedMember], batches: Mapping[str, Sequence[_Rows]]
    ) -> dict[str, list[float]]:
        rates: dict[str, list[float]] = {key: [] for key in members}
        began = said = time.monotonic()
        total, done = (1 + ROUNDS) * len(members), 0
        for turn in range(1 + ROUNDS):  # in the first, each batch once, nothing is counted
            for key, member in members.items():
                rate = self._rate(member, batches[key], least=SECONDS_A_TURN if turn else 0.0)
                rates[key] += [rate] * (turn > 0)
                done += 1
                if time.monotonic() - said > _SAY_EVERY_SECONDS:
                    said = time.monotonic()
                    self._say(f"speed: {done}/{total} turns  ETA {clock((said - began) / done * (total - done))}")
        return rates

    def _rate(self, member: LoadedMember, batches: Sequence[_Rows], *, least: float) -> float:
        num_rows, began = 0, self._now()
        while True:
            for batch in batches:
                dense_BN = batch.dense_BN if member.facts.dense_features else batch.dense_BN[:, :0]
                member.model(dense_BN, batch.bags)
                num_rows += BATCH_ROWS
            if (passed := self._now() - began) >= least and passed > 0:
                return num_rows / passed

    def _now(self) -> float:
        if self._device == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def _load(self, column: Column) -> LoadedMember:
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder, "member.safetensors"))
            export = MemberExport.of(StoredCheckpoint.open(column.checkpoint), member=column.name)
            export.write(path, advance=lambda _: None)
            loaded = load_member(path)
        return LoadedMember(model=loaded.model.to(self._device), facts=loaded.facts)

    def _batches_of(self, window: str) -> list[_Rows]:
        if window not in self._batches:
            parts = self._results.benchmark.data.windows[window].test
            source = open_scoring_source(Data(root=self._data[window]), parts=parts)
            features = list(source.features.table_rows)
            self._batches[window] = []
            for first in range(0, NUM_BATCHES * BATCH_ROWS, BATCH_ROWS):
                numbers = np.arange(first, first + BATCH_ROWS) % source.num_rows  # few rows come again
                batch = make_batch(source.read(numbers), keys=features, num_rows=BATCH_ROWS, loss_weight=1.0)
                batch = batch.to(torch.device(self._device))
                bags = {name: (batch.sparse[name].values(), batch.sparse[name].offsets()) for name in features}
                self._batches[window].append(_Rows(dense_BN=batch.dense_BN, bags=bags))
        return self._batches[window]
