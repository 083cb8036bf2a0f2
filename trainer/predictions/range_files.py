"""Range files: a scored range becomes a Parquet file, and then a record that says that it is whole.

Shapes: N rows of the range, M members.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from torch import Tensor

from configs.errors import ChorusError
from configs.score_schema import ScoreType
from modules.merge import MergeRule
from trainer import storage
from trainer.predictions.columns import LABEL, PART, ROW, logit_column, probability_column
from trainer.predictions.manifest import PredictionFile
from trainer.predictions.merged_columns import merged_columns
from trainer.predictions.row_hash import hash_range, hash_rows
from trainer.predictions.row_ranges import RowRange

RECORDS_FOLDER = "unfinished"
_LARGEST_HALF = float(np.finfo(np.float16).max)


class CopyEvent(Protocol):
    """What a copy from a GPU ends with, as torch.cuda.Event."""

    def synchronize(self) -> None:
        """Returns once the copy is done."""


@dataclass(frozen=True, kw_only=True)
class ScoredRange:
    """A range with its logits, as they come from the model."""

    rows: RowRange
    row_N: NDArray[np.int64]  # as the source numbered the rows that were scored
    labels_N: NDArray[np.float32]  # NaN where the log has none
    logits_NM: Tensor  # float32, in host memory
    copied: CopyEvent | None = None  # until then the logits are still on their way from a GPU


class KeptColumns(Protocol):
    """Where columns that pass through come from."""

    def kept(self, names: Sequence[str], rows: range) -> Mapping[str, NDArray]:
        """The columns [N] of these rows, by name."""
        ...


@dataclass(frozen=True, kw_only=True)
class RangeFormat:
    """What a range's file holds."""

    members: tuple[str, ...]
    merge: MergeRule
    dtype: ScoreType = "float32"
    probabilities: bool = False
    keep: tuple[str, ...] = ()


class RangeFiles:
    """Writes the files of a prediction folder that is not finished yet.

    Args:
        folder: The folder; its folder of records is there.
        form: What the files hold.
        source: Gives the columns that pass through; None where there are none.
    """

    def __init__(self, folder: str, *, form: RangeFormat, source: KeptColumns | None = None) -> None:
        assert source is not None or not form.keep
        self._folder = folder
        self._form = form
        self._source = source
        self._places = [form.members.index(name) for name in form.merge.members]

    def write(self, scored: ScoredRange) -> PredictionFile:
        """Writes the file, and after it the record.

        Raises:
            ChorusError: a logit is not finite, or too large for the type; names the member or the merge rule, the part
                and the row.
        """
        if scored.copied is not None:
            scored.copied.synchronize()
        rows = scored.rows
        content = self._parquet(scored)
        path = f"{rows.name}.parquet"
        storage.write_bytes(storage.join(self._folder, path), content)
        labels = _labels(scored.labels_N)
        file = PredictionFile(
            path=path,
            part=rows.part,
            first_row=rows.first_row,
            num_rows=rows.num_rows,
            label_sum=None if labels is None else int(labels.sum()),
            row_hash=f"{hash_rows(rows.part, scored.row_N):016x}",
            num_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        # The file is on the disk by now. A record that a power cut takes costs this range another scoring.
        storage.write_json(record_path(self._folder, rows), asdict(file), durable=False)
        return file

    def _parquet(self, scored: ScoredRange) -> bytes:
        logits_NM = scored.logits_NM.numpy()
        self._refuse_bad(logits_NM, scored.rows)
        count, form = len(logits_NM), self._form
        labels = _labels(scored.labels_N)
        kept = self._source.kept(form.keep, scored.rows.source_rows) if form.keep and self._source is not None else {}
        columns: dict[str, Any] = {
            PART: pa.array([scored.rows.part] * count, type=pa.string()).dictionary_encode(),
            ROW: scored.row_N,
            LABEL: pa.nulls(count, pa.int8()) if labels is None else labels,
            **{name: text_column(kept[name]) for name in form.keep},
        }
        for index, name in enumerate(form.members):
            columns[logit_column(name)] = logits_NM[:, index].astype(form.dtype)
        if form.probabilities:
            for index, name in enumerate(form.members):
                columns[probability_column(name)] = scored.logits_NM[:, index].double().sigmoid().float().numpy()
        columns |= merged_columns(
            form.merge,
            scored.logits_NM[:, self._places].double(),
            part=scored.rows.part,
            first_row=scored.rows.first_row,
        )
        return encode(columns, repetitive=(PART, LABEL, *form.keep))

    def _refuse_bad(self, logits_NM: NDArray[np.float32], rows: RowRange) -> None:
        largest = _LARGEST_HALF if self._form.dtype == "float16" else float(np.finfo(np.float32).max)
        # Two numbers of a column tell: a NaN is both, and no array of as many flags is made.
        if -largest <= logits_NM.min() and logits_NM.max() <= largest:
            return
        row, index = np.argwhere(~(np.abs(logits_NM) <= largest))[0]
        value = logits_NM[row, index]
        what = f"member {self._form.members[index]}: logit {value} at row {rows.first_row + row} of {rows.part}"
        if np.isfinite(value):
            raise ChorusError(f"{what} is beyond float16, which ends at {largest:g}; take score.dtype = 'float32'")
        raise ChorusError(f"{what}; the checkpoint's weights are not finite, take an earlier one")


def encode(columns: Mapping[str, Any], *, repetitive: Sequence[str]) -> bytes:
    """Columns as the bytes of a Parquet file.

    Args:
        columns: By name, in order; `row` is among them.
        repetitive: Columns of few different values.
    """
    sink = pa.BufferOutputStream()
    # Logits hardly repeat: their dictionaries took 65 % more room and ten times as long. Snappy takes 10 % more room
    # than zstd, half its time to write and half its time to read.
    pq.write_table(
        pa.table(dict(columns)),
        sink,
        compression="snappy",
        use_dictionary=[name for name in repetitive if name in columns],
        column_encoding={ROW: "DELTA_BINARY_PACKED"},
    )
    return bytes(sink.getvalue().to_pybytes())


def record_path(folder: str, rows: RowRange) -> str:
    """Where the record of a range lies."""
    return storage.join(folder, RECORDS_FOLDER, f"{rows.name}.json")


def read_record(folder: str, rows: RowRange) -> PredictionFile | None:
    """The record of a range; None where it is cut off, or not of this range."""
    try:
        file = PredictionFile(**json.loads(storage.read_text(record_path(folder, rows))))
    except (ValueError, TypeError, FileNotFoundError):
        return None
    wanted = (f"{rows.name}.parquet", rows.part, rows.first_row, rows.num_rows)
    return file if (file.path, file.part, file.first_row, file.num_rows) == wanted else None


def holds(folder: str, file: PredictionFile, *, beat: Callable[[str], None]) -> bool:
    """Whether a range's file has the bytes, rows and labels that its record says, and these rows are its own."""
    path = storage.join(folder, file.path)
    try:
        if storage.num_bytes(path) != file.num_bytes:
            return False
        with storage.open_file(path, "rb") as source:
            content = source.read()
        beat(f"comparing {file.path}")
        if hashlib.sha256(content).hexdigest() != file.sha256:
            return False
        labels = pq.read_table(pa.BufferReader(content), columns=[LABEL]).column(LABEL)
    except (OSError, ValueError):  # pyarrow's errors are among them
        return False
    beat(f"hashing the rows of {file.path}")
    row_hash = f"{hash_range(file.part, first_row=file.first_row, num_rows=file.num_rows):016x}"
    label_sum = None if labels.null_count else int(labels.to_numpy().sum(dtype=np.int64))
    return (len(labels), row_hash, label_sum) == (file.num_rows, file.row_hash, file.label_sum)


def text_column(values: NDArray) -> Any:
    """A kept column as Arrow takes it: texts in UTF-8 as strings, all else as it is."""
    return pa.array(values).cast(pa.string()) if values.dtype.kind == "S" else values  # texts in UTF-8


def _labels(labels_N: NDArray[np.float32]) -> NDArray[np.int8] | None:
    return None if np.isnan(labels_N).any() else labels_N.astype(np.int8)
