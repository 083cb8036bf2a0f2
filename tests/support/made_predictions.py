"""Finished prediction folders made from arrays, without a job that scores."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from modules.merge import MERGED, MergeRule
from trainer import storage
from trainer.predictions.columns import LABEL, LOGIT_MERGED, PART, ROW, logit_column, probability_column
from trainer.predictions.figures import prediction_figures
from trainer.predictions.manifest import PredictionFile, PredictionManifest, ScoredCheckpoint
from trainer.predictions.reading import Predictions
from trainer.predictions.row_hash import hash_range

DICTIONARY = "made"
_MEMORY_BYTES = 1 << 26


def made_predictions(
    folder: Path | str,
    labels: NDArray[np.integer] | Sequence[int] | None,
    logits: Mapping[str, NDArray[np.floating]],
    *,
    parts: Mapping[str, int] | None = None,
    range_rows: int = 1_000,
    **options: object,
) -> str:
    """Writes a finished prediction folder, merged by the mean logit, and gives its path.

    Args:
        folder: Where; made where it is not there.
        labels: 0 or 1, [N]; None: a log without labels.
        logits: Member -> its logits [N].
        parts: Part -> its rows, in order; not given: one part `day_0` of all rows.
        range_rows: Rows of a file.
        options: `kept` (column -> values [N]), `dtype` of the logits ("float16"), `probabilities` (True: written
            beside the logits), `dictionary` (its hash), `figures` (False: none in the manifest).
    """
    folder = str(folder)
    storage.make_folder(folder)
    dtype = np.dtype(str(options.get("dtype", "float32")))
    kept: Mapping[str, NDArray] = options.get("kept", {})  # type: ignore[assignment]
    written = {name: np.asarray(values, dtype=dtype) for name, values in logits.items()}
    num_rows = len(next(iter(written.values())))
    parts = {"day_0": num_rows} if parts is None else parts
    assert sum(parts.values()) == num_rows, (dict(parts), num_rows)
    wide = np.stack([values.astype(np.float64) for values in written.values()], axis=1)
    rule = MergeRule.fixed("mean_logit", members=list(written))
    columns: dict[str, NDArray] = {**kept, **{logit_column(name): values for name, values in written.items()}}
    if options.get("probabilities"):
        columns |= {
            probability_column(name): torch.from_numpy(values).double().sigmoid().float().numpy()
            for name, values in written.items()
        }
    columns |= {
        LOGIT_MERGED: rule.logits(torch.from_numpy(wide)).float().numpy(),
        MERGED: rule.probabilities(torch.from_numpy(wide)).float().numpy(),
    }
    marks = None if labels is None else np.asarray(labels).astype(np.int8)
    manifest = PredictionManifest(
        members=tuple(written),
        parts=dict(parts),
        files=tuple(_files(folder, columns, marks, parts=parts, range_rows=range_rows)),
        kept=tuple(kept),
        merge=rule.as_json(),
        checkpoints=(ScoredCheckpoint(label="", folder="runs/made/checkpoints/step_0000000007", step=7),),
        data={"root": "data/made", "dictionary": options.get("dictionary", DICTIONARY)},
        settings={
            "dtype": str(dtype),
            "range_rows": range_rows,
            "probabilities": bool(options.get("probabilities")),
        },
    )
    if options.get("figures", True):
        figures = prediction_figures(Predictions(folder, manifest=manifest), memory_bytes=_MEMORY_BYTES)
        manifest = replace(
            manifest, metrics=figures.metrics, metrics_by_part=figures.by_part, calibration_curves=figures.curves
        )
    manifest.write(folder)
    return folder


def _files(
    folder: str,
    columns: Mapping[str, NDArray],
    labels: NDArray[np.int8] | None,
    *,
    parts: Mapping[str, int],
    range_rows: int,
) -> list[PredictionFile]:
    files, before = [], 0
    for part, rows in parts.items():
        for first in range(0, rows, range_rows):
            count = min(range_rows, rows - first)
            here = slice(before + first, before + first + count)
            table = pa.table(
                {
                    PART: pa.array([part] * count, type=pa.string()).dictionary_encode(),
                    ROW: np.arange(first, first + count, dtype=np.int64),
                    LABEL: pa.nulls(count, pa.int8()) if labels is None else labels[here],
                    **{name: values[here] for name, values in columns.items()},
                }
            )
            buffer = io.BytesIO()
            pq.write_table(table, buffer)
            name = f"{part}-{first:012d}.parquet"
            path = storage.join(folder, name)
            storage.write_bytes(path, buffer.getvalue(), durable=False)
            files.append(
                PredictionFile(
                    path=name,
                    part=part,
                    first_row=first,
                    num_rows=count,
                    label_sum=None if labels is None else int(labels[here].sum()),
                    row_hash=f"{hash_range(part, first_row=first, num_rows=count):016x}",
                    num_bytes=storage.num_bytes(path),
                    sha256=storage.sha256(path),
                )
            )
        before += rows
    return files
