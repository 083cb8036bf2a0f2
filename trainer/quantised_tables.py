"""QuantisedTables: all embedding tables on one rank, rows as float16 or int8, for scoring without any exchange.

The lookup is TorchRec's quantised EmbeddingBagCollection on FBGEMM's kernels, on CPU and CUDA; pooled embeddings come
out as float32. A row of int8 is a scale and a bias, both float16, and round((w - bias) / scale) of each weight, with
bias the row's least weight and 255 steps up to its largest (FBGEMM's FloatOrHalfToFusedNBitRowwiseQuantizedSBHalf).

Every rank holds all tables. A quantised collection that is sharded does not help here: TorchRec's inference sharding is
of one process over its own GPUs, not of ranks over a process group (meta-pytorch/torchrec issue 2575), and on the CPU
builds sharding it ends in "Torch not compiled with CUDA enabled". Once a process group can be given, shard it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from fbgemm_gpu.split_embedding_configs import SparseType
from fbgemm_gpu.split_table_batched_embeddings_ops_inference import rounded_row_size_in_bytes
from torch import Tensor, nn
from torchrec.modules.embedding_configs import DataType, EmbeddingBagConfig
from torchrec.quant.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from configs.errors import CheckpointError, ConfigError
from modules.tables import TableSpec
from sharding.shards import table_name
from trainer.available_memory import available_bytes
from trainer.built_task import BuiltTask
from trainer.checkpoints.manifest import CheckpointManifest
from trainer.checkpoints.stored_checkpoint import WEIGHTS, StoredCheckpoint
from trainer.clock import clock

RowType = Literal["fp16", "int8"]
_TYPES = {"fp16": (DataType.FP16, SparseType.FP16), "int8": (DataType.INT8, SparseType.INT8)}
_ALIGNMENT = {"cpu": 4, "cuda": 16}  # bytes that rows are padded to; the GPU's kernels load 16 at once
_WHOLE_COLUMNS = 4  # rows are padded to a multiple, which the kernels and the quantising operator take everywhere
_LARGEST = float(torch.finfo(torch.float16).max)
_SAY_SECONDS = 5.0


class QuantisedTables(nn.Module):
    """Tables in place of `Ensemble.tables`; `forward` gives the same keys and dims, pooled by sum, float32.

    Args:
        specs: All tables, in the order of the collection that it stands for.
        dtype: Of the rows.
        device: Where they lie; all rows are 0 until `fill`.
    """

    def __init__(self, specs: Sequence[TableSpec], *, dtype: RowType, device: torch.device) -> None:
        super().__init__()
        self._dtype = dtype
        self._dims = [spec.dim for spec in specs]
        self._padded = any(dim != _padded(dim) for dim in self._dims)
        self.collection = EmbeddingBagCollection(
            tables=[
                EmbeddingBagConfig(
                    name=spec.name,
                    feature_names=[spec.feature],
                    num_embeddings=spec.num_rows,
                    embedding_dim=_padded(spec.dim),
                    data_type=_TYPES[dtype][0],
                )
                for spec in specs
            ],
            is_weighted=False,
            device=device,
            row_alignment=_ALIGNMENT[device.type],
        )

    def forward(self, sparse: KeyedJaggedTensor) -> KeyedTensor:
        """Pooled embeddings of each bag; those of an empty bag are 0."""
        pooled: KeyedTensor = self.collection(sparse)
        if not self._padded:
            return pooled
        keys, of_key = pooled.keys(), pooled.to_dict()
        values = torch.cat([of_key[key][:, :dim] for key, dim in zip(keys, self._dims, strict=True)], dim=1)
        return KeyedTensor(keys=keys, length_per_key=self._dims, values=values)

    def fill(self, name: str, blocks: Iterable[Tensor]) -> None:
        """Quantises a table's rows, float [rows, dim] in blocks of rows; no more than a block is held as float.

        Raises:
            ValueError: a weight is not finite, or larger than float16 goes; says which row.
        """
        rows: Tensor = self.collection.embedding_bags[name].weight
        first = 0
        for block in blocks:
            _check(block, first_row=first)
            coded = _coded(block, dtype=self._dtype)
            rows[first : first + len(block), : coded.shape[1]].copy_(coded)
            first += len(block)
        assert first == len(rows), f"{name}: {first} rows of {len(rows)}"


def quantised_model(
    built: BuiltTask,
    manifest: CheckpointManifest,
    *,
    dtype: RowType,
    device: torch.device,
    say: Callable[[str], None],
    ranks_beside: int = 1,
) -> nn.Module:
    """The task of a checkpoint with quantised tables, for this rank alone; called on a batch as the sharded task.

    The built task itself is filled and given; tables are read and quantised block by block.

    Args:
        built: The task for these features.
        manifest: Of the checkpoint, which is of this model.
        dtype: Of the tables' rows: fp16 or int8.
        device: Where to put all of it.
        say: Told how far it is every few seconds.
        ranks_beside: Ranks on this host that do the same, this one among them.

    Raises:
        ConfigError: the tables do not fit into the memory that is there.
        CheckpointError: a tensor is not in the checkpoint, or a weight cannot be quantised.
    """
    check_memory(built.specs, dtype=dtype, device=device, ranks_beside=ranks_beside)
    stored = StoredCheckpoint.open(manifest.folder)
    tables = QuantisedTables(built.specs, dtype=dtype, device=device)
    keys = stored.table_weights()
    _check_shapes(stored, {keys.get(spec.name, spec.name): (spec.num_rows, spec.dim) for spec in built.specs})
    progress = _Progress(f"quantising to {dtype}", stored.num_bytes([keys[spec.name] for spec in built.specs]), say)
    for spec in built.specs:
        try:
            tables.fill(spec.name, progress.over(stored.blocks(keys[spec.name])))
        except ValueError as error:
            raise CheckpointError(
                f"{manifest.folder}: table {spec.name}: {error}, which {dtype} rows cannot hold; score with"
                ' score.tables = "sharded", or take an earlier checkpoint'
            ) from error
    task = built.task
    _load_dense(task, stored)
    task.ensemble.tables = tables
    return task.to(device).eval()


def check_memory(specs: Sequence[TableSpec], *, dtype: RowType, device: torch.device, ranks_beside: int = 1) -> None:
    """Compares what the tables of all ranks on this host take with what is there.

    Raises:
        ConfigError: it is less.
    """
    num_ranks = 1 if device.type == "cuda" else ranks_beside  # each has a GPU of its own
    need, there = num_ranks * quantised_bytes(specs, dtype=dtype, device=device), available_bytes(device)
    if need > there:
        of_ranks = f"{num_ranks} ranks on this host" if num_ranks > 1 else "a rank"
        other = "int8, or " if dtype == "fp16" else ""
        raise ConfigError(
            f"score.tables: {dtype} tables of {of_ranks} take {need / 1e9:,.2f} GB, {there / 1e9:,.2f} GB are"
            f" available; take {other}sharded, which spreads them over the ranks"
            + (", or start fewer ranks on a host" if num_ranks > 1 else "")
        )


def quantised_bytes(specs: Sequence[TableSpec], *, dtype: RowType, device: torch.device) -> int:
    """What the tables take on a rank."""
    alignment = _ALIGNMENT[device.type]
    return sum(
        spec.num_rows * rounded_row_size_in_bytes(_padded(spec.dim), _TYPES[dtype][1], alignment) for spec in specs
    )


def _padded(dim: int) -> int:
    return -(-dim // _WHOLE_COLUMNS) * _WHOLE_COLUMNS


def _check(block: Tensor, *, first_row: int) -> None:
    largest_of_row = block.abs().amax(dim=1)
    bad = ~(largest_of_row <= _LARGEST)  # NaN included
    if bad.any():
        row = int(bad.nonzero()[0])
        raise ValueError(f"row {first_row + row:,} has the weight {float(largest_of_row[row])!r}")


def _coded(block: Tensor, *, dtype: RowType) -> Tensor:
    """Rows as the kernel keeps them, bytes [rows, bytes of a row]."""
    block = block.float()
    missing = _padded(block.shape[1]) - block.shape[1]
    if missing:  # with what the row holds already, which leaves its range as it is
        block = torch.cat([block, block[:, -1:].expand(-1, missing)], dim=1)
    if dtype == "fp16":
        return block.contiguous().half().view(torch.uint8)
    coded: Tensor = torch.ops.fbgemm.FloatOrHalfToFusedNBitRowwiseQuantizedSBHalf(block.contiguous(), 8)
    return torch.cat([coded[:, -4:], coded[:, :-4]], dim=1)  # the lookup wants scale and bias in front


def _check_shapes(stored: StoredCheckpoint, shapes: dict[str, tuple[int, ...]]) -> None:
    for key, shape in shapes.items():
        found = stored.index.get(key)
        if found is None or found.shape != shape:
            saved = "nothing" if found is None else f"a tensor of shape {list(found.shape)}"
            raise CheckpointError(
                f"{stored.folder}: {key}: {saved} in the checkpoint, where this run has one of shape {list(shape)};"
                " take a checkpoint of this model"
            )


def _load_dense(task: nn.Module, stored: StoredCheckpoint) -> None:
    """Everything but the tables, in place."""
    dense = {name: value for name, value in task.state_dict().items() if table_name(name) is None}
    _check_shapes(stored, {WEIGHTS + name: tuple(value.shape) for name, value in dense.items()})
    for name, value in dense.items():
        blocks = list(stored.blocks(WEIGHTS + name))
        value.copy_(torch.cat(blocks) if value.dim() else blocks[0])


class _Progress:
    """Tells how many bytes of all were read."""

    def __init__(self, what: str, num_bytes: int, say: Callable[[str], None]) -> None:
        self._what, self._num_bytes, self._say = what, num_bytes, say
        self._done = 0
        self._started = self._said = time.monotonic()

    def over(self, blocks: Iterable[Tensor]) -> Iterable[Tensor]:
        for block in blocks:
            yield block
            self._done += block.numel() * block.element_size()
            now = time.monotonic()
            if now - self._said >= _SAY_SECONDS:
                self._said = now
                left = (now - self._started) * (self._num_bytes - self._done) / self._done
                self._say(
                    f"{self._what}: {self._done >> 20:,} of {self._num_bytes >> 20:,} MiB read, ETA {clock(left)}"
                )
