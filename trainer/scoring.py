"""ScoringJob: every row once, the same number of steps on every rank, whatever the world size.

Rows are cut into ranges by row number, ranges are dealt to the ranks in turn, and a rank that runs
out feeds batches of padding, so that every exchange of embeddings is met. Batches are cut from row
numbers too, so a row's batch is the same at every world size.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from configs.errors import ChorusError
from modules.merge import merge
from trainer.clock import clock
from trainer.data.batch import Rows, make_batch
from trainer.data.source import RowSource
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
    ) -> None:
        self._model = model
        self._source = source
        self._member_names = list(member_names)
        self._rule = rule
        self._batch_size = batch_size
        self._runtime = runtime
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

    @torch.no_grad()
    def run(self, folder: str) -> list[PredictionFile]:
        """Writes this rank's prediction files and gives them. All ranks must call this.

        Raises:
            ChorusError: a logit is not finite; names the member, the part and the row.
        """
        self._model.eval()
        started = said = time.monotonic()
        files: list[PredictionFile] = []
        step = 0
        for piece in self._mine:
            labels, logits = [], []
            for first in range(0, piece.num_rows, self._batch_size):
                count = min(self._batch_size, piece.num_rows - first)
                rows = self._read(piece.source_row + first, count)
                labels.append(rows.labels)
                logits.append(self._logits(rows))
                step += 1
                said = self._say_progress(step, started=started, said=said)
            files.append(self._write(folder, piece, np.concatenate(labels), np.concatenate(logits)))
        for _ in range(step, self._num_steps):
            self._logits(self._read(0, 0))
        return files

    def _read(self, first_row: int, count: int) -> Rows:
        return self._source.read(np.arange(first_row, first_row + count, dtype=np.int64))

    def _logits(self, rows: Rows) -> NDArray[np.float32]:
        """Logits [n, M] of n rows, at most a batch; with no rows it only meets the other ranks."""
        keys = list(self._source.features.table_rows)
        batch = make_batch(rows, keys=keys, num_rows=self._batch_size, loss_weight=1.0)
        _, output = self._model(batch.to(self._runtime.device))
        return output.logits_BM[: len(rows)].cpu().numpy()

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
            labels=labels_N.astype(np.int8),
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
