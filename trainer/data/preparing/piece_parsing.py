"""The first jobs of a preparation: parse pieces of the input, and count their values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from trainer.data.preparing.parsed import BadLine, InputFormat, Layout, no_rows
from trainer.data.preparing.part_writing import rows_of_cut
from trainer.data.preparing.pieces import (
    MISSING,
    PART,
    VALUES,
    Arrays,
    PieceName,
    PieceRecord,
    PieceWriter,
    arrays_of,
    kept_blocks,
    with_ids,
)
from trainer.data.preparing.splits import PieceCut, Split
from trainer.data.preparing.value_counts import Counts, ValueCounter
from trainer.data.preparing.vocabulary import IdsOf, Vocabulary
from trainer.data.preparing.work_pool import Tell

_FEW_LINES = 1_000  # a piece with fewer says little about its file


def dtype_of(layout: Layout) -> type[np.generic]:
    """The type of categorical values."""
    return np.uint32 if layout.value_bits == 32 else np.uint64


class _PieceCounter:
    """Counts all vocabulary features of a piece."""

    def __init__(self, layout: Layout, *, with_places: bool, missing_is_value: bool) -> None:
        self._layout = layout
        self._with_places = with_places
        self._missing_is_value = missing_is_value
        self._features = [ValueCounter(dtype=dtype_of(layout)) for _ in (*layout.ids, *layout.bags)]
        self._num_rows = 0

    def add(self, arrays: Arrays, *, num_rows: int, chosen: NDArray[np.bool_] | slice) -> None:
        """Counts the chosen rows of a block."""
        places = np.arange(self._num_rows, self._num_rows + num_rows)[chosen] if self._with_places else None
        self._num_rows += num_rows
        for column, counter in enumerate(self._features[: len(self._layout.ids)]):
            values, missing = arrays[VALUES][column][chosen], arrays[MISSING][column][chosen]
            if self._missing_is_value or not missing.any():
                counter.add(values, places)
            else:
                counter.add(values[~missing], None if places is None else places[~missing])
        for name, counter in zip(self._layout.bags, self._features[len(self._layout.ids) :], strict=True):
            picked = np.zeros(num_rows, bool)
            picked[chosen] = True
            counter.add(arrays[f"{name}_values"][np.repeat(picked, arrays[f"{name}_lengths"])])

    def counts(self) -> list[Counts]:
        """Of each feature; it gives their memory back one by one."""
        return [counter.counts() for counter in self._features]


@dataclass(frozen=True, kw_only=True)
class ParseJob:
    """Parses one piece of a plain file, or all that is left of a gzip file.

    Args:
        input_format: How the file is read.
        path: The file.
        file: Its number.
        first_piece: Where to begin.
        done: Pieces that are whole already.
        folder: Scratch.
        keep_rows: Whether parsed rows are kept for the next pass, or only counted.
        vocabulary: Where it is known already: values become ids at once.
        counted_parts: Parts of `Layout.parts` whose values are counted, or all rows (None), or none ().
        by_first_row: Whether the order of first occurrence matters; a missing value is then the value 0.
        max_bad_fraction: A piece far above it ends the job at once.
    """

    input_format: InputFormat
    path: str
    file: int
    first_piece: int
    done: frozenset[int]
    folder: str
    keep_rows: bool
    vocabulary: Vocabulary | None
    counted_parts: tuple[int, ...] | None
    by_first_row: bool
    max_bad_fraction: float

    def run(self, tell: Tell) -> tuple[int, int]:
        """Gives (file, pieces of it); each piece's record is written as soon as it is whole."""
        layout = self.input_format.layout
        ids = None if self.vocabulary is None else self.vocabulary.open()
        state: _ParseState | None = None
        last_piece = self.first_piece
        bytes_told = 0
        for piece, bytes_read, block in self.input_format.blocks(
            self.path, first_piece=self.first_piece, done=self.done
        ):
            last_piece = piece
            if piece in self.done or piece < self.first_piece:
                continue
            state = state or _ParseState(self, layout, piece)
            if block is None:
                state.finish()
                state = None
                continue
            num_rows = state.add(block, ids)
            tell(bytes_read - bytes_told, num_rows)
            bytes_told = bytes_read
        return self.file, last_piece + 1


class _ParseState:
    """A piece while it is parsed."""

    def __init__(self, job: ParseJob, layout: Layout, piece: int) -> None:
        self._job = job
        self._layout = layout
        self._writer = PieceWriter(
            folder=job.folder,
            name=PieceName(file=job.file, piece=piece),
            layout=layout,
            keep_rows=job.keep_rows,
            has_ids=job.vocabulary is not None,
        )
        self._counter = None
        if job.vocabulary is None and job.counted_parts != ():
            self._counter = _PieceCounter(layout, with_places=job.by_first_row, missing_is_value=job.by_first_row)

    def add(self, block: Any, ids: Sequence[IdsOf] | None) -> int:
        """Parses a block; gives its rows."""
        rows = no_rows(self._layout, bad=(block.fault,)) if block.fault else self._job.input_format.parse(block)
        assert rows.num_rows + len(rows.bad) == block.num_lines, "a line is neither a row nor bad"
        self._writer.add_bad(rows.bad)
        self._writer.add_texts(rows.texts)
        arrays = arrays_of(rows, self._layout)
        if self._counter is not None:
            chosen: Any = slice(None)
            if self._job.counted_parts is not None:
                chosen = np.isin(arrays[PART], self._job.counted_parts)
            self._counter.add(arrays, num_rows=rows.num_rows, chosen=chosen)
        if ids is not None:
            arrays = with_ids(arrays, self._layout, ids, missing_is_value=self._job.by_first_row)
        self._writer.add(arrays, num_lines=block.num_lines, num_rows=rows.num_rows)
        self._refuse_other_files(rows.bad)
        return rows.num_rows

    def finish(self) -> None:
        """Writes what is left and the record."""
        self._writer.finish(None if self._counter is None else self._counter.counts())

    def _refuse_other_files(self, bad: Sequence[BadLine]) -> None:
        """Hours of reading are not spent on a file of another kind."""
        writer = self._writer
        if (
            bad
            and writer.num_lines >= _FEW_LINES
            and writer.num_bad > max(0.5, self._job.max_bad_fraction) * writer.num_lines
        ):
            raise DataError(
                f"{self._job.path}: {writer.num_bad:,} of {writer.num_lines:,} lines read are no rows, as line"
                f" {bad[0].line + 1} of a block: {bad[0].reason} ({bad[0].detail}); this is not a file of the format"
                " that was given"
            )


@dataclass(frozen=True, kw_only=True)
class CountJob:
    """Counts the values of a kept piece, where only now it is known which of its rows are to be counted."""

    folder: str
    record: PieceRecord
    layout: Layout
    cuts: tuple[PieceCut, ...]  # of the counted parts
    split: Split
    first_row: int  # of the piece over all inputs

    def run(self, tell: Tell) -> PieceRecord:
        """Gives the record with its counts."""
        counter = _PieceCounter(self.layout, with_places=False, missing_is_value=False)
        start = 0
        for num_rows, arrays in kept_blocks(self.folder, self.record, self.layout):
            chosen = np.zeros(num_rows, bool)
            for cut in self.cuts:
                rows = rows_of_cut(cut, self.split, arrays, start=start, first_row=self.first_row, num_rows=num_rows)
                chosen[rows] = True
            counter.add(arrays, num_rows=num_rows, chosen=chosen)
            start += num_rows
            tell(0, num_rows)
        return self.record.counted(self.folder, counter.counts())
