"""Prediction folders made of finished ones, without scoring: merged anew, or two jobs side by side.

Files come over one by one; logits, labels and kept columns stay as they are, bit for bit.

Legend: n rows of a file, M members.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from configs.errors import ConfigError, DataError
from modules.merge import MERGED, MergeRule
from trainer import storage
from trainer.merge_files import columns_of
from trainer.predictions.columns import LABEL, LOGIT_MERGED, PART, ROW, logit_column, probability_column
from trainer.predictions.figures import prediction_figures
from trainer.predictions.manifest import PredictionFile, PredictionManifest
from trainer.predictions.merged_columns import merged_columns
from trainer.predictions.range_files import encode
from trainer.predictions.reading import Predictions, refuse_changed
from trainer.row_progress import RowProgress

MEMORY_BYTES = 1 << 30
_SHARED_SETTINGS = ("dtype", "probabilities", "range_rows")  # these say what the files hold, and how they are cut


@dataclass(frozen=True, kw_only=True)
class JoinedJob:
    """One of the jobs that are put side by side."""

    predictions: Predictions
    label: str = ""  # put in front of its members' names, LABEL_MEMBER; "": they stay

    def name(self, member: str) -> str:
        """What a member of it is called afterwards."""
        return f"{self.label}_{member}" if self.label else member


def merge_again(predictions: Predictions, rule: MergeRule, *, output: str) -> PredictionManifest:
    """Writes the folder's rows with another merge, and figures computed anew.

    Args:
        predictions: The folder, or some of its parts.
        rule: The merge; its members are among the folder's.
        output: An empty folder, or none yet.

    Raises:
        ConfigError: a member of the rule is not there.
        DataError: a file cannot be read, or the output folder is not empty.
    """
    columns_of(rule, predictions.members, source=repr(predictions.folder))
    old, there = predictions.manifest, {file.part for file in predictions.files}
    parts = {part: rows for part, rows in old.parts.items() if part in there or not rows}
    manifest = replace(old, parts=parts, merge=rule.as_json())

    def table_of(file: PredictionFile) -> pa.Table:
        return _read_table(predictions, file)

    return _write(manifest, predictions.files, table_of, rule=rule, output=output)


def join_jobs(jobs: Sequence[JoinedJob], *, rule: str, output: str) -> PredictionManifest:
    """Writes the same rows' predictions of several jobs side by side, merged by a rule that needs no fit.

    Args:
        jobs: Folders with the same rows, cut into the same files, of ids of one dictionary.
        rule: A rule of `modules.merge.RULES`.
        output: An empty folder, or none yet.

    Raises:
        ConfigError: two members have the same name.
        DataError: rows, labels, kept columns, dictionaries or files' forms differ, or the output folder is not empty.
    """
    first = jobs[0]
    for other in jobs[1:]:
        _refuse_other_rows(first.predictions, other.predictions)
    members = [job.name(member) for job in jobs for member in job.predictions.members]
    doubled = [name for name in members if members.count(name) > 1]
    if doubled:
        raise ConfigError(f"member {doubled[0]!r} is in two of the folders; give them names, as new=DIR")
    kept = tuple(dict.fromkeys(name for job in jobs for name in job.predictions.manifest.kept))
    merge = MergeRule.fixed(rule, members=members)
    of_first = first.predictions.manifest.settings
    manifest = replace(
        first.predictions.manifest,
        members=tuple(members),
        kept=kept,
        merge=merge.as_json(),
        checkpoints=tuple(
            replace(one, label="_".join(filter(None, (job.label, one.label))))
            for job in jobs
            for one in job.predictions.manifest.checkpoints
        ),
        settings={
            **{key: of_first.get(key) for key in _SHARED_SETTINGS if key in of_first},
            "joined": [{"folder": job.predictions.folder, "label": job.label} for job in jobs],
        },
    )
    place_of = {file.path: place for place, file in enumerate(first.predictions.files)}

    def table_of(file: PredictionFile) -> pa.Table:
        place = place_of[file.path]  # the same rows' in every job
        tables = [(job, _read_table(job.predictions, job.predictions.files[place])) for job in jobs]
        return _side_by_side(tables, kept=kept, file=file)

    return _write(manifest, first.predictions.files, table_of, rule=merge, output=output)


def _write(
    manifest: PredictionManifest,
    files: Sequence[PredictionFile],
    table_of: Callable[[PredictionFile], pa.Table],
    *,
    rule: MergeRule,
    output: str,
) -> PredictionManifest:
    """Writes the files, then the manifest with figures of what was written."""
    if storage.is_file(output):
        raise DataError(f"--output: {output!r} is a file; name a folder")
    if storage.names(output):
        raise DataError(f"--output: {output!r} is not empty; give an empty folder, or delete what a stopped run left")
    storage.make_folder(output)
    written: list[PredictionFile] = []
    progress = RowProgress("writing", sum(file.num_rows for file in files))
    for file in files:
        table = table_of(file)
        logits = [table.column(logit_column(member)).to_numpy() for member in rule.members]
        wide = torch.from_numpy(np.stack(logits, axis=1).astype(np.float64))
        columns = {name: table.column(name) for name in table.column_names if name not in (LOGIT_MERGED, MERGED)}
        columns |= merged_columns(rule, wide, part=file.part, first_row=file.first_row)
        content = encode(columns, repetitive=(PART, LABEL, *manifest.kept))
        storage.write_bytes(storage.join(output, file.path), content)
        written.append(replace(file, num_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()))
        progress.add(file.num_rows)
    manifest = replace(manifest, files=tuple(written))
    figures = prediction_figures(
        Predictions(output, manifest=manifest),
        memory_bytes=MEMORY_BYTES,
        say=lambda line: print(line, flush=True),
    )
    finished = replace(
        manifest, metrics=figures.metrics, metrics_by_part=figures.by_part, calibration_curves=figures.curves
    )
    finished.write(output)
    return finished


def _read_table(predictions: Predictions, file: PredictionFile) -> pa.Table:
    """A file with all its columns, whose bytes are those that the manifest proves.

    Raises:
        DataError: they are not, or are not there.
    """
    path = storage.join(predictions.folder, file.path)
    try:
        with storage.open_file(path, "rb") as source:
            content = source.read()
        refuse_changed(path, file, sha256=hashlib.sha256(content).hexdigest())
        return pq.read_table(pa.BufferReader(content))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); tools/verify_predictions.py says what else is wrong"
        ) from error


def _refuse_other_rows(first: Predictions, other: Predictions) -> None:
    ids, other_ids = (predictions.manifest.data.get("dictionary") for predictions in (first, other))
    if ids != other_ids:
        raise DataError(
            f"{other.folder!r} was scored with dictionary {other_ids!r}, {first.folder!r} with {ids!r}; their ids mean"
            " different values, prepare the log once and score it with both"
        )

    for key in _SHARED_SETTINGS:
        mine, its = (predictions.manifest.settings.get(key) for predictions in (first, other))
        if mine != its:
            raise DataError(
                f"{other.folder!r} was scored with score.{key} = {its!r}, {first.folder!r} with {mine!r};"
                " score both alike"
            )

    def cuts(predictions: Predictions) -> list[tuple[Any, ...]]:
        return [(f.part, f.first_row, f.num_rows) for f in predictions.files]

    if cuts(first) != cuts(other):
        raise DataError(
            f"{other.folder!r} has other rows than {first.folder!r}, or other files of them; score the same parts with"
            " the same score.range_rows"
        )
    for mine, its in zip(first.files, other.files, strict=True):
        if (mine.row_hash, mine.label_sum) != (its.row_hash, its.label_sum):
            raise DataError(
                f"rows {mine.first_row} to {mine.first_row + mine.num_rows - 1} of {mine.part} differ between"
                f" {first.folder!r} and {other.folder!r}; score the same prepared folder with both"
            )


def _side_by_side(
    tables: Sequence[tuple[JoinedJob, pa.Table]], *, kept: Sequence[str], file: PredictionFile
) -> pa.Table:
    """Rows and labels once, kept columns once, logits and probabilities of all."""
    columns: dict[str, Any] = {}
    for name in (PART, ROW, LABEL, *kept):
        for job, table in tables:
            if name not in table.column_names:
                continue
            if name in columns and not columns[name].equals(table.column(name)):
                raise DataError(
                    f"column {name} of {file.path} is another in {job.predictions.folder!r}; score the same prepared"
                    " folder with both"
                )
            columns.setdefault(name, table.column(name))
    for of in (logit_column, probability_column):
        for job, table in tables:
            columns |= {
                of(job.name(member)): table.column(of(member))
                for member in job.predictions.members
                if of(member) in table.column_names
            }
    return pa.table(columns)
