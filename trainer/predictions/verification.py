"""Verification: whether a prediction folder holds what it says, found out from its files alone, or beside its data.

Shapes: N rows of a file, M members.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from modules.merge import MERGED, MergeRule
from trainer import storage
from trainer.data.manifest import LABEL_FILE
from trainer.data.preparing.prepared_folder import QUARANTINE_NAME
from trainer.data.reading.source import PreparedSource
from trainer.predictions.columns import LABEL, LOGIT_MERGED, PART, ROW, logit_column, probability_column
from trainer.predictions.completeness import WholePart, problems_of
from trainer.predictions.figure_check import wrong_figures
from trainer.predictions.manifest import MANIFEST_NAME, PredictionFile, PredictionManifest
from trainer.predictions.range_files import RECORDS_FOLDER, text_column
from trainer.predictions.reading import Predictions, odd_type
from trainer.predictions.row_hash import hash_rows

_FILE_NAME = re.compile(r".+-\d{12}\.parquet")
_ROUNDING = 1e-6  # of a probability that was written as float32
_HALF_ROUNDING = 2.0**-10  # twice that of a float16, relative


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What came out: without problems the folder is whole."""

    num_files: int
    num_rows: int
    problems: tuple[str, ...]


def verify_predictions(
    folder: str,
    *,
    data: str | None = None,
    quick: bool = False,
    advance: Callable[[int], None] = lambda _rows: None,
    say: Callable[[str], None] = lambda _line: None,
) -> Verified:
    """Looks at every file; the manifest's sums and figures are compared with what is found, not believed.

    Args:
        folder: A prediction folder.
        data: The prepared folder that was scored: rows, labels and kept columns are compared with it.
        quick: Sizes, columns and numbers of rows alone; no file is read whole.
        advance: Told of rows that were looked at.
        say: Told how far the figures are, where they take long.

    Raises:
        DataError: there are no finished predictions, or no such data.
    """
    manifest = PredictionManifest.read(folder)
    scored = None if data is None else _ScoredData(data, manifest)
    there = set(storage.names(folder))
    problems: list[str] = []
    pieces: list[PredictionFile] = []
    is_odd: list[bool] = []  # figures of such files would only say it again
    for file in manifest.files:
        look = _Look(folder, file, manifest=manifest)
        found = look.quickly(there) if quick else look.whole(there, data=scored)
        problems += found.problems
        is_odd.append(bool(found.problems))
        pieces.append(dataclasses.replace(file, row_hash=found.row_hash, label_sum=found.label_sum))
        advance(file.num_rows)
    known = {file.path for file in manifest.files}
    own = (*known, MANIFEST_NAME, RECORDS_FOLDER, QUARANTINE_NAME)
    problems += [
        f"{name}: {'rows twice: it' if _FILE_NAME.fullmatch(name) else 'it'} is not in the manifest"
        for name in sorted(there.difference(own))
    ]
    parts = {name: WholePart(num_rows=rows, label_sum=None) for name, rows in manifest.parts.items()}
    if scored is not None:
        problems += scored.problems
        parts = scored.parts
    problems += problems_of(pieces, parts)
    if not quick and not any(is_odd):
        problems += wrong_figures(Predictions(folder, manifest=manifest), say=say)
    return Verified(num_files=len(known & there), num_rows=manifest.num_rows, problems=tuple(problems))


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What one file holds; its sums are the manifest's where a problem says why they are not its own."""

    problems: tuple[str, ...]
    row_hash: str
    label_sum: int | None


class _Look:
    """Looks at one file."""

    def __init__(self, folder: str, file: PredictionFile, *, manifest: PredictionManifest) -> None:
        self._path = storage.join(folder, file.path)
        self._file = file
        self._manifest = manifest
        self._problems: list[str] = []

    def _say(self, problem: str) -> None:
        self._problems.append(f"{self._file.path}: {problem}")

    def _found(self, *, row_hash: str | None = None, label_sum: int | None = None) -> _Found:
        as_said = row_hash is None
        return _Found(
            problems=tuple(self._problems),
            row_hash=self._file.row_hash if row_hash is None else row_hash,
            label_sum=self._file.label_sum if as_said else label_sum,
        )

    @property
    def _rows(self) -> str:
        file = self._file
        return f"rows {file.first_row:,} to {file.first_row + file.num_rows - 1:,} of {file.part}"

    def quickly(self, there: Collection[str]) -> _Found:
        """Its size, its columns and its number of rows."""
        if self._is_there(there):
            try:
                with storage.open_stream(self._path) as stream:
                    parquet = pq.ParquetFile(stream)
                    self._compare_shape(parquet.schema_arrow, parquet.metadata.num_rows)
            except (OSError, ValueError) as error:  # pyarrow's errors are among them
                self._say(f"cannot be read ({error}); it has {self._rows}")
        return self._found()

    def _is_there(self, there: Collection[str]) -> bool:
        if self._file.path not in there:
            self._say(f"is missing, with {self._rows}")
            return False
        num_bytes = storage.num_bytes(self._path)
        if num_bytes != self._file.num_bytes:
            self._say(f"has {num_bytes:,} bytes, {self._file.num_bytes:,} were written, with {self._rows}")
        return True

    def _compare_shape(self, schema: pa.Schema, num_rows: int) -> bool:
        wanted, names = self._columns(), schema.names
        if names != wanted:
            odd = [name for name in (*wanted, *names) if (name in wanted) != (name in names)]
            self._say(f"has columns {', '.join(names)}; {odd[0] if odd else 'their order'} is not as in the manifest")
        if num_rows != self._file.num_rows:
            self._say(f"has {num_rows:,} rows, {self._file.num_rows:,} were written: {self._rows}")
        odd_types = list(filter(None, (odd_type(field.name, field.type) for field in schema)))
        for problem in odd_types:
            self._say(problem)
        return names == wanted and not odd_types

    def _columns(self) -> list[str]:
        manifest = self._manifest
        names = [PART, ROW, LABEL, *manifest.kept, *map(logit_column, manifest.members)]
        if manifest.settings.get("probabilities"):
            names += map(probability_column, manifest.members)
        return [*names, LOGIT_MERGED, MERGED]

    def whole(self, there: Collection[str], *, data: _ScoredData | None) -> _Found:
        """All that it holds."""
        if not self._is_there(there):
            return self._found()
        with storage.open_file(self._path, "rb") as source:
            content = source.read()
        if hashlib.sha256(content).hexdigest() != self._file.sha256 and len(content) == self._file.num_bytes:
            self._say(f"its bytes have changed since they were written, with {self._rows}")
        try:
            table = pq.read_table(pa.BufferReader(content))
        except (OSError, ValueError) as error:  # pyarrow's errors are among them
            self._say(f"cannot be read ({error}); it has {self._rows}")
            return self._found()
        if not self._compare_shape(table.schema, table.num_rows):
            return self._found()
        row_hash = self._compare_rows(table)
        label_sum = self._compare_labels(table)
        self._compare_scores(table)
        if data is not None:
            for problem in data.differences(table, self._file):
                self._say(problem)
        return self._found(row_hash=row_hash, label_sum=label_sum)

    def _compare_rows(self, table: pa.Table) -> str | None:
        """The hash of its row ids; None where a problem was said."""
        file = self._file
        parts = set(table.column(PART).unique().to_pylist())
        if parts - {file.part}:
            self._say(
                f"has rows of {', '.join(map(repr, sorted(map(str, parts - {file.part}))))}, not of {file.part!r}"
            )
            return None
        rows = table.column(ROW).to_numpy()
        wanted = np.arange(file.first_row, file.first_row + file.num_rows, dtype=np.int64)
        if not np.array_equal(rows, wanted):
            found, counts = np.unique(rows, return_counts=True)
            told = [
                f"{what} {', '.join(map(str, some[:5].tolist()))}{' and more' if len(some) > 5 else ''}"
                for what, some in (
                    ("missing", np.setdiff1d(wanted, found)),
                    ("doubled", found[counts > 1]),
                    ("not its own", np.setdiff1d(found, wanted)),
                )
                if len(some)
            ]
            self._say(f"rows of {file.part}: {'; '.join(told) or 'in another order'}")
            return None
        row_hash = f"{hash_rows(file.part, rows):016x}"
        if row_hash != file.row_hash:
            self._say(f"the hash of its row ids is {row_hash}, {file.row_hash} in the manifest")
        return row_hash

    def _compare_labels(self, table: pa.Table) -> int | None:
        labels = table.column(LABEL)
        if self._file.label_sum is None and labels.null_count == len(labels):
            return None
        if labels.null_count:
            self._say(f"has {labels.null_count:,} rows without a label")
            return self._file.label_sum
        values = labels.to_numpy()
        bad = np.flatnonzero((values != 0) & (values != 1))
        if len(bad):
            self._say(f"label {values[bad[0]]} in row {self._file.first_row + bad[0]}")
        label_sum = int(values.sum(dtype=np.int64))
        if label_sum != self._file.label_sum:
            self._say(f"its labels add up to {label_sum:,}, in the manifest to {self._file.label_sum}")
        return label_sum

    def _compare_scores(self, table: pa.Table) -> None:
        """Numbers everywhere, and the merge is the rule's."""
        members = self._manifest.members
        logits = {name: _floats(table, logit_column(name)) for name in (*members, MERGED)}
        merged_logits = logits[MERGED]
        for name, values in (*logits.items(), (MERGED, _floats(table, MERGED))):
            bad = np.flatnonzero(~np.isfinite(values))
            if len(bad):
                self._say(f"{name} is {values[bad[0]]} in row {self._file.first_row + bad[0]}")
                return
        rounding = self._rounding(np.stack([logits[name] for name in members], axis=1))
        if self._manifest.settings.get("probabilities"):
            for name in members:
                wanted = _sigmoid(logits[name])
                self._compare(f"the probability of {name}", table, probability_column(name), wanted, rounding)
        rule = MergeRule.of_json(self._manifest.merge)
        chosen = torch.from_numpy(np.stack([logits[name] for name in rule.members], axis=1))
        if rounding.max() <= _ROUNDING:
            self._compare("the merged probability", table, MERGED, rule.probabilities(chosen).numpy(), rounding)
            wanted = rule.logits(chosen).numpy()
            self._compare("the merged logit", table, LOGIT_MERGED, wanted, _ROUNDING * np.maximum(np.abs(wanted), 1.0))
            return
        # The written logits are rounded, so they tell what the merged ones were in probability alone.
        self._compare(
            "the merged probability", table, MERGED, _sigmoid(merged_logits), np.full_like(rounding, _ROUNDING)
        )
        if "isotonic" not in str(self._manifest.merge.get("calibration")):  # its steps make much of a rounded logit
            self._compare("the merged probability", table, MERGED, rule.probabilities(chosen).numpy(), rounding)

    def _rounding(self, logits_NM: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far a probability may be from that of the written logits, [N]."""
        if self._manifest.settings.get("dtype") != "float16":
            return np.full(len(logits_NM), _ROUNDING)
        return _ROUNDING + _HALF_ROUNDING * np.maximum(np.abs(logits_NM).max(axis=1), 1.0)

    def _compare(
        self, what: str, table: pa.Table, column: str, wanted: NDArray[np.float64], rounding: NDArray[np.float64]
    ) -> None:
        values = _floats(table, column)
        bad = np.flatnonzero(~(np.abs(values - wanted) <= rounding))
        if len(bad):
            row = int(bad[0])
            self._say(
                f"{what} is {values[row]:.8g} in row {self._file.first_row + row}, by the written logits"
                f" {wanted[row]:.8g}; so in {len(bad):,} rows"
            )


def _floats(table: pa.Table, column: str) -> NDArray[np.float64]:
    found: NDArray[np.float64] = table.column(column).to_numpy().astype(np.float64)
    return found


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = torch.sigmoid(torch.from_numpy(logits)).numpy()
    return found


class _ScoredData:
    """The prepared folder that was scored.

    Raises:
        DataError: it is not there, or lacks a part.
    """

    def __init__(self, root: str, manifest: PredictionManifest) -> None:
        self._source = PreparedSource(root=root, parts=list(manifest.parts))
        self._kept = manifest.kept
        self.problems: list[str] = []
        self._starts, before = dict[str, int](), 0
        for part in self._source.parts:
            self._starts[part.name] = before
            before += part.num_rows
            if part.num_rows != manifest.parts[part.name]:
                self.problems.append(
                    f"{part.name}: has {part.num_rows:,} rows in {root}, {manifest.parts[part.name]:,} were scored"
                )
        if self._source.features.dictionary != manifest.data.get("dictionary"):
            self.problems.append(f"{root}: has another dictionary than the rows that were scored")
        # Label sums are those of each row, which is compared below.
        self.parts = {part.name: WholePart(num_rows=part.num_rows, label_sum=None) for part in self._source.parts}

    def differences(self, table: pa.Table, file: PredictionFile) -> list[str]:
        """What the file has otherwise, row by row."""
        index = next(place for place, part in enumerate(self._source.parts) if part.name == file.part)
        part = self._source.parts[index]
        stop = file.first_row + table.num_rows
        if stop > part.num_rows:
            return [f"ends at row {stop - 1:,} of {file.part}, which has {part.num_rows:,} rows in the data"]
        told = []
        labels = table.column(LABEL)
        if part.has_labels != (labels.null_count == 0):
            told.append("has no labels, the data have" if part.has_labels else "has labels, the data have none")
        elif part.has_labels:
            wanted = self._source.arrays[index][LABEL_FILE].array[file.first_row : stop, 0]
            told += _different(LABEL, labels.to_numpy(), wanted, first_row=file.first_row)
        start = self._starts[file.part]
        if self._kept:
            columns = self._source.kept(self._kept, range(start + file.first_row, start + stop))
            for name, values in columns.items():
                wanted = np.asarray(pa.array(text_column(values)))
                told += _different(name, np.asarray(table.column(name)), wanted, first_row=file.first_row)
        return told


def _different(name: str, found: NDArray, wanted: NDArray, *, first_row: int) -> list[str]:
    bad = np.flatnonzero(found != wanted)
    if not len(bad):
        return []
    row = int(bad[0])
    return [f"{name} is {found[row]} in row {first_row + row}, in the data {wanted[row]}; {len(bad):,} rows differ"]
