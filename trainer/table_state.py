"""The optimizer state of the tables that update in the backward pass, under keys that no plan changes.

TorchRec names a kernel's first state `momentum1` whatever the rule is; a step is not among its states at all.
What each rule's states are called on CUDA under Adam is read in the sources of TorchRec 1.8 and fbgemm 1.8
(`EmbeddingFusedOptimizer`, `get_optimizer_state`); only a GPU can run it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from torch import Tensor
from torchrec.distributed.model_parallel import DistributedModelParallel

from modules.tables import TableSpec
from sharding.fused_kernels import fused_kernels
from sharding.shards import table_name, table_shards

# Rule -> TorchRec's name of a state -> ours.
_STATE_NAMES: Mapping[str, Mapping[str, str]] = {
    "sgd": {},
    "adagrad": {"momentum1": "sum"},
    "rowwise_adagrad": {"momentum1": "sum"},
    "adam": {"momentum1": "exp_avg", "exp_avg_sq": "exp_avg_sq"},
}


def fused_state_tensors(model: DistributedModelParallel, specs: Sequence[TableSpec]) -> Iterator[tuple[str, Tensor]]:
    """Every state of every table of which this rank holds a piece, as (key, live tensor).

    - `tables/TABLE/sum`: sums of squared gradients, [rows] under row-wise Adagrad and [rows, dim] under Adagrad.
    - `tables/TABLE/column_sums`: under row-wise Adagrad where rows are in more than one piece, [pieces * rows]: the
      sums of the rows' first pieces, then those of the second, and so on, in the order of `column_pieces`.
    - `tables/TABLE/exp_avg` and `tables/TABLE/exp_avg_sq`, [rows, dim], and `tables/TABLE/step`, []: under Adam.

    SGD keeps nothing. Tables under data-parallel are not here: they are dense parameters.
    """
    by_name = {spec.name: spec for spec in specs}
    for key, states in model.fused_optimizer.state_dict()["state"].items():
        spec = by_name[str(table_name(key))]
        names = _STATE_NAMES[spec.optimizer]
        for state, value in states.items():
            name = names[state.rpartition(".")[2]]
            if spec.optimizer == "rowwise_adagrad" and value.size()[0] != spec.num_rows:
                name = "column_sums"
            yield f"tables/{spec.name}/{name}", value
    for kernel in fused_kernels(model):
        for table in kernel.tables:
            if by_name[table].optimizer == "adam":
                # A kernel counts once for all its tables, and takes the count up again before its first step.
                yield f"tables/{table}/step", cast(Tensor, kernel.module.iter)[0]


def column_pieces(model_state: Mapping[str, Tensor]) -> dict[str, list[tuple[int, int]]]:
    """Table name -> (first column, columns) of each piece, by column, for every table whose rows are in several.

    Args:
        model_state: A sharded model's `state_dict()`; every rank gets the same answer.
    """
    return {
        table: list(shards.column_pieces)
        for table, shards in table_shards(model_state).items()
        if len(shards.column_pieces) > 1
    }
