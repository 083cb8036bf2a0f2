"""What optimizers' steps move, against the optimizers themselves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from modules.ensemble import Ensemble
from modules.layers.mlp import MLP
from modules.task import EnsembleTask
from sharding import dense_gradients
from sharding.cost.work import Pass, counted_passes
from sharding.dense_gradients import DenseGradients
from trainer.lazy_adam import LazyAdam
from trainer.optimizers import _REPLICATED_RULES, _RULES, MemberRule, _arguments
from trainer.planning.operations import Operations
from trainer.planning.update_work import VALUES_MOVED, clipping, member_updates, rule_passes, table_update

SHAPES = [(7, 5), (6, 4), (9,)]


def parameters(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    made = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    for parameter in made:
        parameter.grad = torch.randn_like(parameter)
    return made


def second_step(optimizer: torch.optim.Optimizer) -> tuple[Pass, ...]:
    optimizer.step()
    with Operations() as operations:
        optimizer.step()
    return operations.passes


@pytest.mark.parametrize("l2", [0.0, 0.1])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("rule", ["sgd", "adagrad", "adam"])
def test_members_rules(rule: str, device: Literal["cpu", "cuda"], l2: float) -> None:
    arguments = _arguments(rule, lr=0.1, eps=1e-8, l2=l2)
    # foreach is what torch.optim takes on a GPU; the kernels are the same list operations.
    optimizer = _RULES[rule](parameters(*SHAPES), foreach=device == "cuda", **arguments)
    assert second_step(optimizer) == counted_passes(rule_passes(rule, SHAPES, device=device, l2=l2))


@pytest.mark.parametrize("l2", [0.0, 0.1])
@pytest.mark.parametrize("rule", ["sgd", "adagrad", "rowwise_adagrad", "dense_adam", "adam"])
def test_tables_rules(rule: str, l2: float) -> None:
    (table,) = parameters((70, 8))
    assert table.grad is not None
    table.grad[:64] = 0.0
    optimizer = _REPLICATED_RULES[rule]([table], **_arguments(rule, lr=0.1, eps=1e-8, l2=l2))
    assert isinstance(optimizer, LazyAdam) == (rule == "adam")
    work = table_update(rule, num_rows=70, dim=8, touched_rows=6, device="cpu", l2=l2)
    assert second_step(optimizer) == work.passes


def test_clipping_the_tables_of_a_group() -> None:
    tables = parameters((70, 8), (30, 4))
    with Operations() as operations:
        nn.utils.clip_grad_norm_(tables, 1e-3)
    assert operations.passes == clipping([560, 120]).passes


def test_the_documented_bytes_of_a_value() -> None:
    assert {rule: 4 * sum(values) for rule, values in VALUES_MOVED.items()} == {
        "sgd": 12,
        "adagrad": 44,
        "rowwise_adagrad": 24,
        "adam": 72,
    }


class Layers(nn.Module):
    """A member with running statistics."""

    first_order = False

    def __init__(self) -> None:
        super().__init__()
        self.layers = MLP(in_features=4, hidden=[6, 3], batch_norm=True)


def task_of(*names: str) -> EnsembleTask:
    return EnsembleTask(
        Ensemble(
            tables=EmbeddingBagCollection(tables=[], device="meta"),
            members={name: Layers() for name in names},
            groups=dict.fromkeys(names, "shared"),
            seeds=dict.fromkeys(names, 1),
        )
    )


def rule(**keys: object) -> MemberRule:
    return MemberRule(**{"optimizer": "adam", "lr": 0.1, "group": "shared", **keys})  # type: ignore[arg-type]


def test_averaging_and_clipping_are_what_gradients_take(monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of("a", "b")
    bank = task.ensemble.bank
    rules = {"a": rule(clip_norm=1.0), "b": rule(clip_norm=2.0, optimizer="sgd")}
    two_ranks = SimpleNamespace(
        get_world_size=lambda _group: 2, all_reduce=lambda _flat, **_: SimpleNamespace(wait=lambda: None)
    )
    monkeypatch.setattr(dense_gradients, "dist", two_ranks)
    for parameter in bank.parameters():
        parameter.grad = torch.randn_like(parameter)
    statistics = {
        name: [value for key, value in member.named_buffers() if "running" in key]
        for name, member in bank.members.items()
    }
    assert all(len(found) == 4 for found in statistics.values())
    optimizers = [_RULES[rules[name].optimizer](member.parameters(), lr=0.1) for name, member in bank.members.items()]
    for optimizer in optimizers:
        optimizer.step()
    gradients = DenseGradients(
        {name: list(member.parameters()) for name, member in bank.members.items()},
        statistics=statistics,
        process_group=None,  # type: ignore[arg-type]
        clip_norms={name: one.clip_norm for name, one in rules.items()},
    )
    with Operations() as operations:
        gradients.average()
        gradients.clip()
        for optimizer in optimizers:
            optimizer.step()
    assert operations.passes == member_updates(task, rules, device="cpu", world_size=2).passes


def test_frozen_members_and_single_ranks_take_less() -> None:
    task = task_of("a", "b")
    rules = {"a": rule(), "b": rule()}
    both = member_updates(task, rules, device="cpu", world_size=1)
    one = member_updates(task, rules | {"b": rule(frozen=True)}, device="cpu", world_size=1)
    assert both.num_ops == 2 * one.num_ops > 0
    assert member_updates(task, rules, device="cpu", world_size=2).num_ops > both.num_ops
    assert member_updates(task, rules, device="cuda", world_size=1).num_ops == 2 * (len(VALUES_MOVED["adam"]) + 1)


def test_lazy_adam_looks_at_all_and_moves_what_was_touched() -> None:
    def moved(touched: float) -> Tensor:
        work = table_update("adam", num_rows=1000, dim=16, touched_rows=touched, device="cpu")
        return torch.tensor(sum(one.count * one.moved_bytes for one in work.passes))

    assert 4 * 1000 * 16 < moved(0) < 4 * 1000 * 16 + 4_000
    assert moved(10_000) == moved(1000) > 20 * moved(10)
