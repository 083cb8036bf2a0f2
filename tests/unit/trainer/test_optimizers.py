"""Optimizers on one rank: every parameter under exactly one rule, the same update under every placement."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from configs.schema import Dense
from modules.tables import TableSpec
from modules.task import EnsembleTask
from sharding.initialisation import TableInit, initialise_tables
from sharding.shards import table_shards
from tests.unit.modules.small import batch
from tests.unit.sharding.world_of_one import shard_for_one, two_member_specs, two_member_task
from trainer.optimizers import TaskOptimizer, member_of, update_tables_in_backward
from trainer.runtime import Runtime

PLACEMENTS = ("data_parallel", "table_wise", "row_wise")
LRS = {"deep": 0.01, "fm": 0.02}


class Sharded:
    """A sharded task with its optimizer."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        placements: tuple[str, ...],
        rule: str = "rowwise_adagrad",
        dense: Dense | None = None,
        task: EnsembleTask | None = None,
    ) -> None:
        self.specs: list[TableSpec] = two_member_specs(optimizer=rule)
        task = task or two_member_task(self.specs)
        update_tables_in_backward(task, self.specs)
        self.placement = {table.name: placements[i % len(placements)] for i, table in enumerate(self.specs)}
        self.model = shard_for_one(task, self.placement, group=runtime.group)
        inits = {table.name: TableInit(seed=i, bound=0.3) for i, table in enumerate(self.specs)}
        initialise_tables(self.model.state_dict(), inits=inits)
        self.optimizer = TaskOptimizer(
            self.model, specs=self.specs, dense=dense or Dense(), dense_lrs=LRS, runtime=runtime
        )

    def step(self, seed: int) -> None:
        self.optimizer.zero_grad()
        loss, _ = self.model(batch(16, seed=seed))
        loss.backward()
        self.optimizer.step()

    def tables(self) -> dict[str, Tensor]:
        return {name: shards.local[0].tensor.clone() for name, shards in table_shards(self.model.state_dict()).items()}


def test_every_parameter_has_one_owner(runtime: Runtime) -> None:
    sharded = Sharded(runtime, placements=PLACEMENTS)
    owners = sharded.optimizer.owners()
    names = {name for name, p in sharded.model.named_parameters() if p.numel()}
    assert names <= set(owners)
    of_table = {
        name.split("embedding_bags.")[1].split(".")[0]: owner for name, owner in owners.items() if "bags" in name
    }
    assert set(of_table) == set(sharded.placement)
    for table, placement in sharded.placement.items():
        expected = "dense RowWiseAdagrad" if placement == "data_parallel" else "fused rowwise_adagrad"
        assert of_table[table] == expected
    dense = {name: owner for name, owner in owners.items() if "bank.members" in name}
    assert {member_of(name) for name in dense} == {"deep", "fm"}
    assert len(dense) == len(list(sharded.model.module.ensemble.bank.parameters()))


def test_a_parameter_without_a_rule_is_a_mistake_of_ours(runtime: Runtime) -> None:
    task = two_member_task(two_member_specs())
    task.stray = nn.Parameter(torch.ones(2))
    with pytest.raises(AssertionError, match=r"not under exactly one optimizer: \{'stray': 0\}"):
        Sharded(runtime, placements=PLACEMENTS, task=task)


def test_everything_moves_in_a_step(runtime: Runtime) -> None:
    sharded = Sharded(runtime, placements=PLACEMENTS)
    before = {name: p.detach().clone() for name, p in sharded.model.module.ensemble.bank.named_parameters()}
    tables = sharded.tables()
    sharded.step(0)
    after = dict(sharded.model.module.ensemble.bank.named_parameters())
    assert [name for name, value in before.items() if torch.equal(value, after[name])] == []
    assert [name for name, value in sharded.tables().items() if torch.equal(value, tables[name])] == []


@pytest.mark.parametrize("rule", ["rowwise_adagrad", "adagrad", "sgd"])
def test_a_rule_is_the_same_under_every_placement(runtime: Runtime, rule: str) -> None:
    ends = []
    for placement in PLACEMENTS:
        sharded = Sharded(runtime, placements=(placement,), rule=rule)
        for seed in range(3):
            sharded.step(seed)
        ends.append(sharded.tables())
    for other in ends[1:]:
        for table, value in ends[0].items():
            torch.testing.assert_close(other[table], value, rtol=1e-5, atol=1e-6)


def test_a_members_learning_rate_is_its_own(runtime: Runtime) -> None:
    sharded = Sharded(runtime, placements=("table_wise",), dense=Dense(optimizer="sgd"))
    parameters = dict(sharded.model.named_parameters())
    before = {name: p.detach().clone() for name, p in parameters.items() if member_of(name)}
    sharded.step(0)
    for name, value in before.items():
        gradient = parameters[name].grad
        assert gradient is not None
        torch.testing.assert_close(parameters[name].detach(), value - LRS[str(member_of(name))] * gradient)


@pytest.mark.parametrize("placements", [*((one,) for one in PLACEMENTS), PLACEMENTS])
@pytest.mark.parametrize("rule", ["rowwise_adagrad", "adagrad", "sgd"])
def test_state_keys_do_not_depend_on_the_plan(runtime: Runtime, placements: tuple[str, ...], rule: str) -> None:
    sharded = Sharded(runtime, placements=placements, rule=rule, dense=Dense(optimizer="adam"))
    fresh = {key: tuple(value.size()) for key, value in sharded.optimizer.state_tensors()}
    for spec in sharded.specs:
        key = f"tables/{spec.name}/sum"
        if spec.optimizer == "sgd":
            assert key not in fresh
        else:
            assert fresh[key] == (
                (spec.num_rows,) if spec.optimizer == "rowwise_adagrad" else (spec.num_rows, spec.dim)
            )
    for name, parameter in sharded.model.named_parameters():
        if member_of(name):
            assert fresh[f"dense/{name}/exp_avg"] == fresh[f"dense/{name}/exp_avg_sq"] == tuple(parameter.shape)
            assert f"dense/{name}/step" in fresh
    sharded.step(0)
    # A checkpoint is loaded before the first step, so all of the state must be there by then.
    assert {key: tuple(value.size()) for key, value in sharded.optimizer.state_tensors()} == fresh
    assert len([key for key, _ in sharded.optimizer.state_tensors()]) == len(fresh)


def test_state_tensors_are_live(runtime: Runtime) -> None:
    sharded = Sharded(runtime, placements=PLACEMENTS)
    before = {key: local(value).clone() for key, value in sharded.optimizer.state_tensors()}
    sharded.step(0)
    moved = {key: local(value) for key, value in sharded.optimizer.state_tensors()}
    assert [key for key, value in before.items() if key.endswith("/sum") and torch.equal(value, moved[key])] == []


def local(value: Tensor) -> Tensor:
    return value.local_shards()[0].tensor if hasattr(value, "local_shards") else value


def test_marks_surround_the_step(runtime: Runtime) -> None:
    sharded = Sharded(runtime, placements=("table_wise",))
    events: list[str] = []
    sharded.optimizer.mark = events.append
    sharded.step(0)
    assert events == ["backward_done", "reduced", "stepped"]


@pytest.mark.parametrize(
    ("name", "member"),
    [
        ("ensemble.bank.members.deep.mlp.layers.0.weight", "deep"),
        ("ensemble.tables.embedding_bags.shared/C1.weight", None),
        ("stray", None),
    ],
)
def test_a_parameters_name_tells_its_member(name: str, member: str | None) -> None:
    assert member_of(name) == member
