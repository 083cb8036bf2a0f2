"""The state of tables that update in the backward pass: keys that no plan changes, shapes, live tensors."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torchrec.distributed.model_parallel import DistributedModelParallel

from configs.ensemble_schema import COLUMN_PLACEMENTS
from modules.tables import FIRST_ORDER_DIM, TableSpec
from sharding.constraints import SHARDING_TYPES
from tests.unit.modules.small import batch
from tests.unit.sharding.world_of_one import shard_for_one, two_member_specs, two_member_task
from trainer.optimizers import update_tables_in_backward
from trainer.runtime import Runtime
from trainer.table_state import column_pieces, fused_state_tensors

START = 2.0**-20  # small enough that the square of a gradient is not lost beside it
FUSED = [placement for placement in SHARDING_TYPES if placement != "data_parallel"]


def sharded(
    runtime: Runtime, *, placement: str, rule: str
) -> tuple[DistributedModelParallel, list[TableSpec], list[str]]:
    """The model, its tables, and the names of those that lie under the placement: all but first-order ones."""
    specs = two_member_specs(optimizer=rule)
    task = two_member_task(specs)
    update_tables_in_backward(task, specs)
    placements = {spec.name: placement if spec.dim > FIRST_ORDER_DIM else "table_wise" for spec in specs}
    model = shard_for_one(task, placements, group=runtime.group)
    return model, specs, [spec.name for spec in specs if spec.dim > FIRST_ORDER_DIM]


@pytest.mark.parametrize("placement", FUSED)
@pytest.mark.parametrize("rule", ["sgd", "adagrad", "rowwise_adagrad"])
def test_keys_and_shapes(runtime: Runtime, placement: str, rule: str) -> None:
    model, specs, _ = sharded(runtime, placement=placement, rule=rule)
    found = {key: tuple(value.size()) for key, value in fused_state_tensors(model, specs)}
    expected = {}
    for spec in specs:
        in_pieces = placement in COLUMN_PLACEMENTS and spec.dim > FIRST_ORDER_DIM
        if spec.optimizer == "adagrad":
            expected[f"tables/{spec.name}/sum"] = (spec.num_rows, spec.dim)
        elif spec.optimizer == "rowwise_adagrad" and in_pieces:
            expected[f"tables/{spec.name}/column_sums"] = (2 * spec.num_rows,)
        elif spec.optimizer == "rowwise_adagrad":
            expected[f"tables/{spec.name}/sum"] = (spec.num_rows,)
    assert found == expected


@pytest.mark.parametrize("placement", SHARDING_TYPES)
def test_column_pieces_are_those_of_split_tables(runtime: Runtime, placement: str) -> None:
    model, _, names = sharded(runtime, placement=placement, rule="adagrad")
    expected = {name: [(0, 4), (4, 4)] for name in names} if placement in COLUMN_PLACEMENTS else {}
    assert column_pieces(model.state_dict()) == expected


@pytest.mark.parametrize("placement", ["table_wise", "column_wise", "grid"])
def test_tensors_are_live(runtime: Runtime, placement: str) -> None:
    model, specs, _ = sharded(runtime, placement=placement, rule="rowwise_adagrad")
    tensors = dict(fused_state_tensors(model, specs))
    for value in tensors.values():
        for shard in value.local_shards():
            shard.tensor.fill_(START)
    model(batch(16))[0].backward()
    for key, value in fused_state_tensors(model, specs):
        for shard in value.local_shards():
            assert (shard.tensor >= START).all() and (shard.tensor > START).any(), key


def test_the_sums_of_first_pieces_come_first(runtime: Runtime) -> None:
    """Only the first four columns get a gradient, so only the first piece's sums grow."""
    model, specs, names = sharded(runtime, placement="column_wise", rule="rowwise_adagrad")
    output = model.module.ensemble.tables(batch(16).sparse)
    (output["C1@deep/C1"][:, :4] * 3.0).sum().backward()
    (shards,) = [
        v.local_shards() for k, v in fused_state_tensors(model, specs) if k == f"tables/{names[0]}/column_sums"
    ]
    sums = torch.full((2 * specs[0].num_rows,), torch.nan)
    for shard in shards:
        (first,) = shard.metadata.shard_offsets
        sums[first : first + len(shard.tensor)] = shard.tensor
    first, second = sums.view(2, -1)
    assert (first > 0).any() and not second.any()


def test_adams_states_are_named_as_a_replicated_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the libraries' sources name them; the kernel itself runs on CUDA alone."""
    spec = two_member_specs()[0]
    adam = [TableSpec(**{**vars(spec), "optimizer": "adam"})]
    mean, square, count = torch.zeros(11, 8), torch.ones(11, 8), torch.tensor([7])
    states = {f"{spec.name}.momentum1": mean, f"{spec.name}.exp_avg_sq": square}
    optimizer = SimpleNamespace(state_dict=lambda: {"state": {f"embedding_bags.{spec.name}.weight": states}})
    kernel = SimpleNamespace(tables=(spec.name,), module=SimpleNamespace(iter=count))
    monkeypatch.setattr("trainer.table_state.fused_kernels", lambda _model: [kernel])
    model: Any = SimpleNamespace(fused_optimizer=optimizer)
    found = dict(fused_state_tensors(model, adam))
    assert found[f"tables/{spec.name}/exp_avg"] is mean
    assert found[f"tables/{spec.name}/exp_avg_sq"] is square
    step = found[f"tables/{spec.name}/step"]
    assert len(found) == 3 and step.shape == () and int(step) == 7
    step.fill_(9)
    assert int(count) == 9
