"""What the task's optimizer does to whole tables and to single groups: penalties, Adam on every row, rates, stops."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from configs.training_schema import Dense
from modules.tables import FIRST_ORDER_SUFFIX
from sharding.shards import table_name
from tests.unit.modules.small import batch
from tests.unit.sharding.world_of_one import two_member_specs
from tests.unit.trainer.test_optimizers import Sharded
from trainer.runtime import Runtime

WHOLE = ("data_parallel",)


def _tables(sharded: Sharded) -> dict[str, nn.Parameter]:
    found = {str(table_name(name)): p for name, p in sharded.model.named_parameters() if table_name(name)}
    assert len(found) == len(sharded.specs)
    return found


def _is_of_deep(key: str) -> bool:
    """Of that member or its tables; `fm` has a part of that name."""
    return "members.deep." in key or "deep/C" in key


def _step_with(sharded: Sharded, seed: int, *, l2: float) -> None:
    """A step whose tables' gradients get the penalty's by hand."""
    sharded.model.module.begin_step(step=seed, rank=0)
    sharded.optimizer.zero_grad()
    loss, _ = sharded.model(batch(16, seed=seed))
    loss.backward()
    for table in _tables(sharded).values():
        assert table.grad is not None
        table.grad = table.grad + l2 * table.detach()
    sharded.optimizer.step()


@pytest.mark.parametrize("rule", ["rowwise_adagrad", "adagrad", "sgd", "adam", "dense_adam"])
def test_the_penalty_joins_the_gradient_of_every_row(runtime: Runtime, rule: str) -> None:
    specs = [replace(spec, optimizer=rule) for spec in two_member_specs()]
    penalised = Sharded(runtime, placements=WHOLE, specs=[replace(spec, l2=0.2) for spec in specs])
    by_hand, free = (Sharded(runtime, placements=WHOLE, specs=specs) for _ in range(2))
    for seed in range(3):
        penalised.step(seed)
        _step_with(by_hand, seed, l2=0.2)
        free.step(seed)
    expected, without = by_hand.tables(), free.tables()
    for name, table in penalised.tables().items():
        torch.testing.assert_close(table, expected[name], rtol=1e-5, atol=1e-7)
        # Every row, whether a batch had it or not; of weights per id the other three columns are 0.
        read = slice(0, 1) if "+first_order" in name else slice(None)
        assert (table != without[name])[:, read].any(dim=1).all()


def test_dense_adam_is_torchs_adam_on_every_row(runtime: Runtime) -> None:
    sharded = Sharded(
        runtime, placements=WHOLE, specs=[replace(spec, optimizer="dense_adam") for spec in two_member_specs()]
    )
    twins: dict[str, nn.Parameter] = {name: nn.Parameter(p.detach().clone()) for name, p in _tables(sharded).items()}
    rule = torch.optim.Adam([{"params": [twins[spec.name]], "lr": spec.lr, "eps": spec.eps} for spec in sharded.specs])
    for seed in range(4):
        sharded.model.module.begin_step(step=seed, rank=0)
        sharded.optimizer.zero_grad()
        loss, _ = sharded.model(batch(3, seed=seed))  # few rows: most have no gradient at a step
        loss.backward()
        for name, table in _tables(sharded).items():
            assert table.grad is not None
            twins[name].grad = table.grad.clone()
        sharded.optimizer.step()
        rule.step()
    for name, table in sharded.tables().items():
        torch.testing.assert_close(table, twins[name].detach(), rtol=1e-6, atol=1e-7)


def test_the_dense_penalty_and_a_members_own_rule(runtime: Runtime) -> None:
    """SGD without learning anything else: weights shrink by lr * l2 of themselves, plus the gradient."""
    moved: dict[float, dict[str, Tensor]] = {}
    for l2 in (0.0, 0.5):
        sharded = Sharded(runtime, placements=WHOLE, dense=Dense(optimizer="sgd", l2=l2))
        before = {name: p.detach().clone() for name, p in sharded.model.module.ensemble.bank.named_parameters()}
        sharded.step(0)
        after = dict(sharded.model.module.ensemble.bank.named_parameters())
        moved[l2] = {name: after[name].detach() - before[name] for name in before}
    for name, value in before.items():
        lr = 0.01 if name.startswith("members.deep.") else 0.02
        torch.testing.assert_close(moved[0.5][name] - moved[0.0][name], -lr * 0.5 * value, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("norm", [0.01, 1e6])
def test_the_gradients_of_a_groups_tables_have_one_norm(runtime: Runtime, norm: float) -> None:
    """SGD, so that a step is the rate times the gradient; weights per id count with their group."""
    moved = []
    for bounds in ({}, {"shared": norm}):
        specs = [replace(spec, optimizer="sgd", lr=0.1, l2=0.0) for spec in two_member_specs()]
        specs = [replace(spec, clip_norm=bounds.get(spec.group.removesuffix(FIRST_ORDER_SUFFIX))) for spec in specs]
        sharded = Sharded(runtime, placements=WHOLE, specs=specs)
        before = sharded.tables()
        sharded.step(0)
        moved.append({name: (value - before[name]) / 0.1 for name, value in sharded.tables().items()})
    free, clipped = moved
    shared = [name for name in free if name.startswith("shared")]
    assert any("+first_order" in name for name in shared)
    whole = float(torch.cat([free[name].flatten() for name in shared]).norm())
    factor = min(1.0, norm / whole)
    assert factor < 0.5 or norm == 1e6
    for name, gradient in free.items():
        scale = factor if name in shared else 1.0
        torch.testing.assert_close(clipped[name], gradient * scale, rtol=1e-4, atol=1e-6)


def test_a_stopped_groups_norm_is_left_alone(runtime: Runtime) -> None:
    specs = [replace(spec, optimizer="dense_adam", clip_norm=0.01) for spec in two_member_specs()]
    sharded = Sharded(runtime, placements=WHOLE, specs=specs)
    sharded.step(0)
    sharded.model.module.stop({"deep"})
    sharded.optimizer.stop({"deep"})
    before = sharded.everything()
    sharded.step(1)
    after = sharded.everything()
    assert [key for key in before if _is_of_deep(key) and not torch.equal(after[key], before[key])] == []


@pytest.mark.parametrize("placement", ["data_parallel", "table_wise"])
@pytest.mark.parametrize("rule", ["rowwise_adagrad", "adagrad", "sgd"])
def test_a_stopped_group_keeps_every_bit_and_the_others_move(runtime: Runtime, placement: str, rule: str) -> None:
    sharded = Sharded(runtime, placements=(placement,), rule=rule, dense=Dense(l2=0.1))
    sharded.step(0)
    before = sharded.everything()
    sharded.model.module.stop({"deep"})
    sharded.optimizer.stop({"deep"})
    sharded.step(1)
    after = sharded.everything()
    of_deep = {key for key in before if _is_of_deep(key)}
    assert len(of_deep) > 8
    assert [key for key in of_deep if not torch.equal(after[key], before[key])] == []
    assert [
        key for key in before.keys() - of_deep if key.endswith("weight") and torch.equal(after[key], before[key])
    ] == []
    sharded.model.module.stop(())
    sharded.optimizer.stop(())
    sharded.step(2)
    again = sharded.everything()
    assert [key for key in of_deep if key.endswith("weight") and torch.equal(again[key], before[key])] == []


@pytest.mark.parametrize("placement", ["data_parallel", "table_wise"])
def test_a_group_has_a_rate_of_its_own(runtime: Runtime, placement: str) -> None:
    """SGD, so that a step is the rate times the gradient."""
    moved = []
    for factors in ({}, {"deep": 0.5, "shared": 2.0}):
        specs = [replace(spec, optimizer="sgd") for spec in two_member_specs()]
        # Kernels hold the tables of one rate: different ones keep the groups apart.
        specs = [replace(spec, lr=0.2 if spec.group == "deep" else 0.1) for spec in specs]
        sharded = Sharded(runtime, placements=(placement,), dense=Dense(optimizer="sgd"), specs=specs)
        assert sharded.optimizer.mixed_kernel() == frozenset()
        before = sharded.everything()
        sharded.optimizer.set_lr_factor(1.0, by_group=factors)
        sharded.step(0)
        moved.append({key: value - before[key] for key, value in sharded.everything().items() if "weight" in key})
    plain, scaled = moved
    for key, value in plain.items():
        factor = 0.5 if _is_of_deep(key) else 2.0
        torch.testing.assert_close(scaled[key], factor * value, rtol=1e-3, atol=1e-7)


def test_groups_in_one_kernel_are_told(runtime: Runtime) -> None:
    assert Sharded(runtime, placements=("table_wise",)).optimizer.mixed_kernel() == {"deep", "shared"}
    assert Sharded(runtime, placements=WHOLE).optimizer.mixed_kernel() == frozenset()
