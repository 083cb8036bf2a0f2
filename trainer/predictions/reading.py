"""Predictions: the columns of a finished prediction folder, whole or chunk by chunk, always in the order of the rows.

Legend: N rows of the folder, n of a chunk, M members.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from configs.errors import DataError
from modules.merge import MERGED
from trainer import storage
from trainer.predictions.columns import LABEL, PART, ROW, logit_column
from trainer.predictions.manifest import PredictionFile, PredictionManifest


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

    def probabilities(self) -> dict[str, NDArray[np.float64]]:
        """Column -> probabilities [N]: the members', from their logits, then the merged ones."""
        columns = {}
        for name in self.members:
            logits = self.column(logit_column(name)).astype(np.float64)
            columns[name] = np.exp(-np.logaddexp(0.0, -logits))
        columns[MERGED] = self.merged().astype(np.float64)
        return columns

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
            DataError: there is no such column, or the file cannot be read.
        """
        path = storage.join(self.folder, file.path)
        try:
            with storage.open_file(path, "rb") as source:
                table = pq.ParquetFile(source).read(columns=list(dict.fromkeys(names)))
        except (OSError, ValueError) as error:  # pyarrow's errors are among them
            raise DataError(
                f"{path} cannot be read ({error}); tools/verify_predictions.py says what else is wrong"
            ) from error
        missing = [name for name in names if name not in table.column_names]
        if missing:
            there = [PART, ROW, LABEL, *self.manifest.kept, *map(logit_column, self.members), MERGED]
            raise DataError(f"{path} has no column {missing[0]!r}; it has {', '.join(there)}")
        found = {name: table.column(name).to_numpy() for name in names}
        return {
            name: values.astype(np.float32) if values.dtype == np.float16 else values for name, values in found.items()
        }
