"""Batch norm's running statistics for averaged weights, by a pass over training rows.

The mean of running statistics belongs to no network: averaged weights have activations of their own. So they are taken
anew, as Izmailov et al. do ("Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018, arXiv
1803.05407, section 3.2; torch.optim.swa_utils.update_bn is theirs): training forwards without a step, dropout included,
each batch counting by its rows.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from configs.errors import ConfigError
from configs.loader import read_run
from configs.schema import RunConfig
from modules import members
from modules.layers.batch_norm import BatchNorm
from modules.task import EnsembleTask
from trainer import storage
from trainer.available_memory import available_bytes
from trainer.built_task import build_task
from trainer.checkpoints.averaging import Average
from trainer.checkpoints.manifest import RUN_NAME
from trainer.checkpoints.matching import check_same_features, check_same_model
from trainer.checkpoints.stored_checkpoint import WEIGHTS
from trainer.data.reading.batch import Batch
from trainer.data.reading.loading import BatchReader, slice_size
from trainer.data.reading.opening import open_sources
from trainer.data.reading.order import RowOrder
from trainer.data.reading.source import RowSource
from trainer.row_progress import RowProgress

_STATISTICS = ("running_mean", "running_var")


def statistics_keys(average: Average) -> list[str]:
    """Keys of the running statistics in the checkpoints; none where no member has batch norm."""
    return [key for key in average.sources[-1].weights if key.endswith(tuple(f".{name}" for name in _STATISTICS))]


def recomputed_statistics(average: Average, *, num_rows: int, data_root: str = "") -> dict[str, Tensor]:
    """Running statistics of the averaged weights, by key, on the CPU.

    Batches are those of a rank of the newest run's first epoch, as many as hold `num_rows` rows; those of frozen
    members stay as they are averaged. All tables are put into the memory of this process: of a GPU where they fit,
    else of the machine.

    Args:
        average: The weights.
        num_rows: How many rows to take, at least 2; whole batches, so up to a batch more, and an epoch at most.
        data_root: Where the newest run's prepared data are now; empty: where its run.toml says.

    Raises:
        ConfigError: no member has batch norm, there are too few rows, or the weights do not fit into memory.
        DataError: the rows are of other features than the checkpoints.
        CheckpointError: the weights cannot be read.
    """
    newest = average.sources[-1]
    if not statistics_keys(average):
        raise ConfigError("--batch-norm-rows: no member has batch norm; leave it out")
    if num_rows < 2:
        raise ConfigError(f"--batch-norm-rows: {num_rows} rows have no variance; give 2 or more, as 100000")
    device = _device(average)
    config = _run_of(average, data_root=data_root)
    source = open_sources(config.data).train
    check_same_features(newest.manifest, source.features, root=config.data.root)
    task = _averaged_task(average, config=config, source=source).to(device).train()
    norms = {name: layer for name, layer in task.named_modules() if isinstance(layer, BatchNorm) and layer.training}
    rows = slice_size(batch_size=config.train.batch_size, world_size=newest.manifest.world_size)
    reader = BatchReader(source=source, batch_size=rows, rank=0, world_size=1)
    with torch.no_grad():
        for step, (batch, count, share) in enumerate(_batches(reader, config=config, num_rows=num_rows)):
            for layer in norms.values():
                layer.momentum = share
            task.begin_step(step=step, rank=0, num_rows=count)
            on_device = batch.to(device)
            task.ensemble(on_device.dense_BN, on_device.sparse)
    return {
        f"{WEIGHTS}{name}.{which}": getattr(layer, which).cpu()
        for name, layer in norms.items()
        for which in _STATISTICS
    }


def _device(average: Average) -> torch.device:
    newest = average.sources[-1]
    need = newest.num_bytes(newest.weights)
    devices = [torch.device("cuda")] * torch.cuda.is_available() + [torch.device("cpu")]
    for device in devices:
        if need < available_bytes(device):
            return device
    raise ConfigError(
        f"--batch-norm-rows: the weights take {need / 1e9:,.2f} GB, {available_bytes(devices[-1]) / 1e9:,.2f} GB are"
        " available; take a machine with more memory, or leave it out"
    )


def _run_of(average: Average, *, data_root: str) -> RunConfig:
    path = storage.join(average.sources[-1].folder, RUN_NAME)
    config = read_run(
        storage.read_text(path), source=path, resolve_arch=members.config_class, arch_kinds=members.kinds()
    )
    # Stacked members keep their layers' statistics elsewhere in the meantime; one by one they are the same.
    config = dataclasses.replace(config, dense=dataclasses.replace(config.dense, batch_copies=False))
    if data_root:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, root=data_root))
    return config


def _averaged_task(average: Average, *, config: RunConfig, source: RowSource) -> EnsembleTask:
    built = build_task(config, features=source.features)
    check_same_model(average.sources[-1].manifest, built.facts)
    task = built.task
    task.ensemble.tables.to_empty(device="cpu")  # from meta
    progress = RowProgress("loading", average.num_bytes, unit="MiB")
    with torch.no_grad():
        for name, value in task.state_dict().items():
            first = 0
            for block in average.blocks(WEIGHTS + name, advance=progress.add):
                if value.dim():
                    value[first : first + len(block)].copy_(block)
                    first += len(block)
                else:
                    value.copy_(block)
    return task


def _batches(reader: BatchReader, *, config: RunConfig, num_rows: int) -> Iterator[tuple[Batch, int, float]]:
    """Batches, how many of each one's rows are real, and what part of all real rows up to its end they are."""
    order = RowOrder(num_rows=reader.num_rows, seed=config.data.seed, window=config.data.shuffle_window)
    rows_of_batch = reader.rows_of_step(0)
    wanted = min(-(-num_rows // rows_of_batch) * rows_of_batch, reader.num_rows)
    progress = RowProgress("batch norm", wanted)
    done = first = 0
    with contextlib.closing(reader.batches(order)) as batches:
        for batch in batches:
            count = reader.rows_of_step(first)
            first += count
            if count > 1:  # a single row, as the last batch may have, has no variance
                done += count
                yield batch, count, count / done
                progress.add(count)
            if first >= wanted:
                break
    if not done:
        raise ConfigError("train.batch_size: batch norm needs batches of two or more rows; these have one")
