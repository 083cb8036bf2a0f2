"""ScoringJob: every row once, the same number of steps on every rank, whatever the world size.

Rows are cut into ranges by row number, ranges are dealt to the ranks in turn, and a rank that runs
out feeds batches of padding, so that every exchange of embeddings is met. Batches are cut from row
numbers too, so a row's batch is the same at every world size. A range that is done already is still
dealt, and left out: a job that goes on gives each range to the rank that had it before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainer.clock import clock
from trainer.data.reading.batch import Batch, Rows, make_batch
from trainer.data.reading.prefetch import prefetched
from trainer.data.reading.source import RowSource
from trainer.predictions.range_files import ScoredRange
from trainer.predictions.row_ranges import RowRange
from trainer.runtime import Runtime

_SAY_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class ScoringWork:
    """What is to be scored, and how it is cut."""

    source: RowSource
    ranges: Sequence[RowRange]  # all, in order
    batch_size: int  # rows a step and rank
    done: Collection[str] = ()  # names of ranges that are there already
    prefetch_batches: int = 0  # made ahead in a thread

    @property
    def num_rows(self) -> int:
        """Rows of the ranges that are not done."""
        return sum(rows.num_rows for rows in self.ranges if rows.name not in self.done)

    def share(self, rank: int, world_size: int) -> list[RowRange]:
        """What a rank has to do."""
        return [rows for rows in self.ranges[rank::world_size] if rows.name not in self.done]

    def num_steps(self, world_size: int) -> int:
        """Steps that each rank takes."""
        steps = [
            sum(-(-rows.num_rows // self.batch_size) for rows in self.share(rank, world_size))
            for rank in range(world_size)
        ]
        return max(steps)


@dataclass(frozen=True)
class _Step:
    """A batch, and what it is of."""

    piece: RowRange | None  # None: padding that only meets the other ranks
    labels: NDArray[np.float32]
    row: NDArray[np.int64]
    batch: Batch

    def pin_memory(self) -> _Step:
        """With the batch in page-locked memory."""
        return replace(self, batch=self.batch.pin_memory())


class _Gathered:
    """The steps of a range, until it is whole. On a GPU nothing here waits for it."""

    def __init__(self, piece: RowRange, *, num_members: int, device: torch.device) -> None:
        self._piece = piece
        self._is_gpu = device.type == "cuda"
        self._logits_NM = torch.empty((piece.num_rows, num_members), dtype=torch.float32, pin_memory=self._is_gpu)
        self._labels: list[NDArray[np.float32]] = []
        self._row: list[NDArray[np.int64]] = []
        self._num_rows = 0

    def add(self, step: _Step, logits_BM: Tensor) -> None:
        """Takes a step's rows."""
        stop = self._num_rows + len(step.row)
        self._logits_NM[self._num_rows : stop].copy_(logits_BM[: len(step.row)], non_blocking=True)
        self._labels.append(step.labels)
        self._row.append(step.row)
        self._num_rows = stop

    def whole(self) -> ScoredRange | None:
        """The range, once all of its rows are there."""
        if self._num_rows < self._piece.num_rows:
            return None
        copied = None
        if self._is_gpu:
            copied = torch.cuda.Event()
            copied.record()
        return ScoredRange(
            rows=self._piece,
            row_N=np.concatenate(self._row),
            labels_N=np.concatenate(self._labels),
            logits_NM=self._logits_NM,
            copied=copied,
        )


class ScoringJob:
    """Scores with one model, or with several in one pass over the rows.

    Args:
        models: Each gives (loss, EnsembleOutput) of a batch; their logits lie side by side, in this order.
        work: What is to be scored.
        runtime: This process.
    """

    def __init__(self, *, models: Sequence[nn.Module], work: ScoringWork, runtime: Runtime) -> None:
        self._models = list(models)
        self._work = work
        self._runtime = runtime
        self._num_steps = work.num_steps(runtime.world_size)

    @property
    def num_rows(self) -> int:
        """Rows that all ranks have to score."""
        return self._work.num_rows

    @torch.no_grad()
    def run(self, put: Callable[[ScoredRange], None]) -> None:
        """Hands over this rank's ranges, one after the other. All ranks must call this.

        Args:
            put: Takes a range; on a GPU its logits are still on their way.
        """
        for model in self._models:
            model.eval()
        device = self._runtime.device
        started = said = time.monotonic()
        gathered: _Gathered | None = None
        with prefetched(self._steps(), ahead=self._work.prefetch_batches, device=device) as steps:
            for number, step in enumerate(steps, start=1):
                self._runtime.beat(f"batch {number}")
                logits_BM = self._logits(step.batch.to(device, non_blocking=True))
                if step.piece is not None:
                    if gathered is None:
                        gathered = _Gathered(step.piece, num_members=logits_BM.shape[1], device=device)
                    gathered.add(step, logits_BM)
                    whole = gathered.whole()
                    if whole is not None:
                        put(whole)
                        gathered = None
                said = self._say_progress(number, started=started, said=said)

    def _logits(self, batch: Batch) -> Tensor:
        logits = [model(batch)[1].logits_BM for model in self._models]
        return logits[0] if len(logits) == 1 else torch.cat(logits, dim=1)

    def _steps(self) -> Generator[_Step]:
        """What this rank feeds: its ranges batch by batch, then padding until all ranks are through."""
        source, batch_size = self._work.source, self._work.batch_size
        mine = self._work.share(self._runtime.rank, self._runtime.world_size)
        num_steps = 0
        for index, piece in enumerate(mine):
            for coming in mine[index : index + 2]:
                source.fetch(coming.source_rows)
            for first in range(0, piece.num_rows, batch_size):
                rows = source.read(piece.source_rows[first : first + batch_size])
                assert {source.parts[part].name for part in np.unique(rows.part)} == {piece.part}
                yield self._step(piece, rows)
                num_steps += 1
        nothing = source.read(range(0))
        for _ in range(num_steps, self._num_steps):
            yield self._step(None, nothing)

    def _step(self, piece: RowRange | None, rows: Rows) -> _Step:
        keys = list(self._work.source.features.table_rows)
        batch = make_batch(rows, keys=keys, num_rows=self._work.batch_size, loss_weight=1.0)
        return _Step(piece, rows.labels, rows.row, batch)

    def _say_progress(self, step: int, *, started: float, said: float) -> float:
        now = time.monotonic()
        if now - said < _SAY_SECONDS:
            return said
        num_rows = self._work.num_rows
        rows = num_rows * step // self._num_steps
        left = (now - started) / step * (self._num_steps - step)
        self._runtime.say(
            f"scored about {rows:,} of {num_rows:,} rows  {rows / (now - started):,.0f} rows/s  ETA {clock(left)}"
        )
        return now
