"""Prediction files: Parquet per row range, an all-ranks vote, and the manifest last.

Columns: `part` (string), `row` (int64, 0-based in the part), `label` (int8; null where the log has none),
`logit_<member>` (float32) for each member, `merged` (float32 probability). A folder holds finished predictions
exactly when its manifest.json is there.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from configs.errors import DataError
from modules.merge import MERGED
from trainer import storage
from trainer.metrics.exact import BinaryMetrics, metrics_of_logits, metrics_of_probabilities

FORMAT = "chorus-predictions"
FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
LOGIT_PREFIX = "logit_"
_FILE_PATTERN = re.compile(r".+-\d{12}\.parquet(\.tmp)?|manifest\.json\.tmp")


@dataclass(frozen=True, kw_only=True)
class PredictionFile:
    """One written file: a range of one part's rows, in order."""

    path: str
    part: str
    first_row: int
    num_rows: int
    label_sum: int | None  # None: without labels
    num_bytes: int
    sha256: str


def prepare_folder(folder: str) -> None:
    """Makes the output folder, and removes what an unfinished job left in it.

    Raises:
        DataError: it holds finished predictions, or files that are not ours.
    """
    if storage.is_file(folder):
        raise DataError(f"--output: {folder!r} is a file; name a folder")
    if storage.exists(storage.join(folder, MANIFEST_NAME)):
        raise DataError(f"--output: {folder!r} holds finished predictions; give another folder, or delete it")
    foreign = [name for name in storage.names(folder) if not _FILE_PATTERN.fullmatch(name)]
    if foreign:
        raise DataError(f"--output: {folder!r} holds {foreign[0]!r}, which is no prediction file; give an empty folder")
    storage.make_folder(folder)
    for name in storage.names(folder):
        storage.remove_file(storage.join(folder, name))


def write_range(
    folder: str,
    *,
    part: str,
    first_row: int,
    labels: NDArray[np.integer] | None,
    logits: Mapping[str, NDArray[np.float32]],
    merged: NDArray[np.float32],
) -> PredictionFile:
    """Writes the predictions of rows [first_row, first_row + n) of a part."""
    count = len(merged)
    columns: dict[str, Any] = {
        "part": pa.array([part] * count, type=pa.string()).dictionary_encode(),
        "row": np.arange(first_row, first_row + count, dtype=np.int64),
        "label": pa.nulls(count, pa.int8()) if labels is None else labels.astype(np.int8),
        **{f"{LOGIT_PREFIX}{name}": values for name, values in logits.items()},
        MERGED: merged,
    }
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    name = f"{part}-{first_row:012d}.parquet"
    path = storage.join(folder, name)
    storage.write_bytes(path, buffer.getvalue())
    return PredictionFile(
        path=name,
        part=part,
        first_row=first_row,
        num_rows=count,
        label_sum=None if labels is None else int(labels.sum()),
        num_bytes=storage.num_bytes(path),
        sha256=storage.sha256(path),
    )


def read_column(folder: str, files: Sequence[PredictionFile], column: str) -> NDArray[Any]:
    """One column over all files, in order."""
    pieces = []
    for file in files:
        with storage.open_file(storage.join(folder, file.path), "rb") as source:
            pieces.append(pq.read_table(source, columns=[column]).column(column).to_numpy())
    return np.concatenate(pieces)


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What the manifest of finished predictions says."""

    members: tuple[str, ...]
    files: tuple[PredictionFile, ...]
    dictionary: str
    metrics: Mapping[str, Mapping[str, float | None]]


def read_manifest(folder: str) -> Predictions:
    """The manifest of a prediction folder.

    Raises:
        DataError: the folder is not there, not finished, or not ours.
    """
    path = storage.join(folder, MANIFEST_NAME)
    if not storage.is_file(path):
        raise DataError(f"{folder!r} has no {MANIFEST_NAME}, so it holds no finished predictions; run trainer/score.py")
    try:
        body = storage.read_json(path)
        if body["format"] != FORMAT or body["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format {body['format']!r}, version {body['format_version']!r}")
        return Predictions(
            members=tuple(body["members"]),
            files=tuple(PredictionFile(**file) for file in body["files"]),
            dictionary=body["data"]["dictionary"],
            metrics=body["metrics"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a manifest of predictions ({error!r}); run trainer/score.py again") from error


def probabilities(
    folder: str, files: Sequence[PredictionFile], *, members: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Column -> probabilities [N] of the files' rows: the members', then the merged ones."""
    columns = {}
    for name in members:
        logits = read_column(folder, files, f"{LOGIT_PREFIX}{name}").astype(np.float64)
        columns[name] = np.exp(-np.logaddexp(0.0, -logits))
    columns[MERGED] = read_column(folder, files, MERGED).astype(np.float64)
    return columns


def metrics_as_written(
    folder: str, files: Sequence[PredictionFile], *, members: Sequence[str]
) -> dict[str, BinaryMetrics]:
    """Exact figures of every column, read back from the files; one column in memory at a time.

    There are none where a row has no label.
    """
    if any(file.label_sum is None for file in files):
        return {}
    labels = read_column(folder, files, "label")
    figures = {name: metrics_of_logits(labels, read_column(folder, files, f"{LOGIT_PREFIX}{name}")) for name in members}
    figures[MERGED] = metrics_of_probabilities(labels, read_column(folder, files, MERGED))
    return figures


def finish_folder(
    folder: str,
    *,
    files: Sequence[PredictionFile],
    expected: Mapping[str, int],
    members: Sequence[str],
    provenance: Mapping[str, Any],
) -> dict[str, BinaryMetrics]:
    """Checks that each part's rows are there once, computes the figures, and writes the manifest.

    Args:
        folder: The output folder.
        files: All ranks' files.
        expected: Part -> rows that had to be scored.
        members: Member names.
        provenance: Checkpoint, merge rule and the like.

    Raises:
        DataError: rows are missing or doubled.
    """
    ordered = sorted(files, key=lambda file: (list(expected).index(file.part), file.first_row))
    written = dict.fromkeys(expected, 0)
    for file in ordered:
        if file.first_row != written[file.part]:
            raise DataError(
                f"{folder}: rows {written[file.part]} to {file.first_row} of {file.part} are missing or doubled;"
                " score again"
            )
        written[file.part] += file.num_rows
    if written != dict(expected):
        raise DataError(f"{folder}: {written} rows written, {dict(expected)} read; score again")
    figures = metrics_as_written(folder, ordered, members=members)
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "num_rows": sum(written.values()),
        "parts": [{"name": part, "num_rows": rows} for part, rows in written.items()],
        "members": list(members),
        **provenance,
        "metrics": {name: metrics.as_json() for name, metrics in figures.items()},
        "files": [asdict(file) for file in ordered],
    }
    storage.write_json(storage.join(folder, MANIFEST_NAME), manifest)
    return figures
