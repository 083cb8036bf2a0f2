"""Averaged weights: checkpoints of one model, of one run or of several, to a checkpoint that can be scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from configs.errors import ConfigError
from trainer.batch_norm_statistics import recomputed_statistics
from trainer.checkpoints.averaging import Average, Rule, refuse_existing, write_average
from trainer.checkpoints.verification import refuse_damaged, total_bytes
from trainer.row_progress import RowProgress


def averaged(
    folders: Sequence[str],
    *,
    rule: Rule = "sma",
    decay: float | None = None,
    output: str,
    batch_norm_rows: int = 0,
    data_root: str = "",
) -> Average:
    """Verifies checkpoints, averages their weights and writes the mean; in one process, progress goes to stderr.

    Args:
        folders: Checkpoints, or runs' folders for their newest ones; see `Average.of`.
        rule: sma, ema or wma.
        decay: Of ema.
        output: A new folder, a checkpoint of weights alone.
        batch_norm_rows: Training rows from which batch norm's running statistics are taken anew; 0: they are averaged.
        data_root: Where these rows are prepared; empty: where the newest checkpoint's run.toml says.

    Raises:
        CheckpointError: a checkpoint is damaged, they are of different models, or the output is there already.
        ConfigError: decay or batch_norm_rows are refused.
        DataError: the rows cannot be read, or are of other features.
    """
    if batch_norm_rows < 0:
        raise ConfigError(f"--batch-norm-rows: {batch_norm_rows} is below 0; give a number of rows, or leave it out")
    if data_root and not batch_norm_rows:
        raise ConfigError("--data-root: no rows are read; give --batch-norm-rows, or leave it out")
    refuse_existing(output)
    average = Average.of(folders, rule=rule, decay=decay)
    sources = [source.folder for source in average.sources]
    verifying = RowProgress("verifying", total_bytes(sources), unit="MiB")
    for folder in sources:
        refuse_damaged(folder, advance=verifying.add)
    statistics = {}
    if batch_norm_rows:
        statistics = recomputed_statistics(average, num_rows=batch_norm_rows, data_root=data_root)
        average = dataclasses.replace(average, how=average.how | {"batch_norm_rows": batch_norm_rows})
    advance = RowProgress("averaging", average.num_bytes, unit="MiB").add
    write_average(average, folder=output, advance=advance, instead=statistics)
    return average
