"""Initial table weights that depend on (seed, row, column) alone, so that no plan can change them.

Stock initialisation runs once per shard and gives other weights under every plan. Here element
(row, column) is a counter-based random number: splitmix64 (Steele, Lea, Flood, OOPSLA 2014) of
seed + row * dim + column, whose top 24 bits become a float32 in [-bound, bound). Each rank writes
its own shards; no rank holds a whole table that is not its own, and nothing is communicated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sharding.shards import table_shards

_ROWS_AT_ONCE = 16_384
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, kw_only=True)
class TableInit:
    """How one table starts."""

    seed: int
    bound: float


def initial_block(
    init: TableInit, *, first_row: int, num_rows: int, first_column: int, num_columns: int, dim: int
) -> NDArray[np.float32]:
    """Rows [first_row, first_row + num_rows) of some columns of a table of `dim` columns.

    Returns:
        float32 array [num_rows, num_columns], uniform in [-bound, bound).
    """
    rows = np.arange(first_row, first_row + num_rows, dtype=np.uint64)[:, None]
    columns = np.arange(first_column, first_column + num_columns, dtype=np.uint64)[None, :]
    with np.errstate(over="ignore"):
        state = (rows * np.uint64(dim) + columns + np.uint64(1)) * _GOLDEN + np.uint64(init.seed)
        state = (state ^ (state >> np.uint64(30))) * _MIX_1
        state = (state ^ (state >> np.uint64(27))) * _MIX_2
        state ^= state >> np.uint64(31)
    unit = (state >> np.uint64(40)).astype(np.float32) * np.float32(2**-23) - np.float32(1.0)
    return unit * np.float32(init.bound)


@torch.no_grad()
def initialise_tables(model_state: Mapping[str, Tensor], *, inits: Mapping[str, TableInit]) -> None:
    """Fills every local shard in place.

    Args:
        model_state: The sharded model's `state_dict()`, whose tensors are live views.
        inits: Table name -> how it starts.
    """
    filled = set()
    for table, shards in table_shards(model_state).items():
        init = inits[table]
        filled.add(table)
        for shard in shards.local:
            num_rows, num_columns = shard.tensor.shape
            for start in range(0, num_rows, _ROWS_AT_ONCE):
                count = min(_ROWS_AT_ONCE, num_rows - start)
                block = initial_block(
                    init,
                    first_row=shard.first_row + start,
                    num_rows=count,
                    first_column=shard.first_column,
                    num_columns=num_columns,
                    dim=shards.dim,
                )
                shard.tensor[start : start + count].copy_(torch.from_numpy(block))
    missing = set(inits) - filled
    assert not missing, f"tables without a place in the model: {sorted(missing)}"
