"""ScoringJob: every row once, the same number of steps on every rank, whatever the world size.

Rows are cut into ranges by row number, ranges are dealt to the ranks in turn, and a rank that runs
out feeds batches of padding, so that every exchange of embeddings is met. Batches are cut from row
numbers too, so a row's batch is the same at every world size.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from configs.errors import ChorusError
from modules.merge import merge
from trainer.clock import clock
from trainer.data.reading.batch import Batch, make_batch
from trainer.data.reading.prefetch import prefetched
from trainer.data.reading.source import RowSource
from trainer.prediction_files import PredictionFile, write_range
from trainer.runtime import Runtime

_SAY_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class RowRange:
    """Rows [first_row, first_row + num_rows) of a part; one prediction file."""

    part: str
    first_row: int
    num_rows: int
    source_row: int  # number of its first row in the source


def cut_ranges(source: RowSource, *, range_rows: int) -> list[RowRange]:
    """All rows of the source, cut part by part into ranges of `range_rows`; the last of a part may be shorter."""
    ranges, before = [], 0
    for part in source.parts:
        for first in range(0, part.num_rows, range_rows):
            count = min(range_rows, part.num_rows - first)
            ranges.append(RowRange(part=part.name, first_row=first, num_rows=count, source_row=before + first))
        before += part.num_rows
    return ranges


@dataclass(frozen=True)
class _Step:
    """A batch, and what it is of."""

    piece: RowRange | None  # None: padding that only meets the other ranks
    num_rows: int
    labels: NDArray[np.float32]
    batch: Batch

    def pin_memory(self) -> _Step:
        """With the batch in page-locked memory."""
        return replace(self, batch=self.batch.pin_memory())


class ScoringJob:
    """Scores a source with a sharded model.

    Args:
        model: The sharded task.
        source: The rows.
        member_names: In the order of the logits.
        rule: The merge rule.
        batch_size: Rows a step and rank.
        range_rows: Rows of a prediction file.
        runtime: This process.
        prefetch_batches: Batches made ahead in a thread.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        source: RowSource,
        member_names: Sequence[str],
        rule: str,
        batch_size: int,
        range_rows: int,
        runtime: Runtime,
        prefetch_batches: int = 0,
    ) -> None:
        self._model = model
        self._source = source
        self._member_names = list(member_names)
        self._rule = rule
        self._batch_size = batch_size
        self._runtime = runtime
        self._prefetch_batches = prefetch_batches
        ranges = cut_ranges(source, range_rows=range_rows)
        self._mine = ranges[runtime.rank :: runtime.world_size]
        dealt = [ranges[rank :: runtime.world_size] for rank in range(runtime.world_size)]
        self._num_steps = max(sum(-(-r.num_rows // batch_size) for r in share) for share in dealt)

    @property
    def num_rows(self) -> int:
        """Rows to score."""
        return self._source.num_rows

    @property
    def expected(self) -> dict[str, int]:
        """Part -> rows to score."""
        return {part.name: part.num_rows for part in self._source.parts}

    @property
    def unlabelled(self) -> tuple[str, ...]:
        """Names of the parts without labels, for which there are no figures."""
        return tuple(part.name for part in self._source.parts if not part.has_labels)

    @torch.no_grad()
    def run(self, folder: str) -> list[PredictionFile]:
        """Writes this rank's prediction files and gives them. All ranks must call this.

        Raises:
            ChorusError: a logit is not finite; names the member, the part and the row.
        """
        self._model.eval()
        device = self._runtime.device
        started = said = time.monotonic()
        files: list[PredictionFile] = []
        logits: list[NDArray[np.float32]] = []
        labels: list[NDArray[np.float32]] = []
        with prefetched(self._steps(), ahead=self._prefetch_batches, device=device) as steps:
            for number, step in enumerate(steps, start=1):
                self._runtime.beat(f"batch {number}")
                _, output = self._model(step.batch.to(device, non_blocking=True))
                if step.piece is None:
                    continue
                logits.append(output.logits_BM[: step.num_rows].cpu().numpy())
                labels.append(step.labels)
                if sum(map(len, logits)) == step.piece.num_rows:
                    files.append(self._write(folder, step.piece, np.concatenate(labels), np.concatenate(logits)))
                    logits, labels = [], []
                said = self._say_progress(number, started=started, said=said)
        return files

    def _steps(self) -> Generator[_Step]:
        """What this rank feeds: its ranges batch by batch, then padding until all ranks are through."""
        keys = list(self._source.features.table_rows)
        num_steps = 0
        for index, piece in enumerate(self._mine):
            for coming in self._mine[index : index + 2]:
                self._source.fetch(range(coming.source_row, coming.source_row + coming.num_rows))
            for first in range(0, piece.num_rows, self._batch_size):
                start = piece.source_row + first
                stop = piece.source_row + min(first + self._batch_size, piece.num_rows)
                rows = self._source.read(range(start, stop))
                batch = make_batch(rows, keys=keys, num_rows=self._batch_size, loss_weight=1.0)
                yield _Step(piece, len(rows), rows.labels, batch)
                num_steps += 1
        nothing = self._source.read(range(0))
        for _ in range(num_steps, self._num_steps):
            yield _Step(
                None, 0, nothing.labels, make_batch(nothing, keys=keys, num_rows=self._batch_size, loss_weight=1.0)
            )

    def _write(
        self, folder: str, piece: RowRange, labels_N: NDArray[np.float32], logits_NM: NDArray[np.float32]
    ) -> PredictionFile:
        bad = np.argwhere(~np.isfinite(logits_NM))
        if len(bad):
            row, member = bad[0]
            raise ChorusError(
                f"member {self._member_names[member]}: logit {logits_NM[row, member]} at row {piece.first_row + row}"
                f" of {piece.part}; the checkpoint's weights are not finite, take an earlier one"
            )
        merged = merge(torch.from_numpy(logits_NM).double(), rule=self._rule)
        return write_range(
            folder,
            part=piece.part,
            first_row=piece.first_row,
            labels=None if np.isnan(labels_N).any() else labels_N.astype(np.int8),
            logits={name: logits_NM[:, index] for index, name in enumerate(self._member_names)},
            merged=merged.float().numpy(),
        )

    def _say_progress(self, step: int, *, started: float, said: float) -> float:
        now = time.monotonic()
        if now - said < _SAY_SECONDS:
            return said
        rows = self.num_rows * step // self._num_steps
        left = (now - started) / step * (self._num_steps - step)
        self._runtime.say(
            f"scored about {rows:,} of {self.num_rows:,} rows  {rows / (now - started):,.0f} rows/s  ETA {clock(left)}"
        )
        return now
