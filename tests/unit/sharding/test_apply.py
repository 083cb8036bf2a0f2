"""A model sharded over one rank: the plain model's logits, and members without a wrapper around them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    SplitTableBatchedEmbeddingBagsCodegen,
)
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from modules.tables import FIRST_ORDER_DIM
from modules.task import EnsembleTask
from sharding.apply import admit_tables_without_rows
from sharding.constraints import SHARDING_TYPES
from sharding.initialisation import TableInit, initial_block, initialise_tables
from tests.unit.modules.small import batch, deepfm, ensemble, mlp
from tests.unit.sharding.world_of_one import shard_for_one, two_member_specs, two_member_task


@pytest.mark.parametrize("placement", SHARDING_TYPES)
def test_a_sharded_model_gives_the_plain_models_logits(placement: str, group: dist.ProcessGroup) -> None:
    specs = two_member_specs()
    placements = {table.name: placement if table.dim > FIRST_ORDER_DIM else "table_wise" for table in specs}
    model = shard_for_one(two_member_task(specs), placements, group=group)
    inits = {table.name: TableInit(seed=index, bound=0.4) for index, table in enumerate(specs)}
    initialise_tables(model.state_dict(), inits=inits)
    plain = EnsembleTask(ensemble({"deep": mlp(seed=1), "fm": deepfm(seed=2)}, groups={"deep": "deep", "fm": "shared"}))
    for table in specs:
        weight = plain.ensemble.tables.embedding_bags[table.name].weight
        whole = initial_block(
            inits[table.name],
            first_row=0,
            num_rows=table.num_rows,
            first_column=0,
            num_columns=table.dim,
            dim=table.dim,
        )
        weight.data.copy_(torch.from_numpy(whole))
    _, found = model(batch(12))
    _, expected = plain(batch(12))
    torch.testing.assert_close(found.logits_BM, expected.logits_BM, rtol=0, atol=1e-6)


def test_members_are_not_wrapped(group: dist.ProcessGroup) -> None:
    specs = two_member_specs()
    model = shard_for_one(two_member_task(specs), {table.name: "data_parallel" for table in specs}, group=group)
    wrapped = [module for module in model.modules() if isinstance(module, DistributedDataParallel)]
    of_members = {id(p) for p in model.module.ensemble.bank.parameters()}
    assert of_members
    assert not [p for wrapper in wrapped for p in wrapper.parameters() if id(p) in of_members]
    assert {p.device.type for p in model.parameters()} == {"cpu"}


@pytest.mark.parametrize("rows", [(3, 0), (0, 3), (0, 0), (0,), (3, 0, 0)])
def test_a_kernel_may_lack_the_rows_of_a_table(rows: tuple[int, ...]) -> None:
    """As on the last ranks of a row-wise table with few rows: it takes part, with bags that are empty."""
    kernel = SplitTableBatchedEmbeddingBagsCodegen(
        [(num_rows, 4, EmbeddingLocation.HOST, ComputeDevice.CPU) for num_rows in rows]
    )
    lookup = nn.Module()
    lookup._emb_modules = [SimpleNamespace(emb_module=kernel)]
    model = nn.Module()
    model._lookups = [lookup]
    admit_tables_without_rows(model)
    ends = kernel.hash_size_cumsum.tolist()
    assert all(any(end > start for end in ends[index + 1 :]) for index, start in enumerate(ends[: len(rows)]))
    before = kernel.weights_host.detach().clone()
    lengths = torch.tensor([[2, 1] if num_rows else [0, 0] for num_rows in rows]).reshape(-1)
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    ids = torch.zeros(int(offsets[-1]), dtype=torch.long)
    output = kernel(ids, offsets)
    assert output.shape == (2, 4 * len(rows))
    output.sum().backward()
    assert torch.equal(kernel.weights_host, before) == (not any(rows))
    assert [tuple(weight.shape) for weight in kernel.split_embedding_weights()] == [(num, 4) for num in rows]
