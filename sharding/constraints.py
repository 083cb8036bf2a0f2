"""The config's wishes per table, as TorchRec ParameterConstraints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.planner import ParameterConstraints
from torchrec.distributed.types import ShardingType

from configs.ensemble_schema import COLUMN_PLACEMENTS
from configs.errors import ConfigError

SHARDING_TYPES: Mapping[str, ShardingType] = {
    "data_parallel": ShardingType.DATA_PARALLEL,
    "table_wise": ShardingType.TABLE_WISE,
    "row_wise": ShardingType.ROW_WISE,
    "column_wise": ShardingType.COLUMN_WISE,
    "table_row_wise": ShardingType.TABLE_ROW_WISE,
    "table_column_wise": ShardingType.TABLE_COLUMN_WISE,
    "grid": ShardingType.GRID_SHARD,
}
# What `auto` lets the planner choose from. Column-wise kinds are left out: under row-wise Adagrad
# they are another optimizer, since each column shard keeps its own state per row.
AUTO_PLACEMENTS = ("data_parallel", "table_wise", "row_wise")

KERNELS: Mapping[str, EmbeddingComputeKernel] = {
    "fused": EmbeddingComputeKernel.FUSED,
    "uvm": EmbeddingComputeKernel.FUSED_UVM,
    "uvm_caching": EmbeddingComputeKernel.FUSED_UVM_CACHING,
}
_HOST_KERNEL_NAMES = ("uvm", "uvm_caching")
HOST_MEMORY_KERNELS = tuple(KERNELS[name].value for name in _HOST_KERNEL_NAMES)

_COLUMNS_AT_ONCE = 4  # the kernels read vectors of four floats
_MOST_PIECES = 4
# TorchRec takes a rank that holds the only row for one with whole columns, and its row-wise sums do not fit together.
_FEWEST_GRID_ROWS = 2


@dataclass(frozen=True, kw_only=True)
class TableWish:
    """What the config says of one table."""

    key: str  # where it says so, as `tables.shared`
    num_rows: int
    dim: int
    optimizer: str
    placement: str = "auto"
    kernel: str = "auto"
    mean_ids: float = 1.0  # looked up in it by a row


def piece_columns(dim: int) -> int:
    """Columns of one piece under the column-wise placements; `dim` itself where the table cannot be split.

    The cut depends on the dimension alone, so that row-wise Adagrad, which keeps a sum per piece of
    a row, is the same optimizer on any number of ranks and under each of the column-wise placements.
    Four pieces where they come out even, else three or two; past that, as few as there can be.
    """
    blocks = dim // _COLUMNS_AT_ONCE
    counts = [count for count in range(2, blocks + 1) if dim % (count * _COLUMNS_AT_ONCE) == 0]
    few = [count for count in counts if count <= _MOST_PIECES]
    return dim // (few[-1] if few else counts[0] if counts else 1)


def table_constraints(
    wishes: Mapping[str, TableWish], *, device: Literal["cpu", "cuda"], host_memory: bool = True
) -> dict[str, ParameterConstraints]:
    """Table name -> what the planner may choose for it.

    Args:
        wishes: Table name -> what the config says of it.
        device: What the ranks compute on.
        host_memory: Whether kernel auto on a GPU may mean host memory where GPU memory does not suffice.

    Raises:
        ConfigError: a wish that this device or this table cannot meet.
    """
    for table, wish in wishes.items():
        problem = _problem(table, wish, device=device)
        if problem is not None:
            raise ConfigError(problem)
    return {
        table: ParameterConstraints(
            sharding_types=[SHARDING_TYPES[placement].value for placement in _placements(wish, device=device)],
            compute_kernels=_kernels(wish, host_memory=host_memory and device == "cuda"),
            pooling_factors=[wish.mean_ids],
            min_partition=piece_columns(wish.dim) if wish.placement in COLUMN_PLACEMENTS else None,
        )
        for table, wish in wishes.items()
    }


def _placements(wish: TableWish, *, device: str) -> tuple[str, ...]:
    if wish.placement != "auto":
        return (wish.placement,)
    if wish.optimizer == "adam" and device == "cpu":
        return ("data_parallel",)
    host_memory = wish.kernel in _HOST_KERNEL_NAMES
    return tuple(placement for placement in AUTO_PLACEMENTS if not (host_memory and placement == "data_parallel"))


def _kernels(wish: TableWish, *, host_memory: bool) -> list[str]:
    # A data-parallel table is a dense parameter, whatever the kernel of the others.
    kernels = [EmbeddingComputeKernel.DENSE]
    if wish.kernel != "auto":
        kernels.append(KERNELS[wish.kernel])
    else:
        kernels.extend(KERNELS.values() if host_memory else [EmbeddingComputeKernel.FUSED])
    return [kernel.value for kernel in kernels]


def _problem(table: str, wish: TableWish, *, device: str) -> str | None:
    placement = f"{wish.key}: placement {wish.placement!r} of table {table}"
    kernel = f"{wish.key}: kernel {wish.kernel!r} of table {table}"
    if device == "cpu" and wish.kernel in _HOST_KERNEL_NAMES:
        return f"{kernel} is for GPU hosts, and a CPU job has host memory only; take 'auto', or run on GPUs"
    if wish.placement == "data_parallel" and wish.kernel in _HOST_KERNEL_NAMES:
        return (
            f"{kernel} does not go with placement 'data_parallel', whose copies lie in GPU memory;"
            " take kernel 'auto', or another placement"
        )
    if wish.dim % _COLUMNS_AT_ONCE and wish.placement != "data_parallel":
        return (
            f"{placement} needs columns that are a multiple of {_COLUMNS_AT_ONCE}, and the table has {wish.dim}; take"
            " 'data_parallel', or another dim"
        )
    if wish.placement in COLUMN_PLACEMENTS and piece_columns(wish.dim) == wish.dim:
        return (
            f"{placement} splits columns into pieces of a multiple of {_COLUMNS_AT_ONCE}, and the table has"
            f" {wish.dim}; take dim = {2 * _COLUMNS_AT_ONCE} or more, or another placement"
        )
    if wish.optimizer == "adam" and device == "cpu" and wish.placement not in ("auto", "data_parallel"):
        return (
            f"{placement} needs a GPU with optimizer 'adam', which no CPU kernel has;"
            " take 'data_parallel' or 'auto', another optimizer, or run on GPUs"
        )
    if wish.placement == "grid" and wish.num_rows < _FEWEST_GRID_ROWS:
        return (
            f"{placement} cuts rows too, and the table has {wish.num_rows}; take 'column_wise' or 'table_wise' for it,"
            " as features.NAME.placement"
        )
    return None
