"""The last jobs of a preparation: write the rows of parsed pieces into the parts' files, and seal these.

Rows go straight to their places, so any process may write any piece in any order, and write it again after a crash.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from trainer import storage
from trainer.data.manifest import DENSE_FILE, LABEL_FILE, SPARSE_FILE
from trainer.data.preparing.parsed import InputFormat, Layout, no_rows
from trainer.data.preparing.pieces import PART, WRITTEN, Arrays, PieceRecord, arrays_of, kept_blocks, with_ids
from trainer.data.preparing.splits import PieceCut, Split
from trainer.data.preparing.vocabulary import Vocabulary
from trainer.data.preparing.work_pool import Tell


def rows_of_cut(
    cut: PieceCut, split: Split, arrays: Mapping[str, NDArray], *, start: int, first_row: int, num_rows: int
) -> Any:
    """Which rows of a block (`start`: its first row in the piece) a cut takes: a slice or a mask."""
    if not cut.scattered:
        return slice(min(max(cut.start - start, 0), num_rows), min(max(cut.start + cut.num_rows - start, 0), num_rows))
    if split.kind == "column":
        return arrays[PART] == cut.part
    return split.members(first_row + start, num_rows) == cut.part


_EXPANDED_ROWS = 1 << 14


def write_npy_header(file: IO[bytes], *, shape: tuple[int, ...], dtype: str) -> None:
    """Begins an npy file in C order."""
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})


@dataclass(frozen=True, kw_only=True)
class OutputFile:
    """An npy file of a part, whose header is written; rows go anywhere in it."""

    path: str
    header_bytes: int
    row_bytes: int

    def put(self, array: NDArray, *, first_row: int) -> None:
        """Writes rows at their place."""
        if not array.size:
            return
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data  # a memoryview of texts cannot be cast
        offset = self.header_bytes + first_row * self.row_bytes
        descriptor = os.open(self.path, os.O_WRONLY)
        try:
            with storage.naming(self.path):
                while data:
                    written = os.pwrite(descriptor, data, offset)
                    data, offset = data[written:], offset + written
        finally:
            os.close(descriptor)


@dataclass(frozen=True, kw_only=True)
class PieceToWrite:
    """A parsed piece and where its rows go.

    Args:
        record: The piece.
        first_row: Of the piece, over all inputs.
        cuts: What goes where.
        bag_starts: For each cut and bag, where its values begin in the part's.
        dense_offset: Added to raw numbers before their logarithm; None: they are transformed.
        round_to_float32: Whether ids pass through float32.
    """

    record: PieceRecord
    first_row: int
    cuts: tuple[PieceCut, ...]
    bag_starts: tuple[tuple[int, ...], ...]
    dense_offset: int | None = None
    round_to_float32: bool = False


@dataclass(frozen=True, kw_only=True)
class WriteJob:
    """Writes the rows of some pieces of one file into the parts they belong to.

    Args:
        input_format: How the file is read.
        path: The file, parsed anew where rows were not kept.
        pieces: In order.
        split: The rule.
        folder: Scratch.
        vocabulary: How values become ids, where they are not ids already.
        files: Part -> role -> file.
        missing_is_value: As MLPerf's reference has it.
    """

    input_format: InputFormat
    path: str
    pieces: tuple[PieceToWrite, ...]
    split: Split
    folder: str
    vocabulary: Vocabulary | None
    files: Mapping[int, Mapping[str, OutputFile]]
    missing_is_value: bool
    rows_kept: bool

    def run(self, tell: Tell) -> None:
        """Each piece's mark, with the sum of labels that went into each part, is written once its rows are there.

        Raises:
            DataError: the file changed since it was parsed.
        """
        layout = self.input_format.layout
        ids = None if self.vocabulary is None else self.vocabulary.open()
        blocks = self._kept(layout) if self.rows_kept else self._parsed_again(layout)
        for piece, written in blocks:
            writing = _Writing(self, piece, layout)
            for num_bytes, num_rows, arrays in written:
                if ids is not None:
                    arrays = with_ids(arrays, layout, ids, missing_is_value=self.missing_is_value)
                writing.add(arrays, num_rows=num_rows)
                tell(num_bytes, num_rows)
            writing.finish(self.path)
            piece.record.remove_rows(self.folder)

    def _kept(self, layout: Layout) -> Iterator[tuple[PieceToWrite, Iterator[tuple[int, int, Arrays]]]]:
        for piece in self.pieces:
            kept = kept_blocks(self.folder, piece.record, layout)
            yield piece, ((0, num_rows, arrays) for num_rows, arrays in kept)

    def _parsed_again(self, layout: Layout) -> Iterator[tuple[PieceToWrite, Iterator[tuple[int, int, Arrays]]]]:
        by_number = {piece.record.name.piece: piece for piece in self.pieces}
        first, last = min(by_number), max(by_number)
        others = frozenset(number for number in range(last) if number not in by_number)
        blocks = self.input_format.blocks(self.path, first_piece=first, done=others)
        bytes_told = 0

        def of_piece() -> Iterator[tuple[int, int, Arrays]]:
            nonlocal bytes_told
            for _, bytes_read, block in blocks:
                if block is None:
                    return
                rows = no_rows(layout) if block.fault else self.input_format.parse(block)
                yield bytes_read - bytes_told, rows.num_rows, arrays_of(rows, layout)
                bytes_told = bytes_read

        number = first
        while number <= last:
            if number in by_number:
                yield by_number[number], of_piece()
            else:
                next((None for _, _, block in blocks if block is None), None)
            number += 1


class _Writing:
    """A piece while its rows are written."""

    def __init__(self, job: WriteJob, piece: PieceToWrite, layout: Layout) -> None:
        self._job = job
        self._piece = piece
        self._layout = layout
        self._num_rows = 0
        self._written = [0] * len(piece.cuts)
        self._bag_ends = [list(starts) for starts in piece.bag_starts]
        self._label_sums = {cut.part: 0 for cut in piece.cuts}

    def add(self, arrays: Arrays, *, num_rows: int) -> None:
        """Writes a block's rows."""
        piece = self._piece
        arrays = self._finished(arrays)
        for place, cut in enumerate(piece.cuts):
            chosen = rows_of_cut(
                cut,
                self._job.split,
                arrays,
                start=self._num_rows,
                first_row=piece.first_row,
                num_rows=num_rows,
            )
            taken = np.zeros(num_rows, bool)
            taken[chosen] = True
            files = self._job.files[cut.part]
            first_row = cut.first_row + self._written[place]
            self._put_bags(arrays, files, taken, first_row=first_row, ends=self._bag_ends[place])
            for role, file in files.items():
                if role in arrays and not role.endswith("_values"):
                    file.put(arrays[role][chosen], first_row=first_row)
            if LABEL_FILE in arrays:
                self._label_sums[cut.part] += int(arrays[LABEL_FILE][chosen].sum())
            self._written[place] += int(taken.sum())
        self._num_rows += num_rows

    def finish(self, path: str) -> None:
        """Writes the mark."""
        whole = self._num_rows == self._piece.record.num_rows
        if not whole or self._written != [cut.num_rows for cut in self._piece.cuts]:
            raise DataError(f"{path}: its lines changed while they were read; run again when it is whole")
        sums = {str(part): total for part, total in self._label_sums.items()}
        storage.write_json(self._piece.record.name.path(self._job.folder, WRITTEN), sums, durable=False)

    def _finished(self, arrays: Arrays) -> Arrays:
        changed = dict(arrays)
        if self._piece.dense_offset is not None:
            changed[DENSE_FILE] = self._logarithms(arrays[DENSE_FILE], self._piece.dense_offset)
        if self._piece.round_to_float32:
            changed[SPARSE_FILE] = changed[SPARSE_FILE].astype(np.float32).astype(np.int64)
        vocabulary = self._job.vocabulary
        if vocabulary is not None and vocabulary.modulo:
            changed[SPARSE_FILE] = (changed[SPARSE_FILE] % np.array(vocabulary.rows)).astype(np.int32)
        return changed

    def _logarithms(self, raw: NDArray, offset: int) -> NDArray[np.float32]:
        """Of raw numbers [N, D] and the offset, in the reference's order of steps and types, so that its bits come out.

        Raises:
            DataError: a sum is beyond 32 bits, of which the reference would make nonsense in silence.
        """
        if raw.size and int(raw.max()) + offset >= 2**31:
            raise DataError(
                f"{self._job.path}: a number is {int(raw.max()):,}, and {offset:,} more, the logarithm's offset in this"
                " file, is beyond the 32 bits of MLPerf's reference; prepare it without --mlperf"
            )
        return np.log(raw + np.int32(offset), dtype=np.float32)

    def _put_bags(
        self,
        arrays: Arrays,
        files: Mapping[str, OutputFile],
        taken: NDArray[np.bool_],
        *,
        first_row: int,
        ends: list[int],
    ) -> None:
        for index, name in enumerate(self._layout.bags):
            lengths = arrays[f"{name}_lengths"]
            values = arrays[f"{name}_values"][np.repeat(taken, lengths)]
            kept = lengths[taken].astype(np.int64)
            files[f"{name}_values"].put(values, first_row=ends[index])
            files[f"{name}_offsets"].put(np.cumsum(kept) - kept + ends[index], first_row=first_row)
            ends[index] += int(kept.sum())


@dataclass(frozen=True, kw_only=True)
class ExpandJob:
    """Writes out the bags of one feature of a part, int32 [N, bag size].

    Args:
        sparse: The part's first ids.
        column: The feature's there.
        feature: Its name.
        bag_size: Of every bag.
        table_rows: Of its table.
        output: The file.
        mark: Written once it is whole.
    """

    sparse: str
    column: int
    feature: str
    bag_size: int
    table_rows: int
    output: str
    mark: str

    def run(self, tell: Tell) -> None:
        """Writes the file, then the mark."""
        from trainer.data.reading.bags import BagExpander  # brings torch along, which nothing else here needs

        expander = BagExpander(feature=self.feature, bag_size=self.bag_size, table_rows=self.table_rows)
        sparse = np.load(self.sparse, mmap_mode="r")
        with storage.naming(self.output), storage.open_file(self.output, "wb") as file:
            write_npy_header(file, shape=(len(sparse), self.bag_size), dtype="<i4")
            for start in range(0, len(sparse), _EXPANDED_ROWS):
                first_ids = np.ascontiguousarray(sparse[start : start + _EXPANDED_ROWS, self.column])
                bags = np.empty((len(first_ids), self.bag_size), np.int32)
                expander.expand(first_ids, bags)
                file.write(bags.data)
                tell(0, len(first_ids))
        storage.write_json(self.mark, {}, durable=False)


@dataclass(frozen=True, kw_only=True)
class SealJob:
    """Brings a finished file to the disk and hashes it."""

    path: str

    def run(self, tell: Tell) -> tuple[str, int, str]:
        """Gives (path, bytes, sha256)."""
        storage.flush(self.path)
        size = storage.num_bytes(self.path)
        found = storage.sha256(self.path)
        tell(size, 0)
        return self.path, size, found
