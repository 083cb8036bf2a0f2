"""Predictions: the columns of a finished prediction folder, whole or chunk by chunk, always in the order of the rows.

Legend: N rows of the folder, n of a chunk, M members.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from configs.errors import DataError
from modules.merge import MERGED
from trainer import storage
from trainer.predictions.columns import LABEL, LOGIT_MERGED, PART, ROW, is_reserved, logit_column
from trainer.predictions.manifest import PredictionFile, PredictionManifest

_SEE = "tools/verify_predictions.py says what else is wrong"


class Predictions:
    """A finished prediction folder.

    Args:
        folder: The folder.
        parts: Read these parts alone; None: all.
        manifest: Its manifest where that is not written yet; None: read it.

    Raises:
        DataError: the folder is not there, not finished, not ours, or has no such part.
    """

    def __init__(
        self, folder: str, *, parts: Collection[str] | None = None, manifest: PredictionManifest | None = None
    ) -> None:
        self.folder = folder
        self.manifest = manifest or PredictionManifest.read(folder)
        unknown = sorted(set(parts or ()) - set(self.manifest.parts))
        if unknown:
            raise DataError(f"{folder!r} has no part {unknown[0]!r}; its parts are {', '.join(self.manifest.parts)}")
        self.files = tuple(file for file in self.manifest.files if parts is None or file.part in parts)

    @property
    def members(self) -> tuple[str, ...]:
        """Member names, in the order of the columns."""
        return self.manifest.members

    @property
    def num_rows(self) -> int:
        """Rows of the parts that are read."""
        return sum(file.num_rows for file in self.files)

    @property
    def has_labels(self) -> bool:
        """Whether each of these rows has a label."""
        return all(file.label_sum is not None for file in self.files)

    def column(self, name: str) -> NDArray:
        """One column [N]; logits as float32, whatever they are stored as.

        Raises:
            DataError: there is no such column, or a file cannot be read.
        """
        pieces = [chunk[name] for chunk in self.chunks([name])]
        return np.concatenate(pieces) if pieces else np.empty(0)

    def labels(self) -> NDArray[np.int8]:
        """The labels [N].

        Raises:
            DataError: a row has none.
        """
        if not self.has_labels:
            raise DataError(f"{self.folder!r} has rows without a label, and figures need labels; score labelled rows")
        return self.column(LABEL).astype(np.int8, copy=False)

    def logits(self) -> NDArray[np.float32]:
        """All members' logits [N, M], column-major: a column lies together."""
        logits_NM = np.empty((self.num_rows, len(self.members)), dtype=np.float32, order="F")
        for index, member in enumerate(self.members):
            logits_NM[:, index] = self.column(logit_column(member))
        return logits_NM

    def merged(self) -> NDArray[np.float32]:
        """The merged probabilities [N], as written."""
        return self.column(MERGED)

    def merged_logits(self) -> NDArray[np.float32]:
        """The logits of the merged probabilities [N], as written; they do not saturate."""
        return self.column(LOGIT_MERGED)

    def probabilities(self) -> dict[str, NDArray[np.float64]]:
        """Column -> probabilities [N], from the logits: the members', then the merged ones."""
        columns = {}
        for name in (*self.members, MERGED):
            logits = self.column(logit_column(name)).astype(np.float64)
            columns[name] = np.exp(-np.logaddexp(0.0, -logits))
        return columns

    def check_bytes(self, *, advance: Callable[[int], None] = lambda _rows: None) -> None:
        """Compares every file's size and sha256 with the manifest's; it reads all of each.

        Args:
            advance: Told of rows whose file was compared.

        Raises:
            DataError: a file is not as it was written, or cannot be read; names it.
        """
        for file in self.files:
            path = storage.join(self.folder, file.path)
            try:
                sha256 = storage.sha256(path) if storage.num_bytes(path) == file.num_bytes else ""
            except OSError as error:
                raise _unreadable(path, error) from error
            refuse_changed(path, file, sha256=sha256)
            advance(file.num_rows)

    def chunks(self, names: Sequence[str]) -> Iterator[dict[str, NDArray]]:
        """Columns [n] by name, file by file, so that no more than a file is in memory.

        Raises:
            DataError: there is no such column, or a file cannot be read.
        """
        for file in self.files:
            yield self.read(file, names)

    def read(self, file: PredictionFile, names: Sequence[str]) -> dict[str, NDArray]:
        """Columns [n] of one file.

        Raises:
            DataError: there is no such column, or the file cannot be read, has another number of rows than the
                manifest says, or anything but numbers where numbers belong.
        """
        path = storage.join(self.folder, file.path)
        try:
            with storage.open_file(path, "rb") as source:
                table = pq.ParquetFile(source).read(columns=list(dict.fromkeys(names)))
        except (OSError, ValueError) as error:  # pyarrow's errors are among them
            raise _unreadable(path, error) from error
        missing = [name for name in names if name not in table.column_names]
        if missing:
            there = [PART, ROW, LABEL, *self.manifest.kept, *map(logit_column, (*self.members, MERGED)), MERGED]
            raise DataError(f"{path} has no column {missing[0]!r}; its columns should be {', '.join(there)}; {_SEE}")
        if table.num_rows != file.num_rows:
            raise DataError(f"{path} has {table.num_rows:,} rows, {file.num_rows:,} were written; {_SEE}")
        for name in names:
            _refuse_odd(path, name, table.column(name), labelled=file.label_sum is not None)
        found = {name: table.column(name).to_numpy() for name in names}
        return {
            name: values.astype(np.float32) if values.dtype == np.float16 else values for name, values in found.items()
        }


def refuse_changed(path: str, file: PredictionFile, *, sha256: str) -> None:
    """Refuses a file whose bytes have another sha256 than the manifest says.

    Raises:
        DataError: so it is.
    """
    if sha256 != file.sha256:
        raise DataError(f"{path}: its bytes are not those that were written; score again, {_SEE}")


def _unreadable(path: str, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read ({error}); {_SEE}")


def odd_type(name: str, of: pa.DataType) -> str:
    """What is wrong with the type of one of the predictions' own columns; kept columns are the user's."""
    if not is_reserved(name):
        return ""
    fits, wanted = {
        PART: (pa.types.is_string, "texts"),
        ROW: (pa.types.is_int64, "int64 numbers"),
        LABEL: (pa.types.is_int8, "int8 numbers"),
    }.get(name, (pa.types.is_floating, "floating-point numbers"))
    is_fit = fits(of.value_type if pa.types.is_dictionary(of) else of)
    return "" if is_fit else f"column {name!r} holds {of}, not {wanted}"


def _refuse_odd(path: str, name: str, column: pa.ChunkedArray, *, labelled: bool) -> None:
    """Refuses a column of another type than it was written with, or with holes."""
    odd = odd_type(name, column.type)
    if not odd and column.null_count and is_reserved(name) and (labelled or name != LABEL):
        odd = f"column {name!r} is empty in {column.null_count:,} rows"
    if odd:
        raise DataError(f"{path}: {odd}; {_SEE}")
