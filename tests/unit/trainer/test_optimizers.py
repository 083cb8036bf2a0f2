"""Optimizers on one rank: every parameter under exactly one rule, the same update under every placement."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from configs.training_schema import Dense
from modules.ensemble import Ensemble
from modules.tables import TableSpec, build_tables, first_order_tables
from modules.task import EnsembleTask
from sharding.fused_kernels import FusedKernel, fused_kernels
from sharding.initialisation import TableInit, initialise_tables
from sharding.shards import table_name, table_shards
from tests.unit.modules.small import batch, deepfm, group_specs, mlp, spec
from tests.unit.sharding.world_of_one import shard_for_one, two_member_specs, two_member_task
from trainer.optimizers import MemberRule, TaskOptimizer, member_of, update_tables_in_backward
from trainer.runtime import Runtime

PLACEMENTS = ("data_parallel", "table_wise", "row_wise")
RULES = ("rowwise_adagrad", "adagrad", "sgd", "adam")
LRS = {"deep": 0.01, "fm": 0.02}
GROUPS = {"deep": "deep", "fm": "shared"}


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
        specs: list[TableSpec] | None = None,
        clip_norms: dict[str, float] | None = None,
    ) -> None:
        self.specs = specs or two_member_specs(optimizer=rule)
        task = task or two_member_task(self.specs)
        frozen_groups = task.ensemble.frozen_groups
        update_tables_in_backward(task, self.specs, frozen_groups=frozen_groups)
        self.placement = {table.name: placements[i % len(placements)] for i, table in enumerate(self.specs)}
        self.model = shard_for_one(task, self.placement, group=runtime.group)
        inits = {table.name: TableInit(seed=i, bound=0.3) for i, table in enumerate(self.specs)}
        initialise_tables(self.model.state_dict(), inits=inits)
        frozen = [name for name in task.ensemble.member_names if name in frozen_groups]
        self.optimizer = TaskOptimizer(
            self.model,
            specs=self.specs,
            dense=dense or Dense(),
            members={
                name: MemberRule(
                    optimizer=(dense or Dense()).optimizer,
                    lr=lr,
                    group=GROUPS[name],
                    clip_norm=(clip_norms or {}).get(name),
                    frozen=name in frozen,
                )
                for name, lr in LRS.items()
            },
            frozen_groups=frozen_groups,
            runtime=runtime,
        )

    def step(self, seed: int) -> None:
        self.model.module.begin_step(step=seed, rank=0)
        self.optimizer.zero_grad()
        loss, _ = self.model(batch(16, seed=seed))
        loss.backward()
        self.optimizer.step()

    def tables(self) -> dict[str, Tensor]:
        return {name: shards.local[0].tensor.clone() for name, shards in table_shards(self.model.state_dict()).items()}

    def everything(self) -> dict[str, Tensor]:
        """Copies of all weights and optimizer states."""
        weights = {name: local(value).detach().clone() for name, value in self.model.state_dict().items()}
        return weights | {f"state/{key}": local(value).clone() for key, value in self.optimizer.state_tensors()}


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


def test_adam_of_a_replicated_table_is_torch_adam_on_the_rows_of_the_batch(runtime: Runtime) -> None:
    sharded = Sharded(runtime, placements=("data_parallel",), rule="adam")
    inputs = batch(4)
    plain = {name: torch.nn.Parameter(value) for name, value in sharded.tables().items() if name.startswith("deep/")}
    before = {name: value.detach().clone() for name, value in plain.items()}
    adams = {name: torch.optim.Adam([value], lr=0.1, eps=1e-8) for name, value in plain.items()}
    replicas = {table_name(name): value for name, value in sharded.model.named_parameters()}
    for _ in range(3):
        sharded.optimizer.zero_grad()
        sharded.model(inputs)[0].backward()
        for name, value in plain.items():
            gradient = replicas[name].grad
            assert gradient is not None
            value.grad = gradient.clone()
            adams[name].step()
        sharded.optimizer.step()
    state = dict(sharded.optimizer.state_tensors())
    for name, value in plain.items():
        seen = inputs.sparse[name.removeprefix("deep/")].values().unique()
        found, unseen = sharded.tables()[name], torch.ones(len(value), dtype=torch.bool)
        unseen[seen] = False
        torch.testing.assert_close(found[seen], value.detach()[seen])
        assert unseen.any() and torch.equal(found[unseen], before[name][unseen])
        assert state[f"tables/{name}/step"].item() == 3
        for key in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(state[f"tables/{name}/{key}"], adams[name].state[value][key])


@pytest.mark.parametrize(
    ("rule", "placements"),
    [*((rule, (one,)) for rule in ("rowwise_adagrad", "sgd") for one in PLACEMENTS), ("adam", ("data_parallel",))],
)
def test_a_factor_is_that_much_of_every_learning_rate(
    runtime: Runtime, rule: str, placements: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Factors 1/2, 1/2 and 1/4 against learning rates that were as small from the start."""
    factored = Sharded(runtime, placements=placements, rule=rule, dense=Dense(optimizer="sgd"))
    ends = []
    for factors in ([0.5, 0.5, 0.25], [1.0, 1.0, 0.5]):
        if factors[0] == 1.0:
            halved = [replace(table, lr=table.lr / 2) for table in factored.specs]
            monkeypatch.setitem(LRS, "deep", LRS["deep"] / 2)
            monkeypatch.setitem(LRS, "fm", LRS["fm"] / 2)
            run = Sharded(runtime, placements=placements, specs=halved, dense=Dense(optimizer="sgd"))
        else:
            run = factored
        for step, factor in enumerate(factors):
            run.optimizer.set_lr_factor(factor)
            run.step(step)
        ends.append(run.everything())
    assert ends[0].keys() == ends[1].keys()
    assert [key for key, value in ends[0].items() if not torch.equal(value, ends[1][key])] == []


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_at_factor_0_no_weight_moves(runtime: Runtime, placement: str) -> None:
    sharded = Sharded(runtime, placements=(placement,))
    before = sharded.everything()
    sharded.optimizer.set_lr_factor(0.0)
    sharded.step(0)
    after = sharded.everything()
    moved = {key for key, value in before.items() if not torch.equal(value, after[key])}
    assert {key for key in moved if not key.startswith("state/")} == set()
    assert any(key.startswith("state/tables/") for key in moved)
    sharded.optimizer.set_lr_factor(1.0)
    sharded.step(1)
    assert all(not torch.equal(value, before[name]) for name, value in sharded.everything().items() if name in moved)


def test_the_same_factor_again_costs_nothing(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    set_lr = FusedKernel.set_lr

    def noted(kernel: FusedKernel, lr: float) -> None:
        rates.append(lr)
        set_lr(kernel, lr)

    monkeypatch.setattr(FusedKernel, "set_lr", noted)
    sharded = Sharded(runtime, placements=("table_wise",))
    sharded.optimizer.set_lr_factor(1.0)
    assert rates == []
    sharded.optimizer.set_lr_factor(0.3)
    sharded.optimizer.set_lr_factor(0.3)
    first_order = first_order_tables([spec("shared", "C1")])[0].lr
    assert sorted(rates) == sorted([0.3 * 0.1, 0.3 * first_order])


def test_each_members_gradient_is_clipped_on_its_own(runtime: Runtime) -> None:
    """SGD, so that a step is the gradient."""
    steps: dict[str, dict[str, Tensor]] = {}
    for name, norms in {"free": {}, "loose": {"deep": 1e6}, "tight": {"deep": 1e-3}}.items():
        sharded = Sharded(
            runtime, placements=("table_wise",), dense=Dense(optimizer="sgd"), rule="sgd", clip_norms=norms
        )
        before = sharded.everything()
        sharded.step(0)
        steps[name] = {key: value - before[key] for key, value in sharded.everything().items()}
    of_deep = [key for key in steps["free"] if member_of(key) == "deep"]
    norm = {
        name: torch.cat([found[key].flatten() for key in of_deep]).norm() / LRS["deep"] for name, found in steps.items()
    }
    assert norm["free"] > 1e-2
    torch.testing.assert_close(norm["tight"], torch.tensor(1e-3), rtol=2e-3, atol=0)
    for key, value in steps["free"].items():
        assert torch.equal(steps["loose"][key], value), key
        if key in of_deep:  # shorter, not turned
            torch.testing.assert_close(
                steps["tight"][key] * (norm["free"] / norm["tight"]), value, rtol=1e-2, atol=1e-6
            )
        else:  # the other member, and all tables
            assert torch.equal(steps["tight"][key], value), key


def freezing(rule: str, *, frozen: str) -> tuple[EnsembleTask, list[TableSpec]]:
    """`deep` on its own tables, `fm` on its own with first-order tables; one of them frozen."""
    specs = [spec("deep", table.feature, optimizer=rule) for table in group_specs("deep")]
    own = [spec("fm", table.feature, optimizer=rule) for table in group_specs("fm")]
    specs += own + first_order_tables(own)
    ensemble = Ensemble(
        tables=build_tables(specs, device="meta"),
        members={"deep": mlp(seed=1, dropout=0.5), "fm": deepfm(seed=2)},
        groups={"deep": "deep", "fm": "fm"},
        seeds={"deep": 1, "fm": 2},
        frozen=[frozen],
    )
    return EnsembleTask(ensemble), specs


def owner_of(key: str) -> str:
    """The member that a weight or a state belongs to; tables are named after theirs here."""
    found = re.search(r"members\.(\w+)\.|(?:tables/|embedding_bags\.)(\w+)", key)
    assert found is not None, key
    return str(found[1] or found[2])


@pytest.mark.parametrize("frozen", ["deep", "fm"])
@pytest.mark.parametrize("dense", ["adam", "sgd"])
@pytest.mark.parametrize(
    ("rule", "placements"),
    [(rule, (one,)) for rule in RULES for one in PLACEMENTS if rule != "adam" or one == "data_parallel"],
)
def test_what_is_frozen_keeps_every_bit(
    runtime: Runtime, rule: str, placements: tuple[str, ...], frozen: str, dense: Literal["adam", "sgd"]
) -> None:
    task, specs = freezing(rule, frozen=frozen)
    sharded = Sharded(runtime, placements=placements, task=task, specs=specs, dense=Dense(optimizer=dense))
    for _, value in sharded.optimizer.state_tensors():  # as after some training: momentum that would carry on
        local(value).fill_(0.5 if value.is_floating_point() else 7)
    before = sharded.everything()
    sharded.optimizer.set_lr_factor(0.5)
    for seed in range(3):
        sharded.step(seed)
        with torch.no_grad():
            sharded.model(batch(16, seed=9))
    after = sharded.everything()
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert torch.equal(after[key], value) == (owner_of(key) == frozen), key
    for kernel in fused_kernels(sharded.model):
        if all(table.startswith(frozen) for table in kernel.tables):
            assert [int(getattr(kernel.module, count)) for count in ("iter", "iter_cpu")] == [0, 0]


@pytest.mark.parametrize("placements", [*((one,) for one in PLACEMENTS), PLACEMENTS])
@pytest.mark.parametrize("rule", ["rowwise_adagrad", "adagrad", "sgd"])
def test_state_keys_do_not_depend_on_the_plan(runtime: Runtime, placements: tuple[str, ...], rule: str) -> None:
    sharded = Sharded(runtime, placements=placements, rule=rule, dense=Dense(optimizer="adam"))
    fresh = {key: tuple(value.size()) for key, value in sharded.optimizer.state_tensors()}
    for table in sharded.specs:
        key = f"tables/{table.name}/sum"
        if table.optimizer == "sgd":
            assert key not in fresh
        else:
            assert fresh[key] == (
                (table.num_rows,) if table.optimizer == "rowwise_adagrad" else (table.num_rows, table.dim)
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
