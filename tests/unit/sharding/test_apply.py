"""A model sharded over one rank: the plain model's logits, and members without a wrapper around them."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from modules.task import EnsembleTask
from sharding.initialisation import TableInit, initial_block, initialise_tables
from tests.unit.modules.small import batch, deepfm, ensemble, mlp
from tests.unit.sharding.world_of_one import shard_for_one, two_member_specs, two_member_task


@pytest.mark.parametrize("placement", ["data_parallel", "table_wise", "row_wise"])
def test_a_sharded_model_gives_the_plain_models_logits(placement: str, group: dist.ProcessGroup) -> None:
    specs = two_member_specs()
    model = shard_for_one(two_member_task(specs), {table.name: placement for table in specs}, group=group)
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
