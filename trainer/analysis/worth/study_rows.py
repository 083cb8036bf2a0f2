"""StudyRows: the rows of a prediction folder that a study of members holds in memory, in blocks of neighbours.

A folder of no more rows than asked for is read whole. Of a larger one, blocks of neighbouring rows are taken at even
distances, so that all hours of all parts are there in their shares, and neighbours stay together for the bootstrap.

Legend: N rows, M members, b blocks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.errors import ConfigError, DataError
from modules.merge import MERGED
from trainer.predictions.columns import LABEL, logit_column
from trainer.predictions.reading import Predictions
from trainer.row_progress import RowProgress

LEAST_ROWS = 20
_MOST_BLOCK_ROWS = 4_096
_LEAST_BLOCKS = 200  # fewer give a bootstrap too little to draw from


@dataclass(frozen=True, kw_only=True)
class StudyRows:
    """Labels and predictions of the rows of a study."""

    members: tuple[str, ...]
    parts: tuple[str, ...]
    labels: NDArray[np.int8]  # [N]
    logits: NDArray[np.float32]  # [N, M], a column lies together
    merged_logits: NDArray[np.float32]  # [N], as written
    part: NDArray[np.int32]  # [N], which of `parts`
    columns: Mapping[str, NDArray]  # kept columns that were asked for, [N]
    block_starts: NDArray[np.int64]  # [b], ascending, the first is 0
    num_rows_total: int  # of the folder

    @property
    def num_rows(self) -> int:
        """Rows of the study."""
        return len(self.labels)

    @property
    def is_sample(self) -> bool:
        """Whether the folder has more rows than the study."""
        return self.num_rows < self.num_rows_total

    @property
    def block_rows(self) -> int:
        """Rows of a block; the last may have fewer."""
        return int(self.block_starts[1]) if len(self.block_starts) > 1 else self.num_rows

    def same_members(self) -> list[list[str]]:
        """Members whose logits are equal bit for bit in every row of the study, in groups of two or more."""
        groups: dict[bytes, list[str]] = {}
        for index, name in enumerate(self.members):
            column = np.ascontiguousarray(self.logits[:, index])
            groups.setdefault(hashlib.sha256(column.data).digest(), []).append(name)
        return [group for group in groups.values() if len(group) > 1]

    def block_of_rows(self) -> NDArray[np.int64]:
        """Which block each row is in, [N]."""
        return np.repeat(np.arange(len(self.block_starts)), np.diff(self.block_starts, append=self.num_rows))

    def by_block(self, values: NDArray) -> NDArray:
        """Sums of values [N, ...] over each block, [b, ...], in float64."""
        return np.add.reduceat(values, self.block_starts, axis=0, dtype=np.float64)

    def stretches(self, *, most_rows: int = 32_768) -> Iterator[tuple[slice, slice]]:
        """Cuts the rows into stretches of whole blocks: (rows, blocks)."""
        blocks = max(1, most_rows // self.block_rows)
        ends = np.append(self.block_starts, self.num_rows)
        for first in range(0, len(self.block_starts), blocks):
            last = min(first + blocks, len(self.block_starts))
            yield slice(int(ends[first]), int(ends[last])), slice(first, last)


def read_study_rows(predictions: Predictions, *, max_rows: int, columns: Sequence[str] = ()) -> StudyRows:
    """Reads labels, logits of members and merged, and kept columns of up to `max_rows` rows; progress goes to stderr.

    Raises:
        ConfigError: `max_rows` is too few.
        DataError: a file that was changed, rows without labels, of one class only, too few, a kept column that is not
            there or holds fractions, or a logit that is not a number.
    """
    if max_rows < LEAST_ROWS:
        raise ConfigError(f"--max-rows: {max_rows} is too few; give {LEAST_ROWS} or more")
    total = predictions.num_rows
    if total < LEAST_ROWS:
        raise DataError(f"{predictions.folder!r} has {total} rows; a report on members needs {LEAST_ROWS} or more")
    if not predictions.has_labels:
        raise DataError(f"{predictions.folder!r} has rows without a label, and worth needs labels; score labelled rows")
    absent = [name for name in columns if name not in predictions.manifest.kept]
    if absent:
        there = ", ".join(predictions.manifest.kept) or "none"
        raise DataError(
            f"{predictions.folder!r} kept no column {absent[0]!r} (kept: {there}); score again with it in score.keep"
        )
    predictions.check_bytes(advance=RowProgress("checking", total).add)
    num_rows = min(total, max_rows)
    block_rows = min(_MOST_BLOCK_ROWS, max(1, num_rows // _LEAST_BLOCKS))
    if num_rows == total:
        wanted = np.array([[0, total]])
        starts = np.arange(0, total, block_rows)
    else:
        num_blocks = num_rows // block_rows
        first = np.arange(num_blocks) * total // num_blocks
        wanted = np.stack([first, first + block_rows], axis=1)
        starts = np.arange(num_blocks) * block_rows
    return _checked(predictions.folder, _read(predictions, wanted, starts=starts, columns=tuple(columns)))


def _read(
    predictions: Predictions, wanted: NDArray[np.int64], *, starts: NDArray[np.int64], columns: tuple[str, ...]
) -> StudyRows:
    members, parts = predictions.members, tuple(predictions.manifest.parts)
    num_rows = int((wanted[:, 1] - wanted[:, 0]).sum())
    labels, merged_logits = np.empty(num_rows, np.int8), np.empty(num_rows, np.float32)
    logits = np.empty((num_rows, len(members)), np.float32, order="F")
    part = np.empty(num_rows, np.int32)
    found: dict[str, list[NDArray]] = {name: [] for name in columns}
    names = [LABEL, *map(logit_column, (*members, MERGED)), *columns]
    progress, done, before = RowProgress("reading", predictions.num_rows), 0, 0
    for file in predictions.files:
        inside = np.clip(wanted, before, before + file.num_rows) - before
        inside = inside[inside[:, 1] > inside[:, 0]]
        if len(inside):
            chunk = predictions.read(file, names)
            rows = np.concatenate([np.arange(first, stop) for first, stop in inside])
            here = slice(done, done + len(rows))
            labels[here], merged_logits[here] = chunk[LABEL][rows], chunk[logit_column(MERGED)][rows]
            for index, member in enumerate(members):
                logits[here, index] = chunk[logit_column(member)][rows]
            part[here] = parts.index(file.part)
            for name in columns:
                found[name].append(chunk[name][rows])
            done += len(rows)
        before += file.num_rows
        progress.add(file.num_rows)
    return StudyRows(
        members=members,
        parts=parts,
        labels=labels,
        logits=logits,
        merged_logits=merged_logits,
        part=part,
        columns={name: _sliceable(np.concatenate(pieces), name) for name, pieces in found.items()},
        block_starts=starts,
        num_rows_total=predictions.num_rows,
    )


def _sliceable(values: NDArray, name: str) -> NDArray:
    """Whole numbers that came as floats, since some are missing, as texts."""
    if values.dtype.kind != "f":
        return values
    known = np.isfinite(values)
    if np.any(np.isinf(values)) or np.any(values[known] != np.round(values[known])):
        raise DataError(
            f"column {name!r}: holds numbers with fractions, and only integers or texts can be sliced or grouped; name"
            " another column"
        )
    texts = np.full(len(values), None, dtype=object)
    texts[known] = values[known].astype(np.int64).astype(str)
    return texts


def _checked(folder: str, rows: StudyRows) -> StudyRows:
    for name, values in [*zip(rows.members, rows.logits.T, strict=True), (MERGED, rows.merged_logits)]:
        if not np.isfinite(values).all():
            raise DataError(f"{folder!r}: {name} holds values that are not finite numbers; score again")
    num_positives = int(rows.labels.sum())
    if min(num_positives, rows.num_rows - num_positives) < 2:
        raise DataError(
            f"{folder!r}: {num_positives} of the {rows.num_rows} rows studied are positive; a report needs two of each"
            " class, so score more rows, or raise --max-rows"
        )
    return rows
