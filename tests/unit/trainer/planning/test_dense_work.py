"""Dense work as traced against the same members run for real, and against their costs by formula."""

from __future__ import annotations

import dataclasses
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from configs.command import TRAIN, parse_command
from configs.errors import ConfigError
from configs.schema import RunConfig
from modules import members
from modules.member_fields import member_fields
from modules.task import EnsembleTask
from sharding.cost.work import DenseWork
from trainer.built_task import build_task, member_losses
from trainer.command_line import training_config
from trainer.data.reading.source import SourceFeatures
from trainer.planning import dense_work
from trainer.planning.dense_work import trace_dense
from trainer.planning.operations import Operations

FEATURES = SourceFeatures(
    dense_names=("I1", "I2", "I3"), table_rows={f"C{index}": 50 for index in range(5)}, dictionary="d1"
)
NUM_DENSE, ROWS = 3, 32


def built(folder: Path, text: str, mean_over_ranks: Callable[[Tensor], Tensor] = torch.clone) -> EnsembleTask:
    return build_task(
        config(folder, text),
        features=FEATURES,
        losses=member_losses(config(folder, text), mean_over_ranks=mean_over_ranks),
    ).task


def config(folder: Path, text: str) -> RunConfig:
    path = folder / "run.toml"
    path.write_text(text)
    return training_config(parse_command(["--config", str(path)], program=TRAIN))


def ensemble(kind: str, *member: str, keys: str = "", dense: str = "", more: str = "") -> str:
    lines = (f"[dense]\n{dense}", f"[tables.shared]\ndim = 8\n{more}", "[members.a]")
    return "\n".join([*lines, f'arch = {{kind = "{kind}"{keys}}}', *member])


def few_layers(kind: str) -> str:
    """Keys for a small member with all that it can have of randomness and normalisation."""
    known = {field.name for field in dataclasses.fields(members.config_class(kind))}
    wanted = {"dropout": "0.1", "batch_norm": "true", "num_layers": "1", "num_blocks": "1"}
    return "".join(f", {key} = {value}" for key, value in wanted.items() if key in known)


def real_rows(task: EnsembleTask, rows: int, *, trains: bool) -> dense_work._FakeRows:
    """Of the same shapes, with values."""
    without = dense_work._fake_rows(task, rows=rows, num_dense=NUM_DENSE, trains=trains)
    without.pooled.values().detach().normal_()
    return dataclasses.replace(
        without,
        dense_BN=torch.randn(rows, NUM_DENSE),
        labels_B=torch.ones(rows),
        loss_weights_B=torch.full((rows,), 1 / rows),
        part_B=torch.zeros(rows, dtype=torch.int32),
        row_B=torch.arange(rows),
    )


def run_for_real(task: EnsembleTask, rows: int, *, trains: bool) -> DenseWork:
    bank, batch = task.ensemble.bank, real_rows(task, rows, trains=trains)
    task.train(trains).begin_step(step=1, rank=0)
    operations = Operations([*bank.parameters(), *bank.buffers(), *batch.tensors])
    dense_work._step(bank, task.losses, batch, operations=operations, trains=trains)
    gradients = [parameter.grad for parameter in bank.parameters() if parameter.grad is not None]
    for parameter in bank.parameters():
        parameter.grad = None
    return DenseWork(
        matmuls=operations.matmuls,
        passes=operations.passes,
        saved_bytes=operations.saved_bytes,
        peak_bytes=operations.peak_bytes(without=gradients),
    )


@pytest.mark.parametrize("kind", members.kinds())
def test_a_trace_is_a_real_step_and_has_the_products_that_the_cost_says(kind: str, tmp_path: Path) -> None:
    text = ensemble(kind, 'bagging = "poisson"', "feature_dropout = 0.2", keys=few_layers(kind))
    task = built(tmp_path, text)
    training, scoring = (trace_dense(task, rows=ROWS, num_dense=NUM_DENSE, trains=trains) for trains in (True, False))
    assert training == run_for_real(task, ROWS, trains=True)
    assert training.saved_bytes > 0 == scoring.saved_bytes
    task.ensemble.bank._precision = "bf16"
    half = trace_dense(task, rows=ROWS, num_dense=NUM_DENSE, trains=True)
    assert [dataclasses.replace(one, precision="fp32") for one in half.matmuls] == list(training.matmuls)
    assert all(one.precision == "bf16" for one in half.matmuls)
    forward, cost = scoring.flops / 2 / ROWS, cost_per_row(config(tmp_path, text))
    if kind == "fm":  # squares and sums, no matrix
        assert forward == 0 < cost
        return
    assert 0.98 * cost <= forward  # the rest are products element by element
    assert forward <= (1.01 if kind == "finalmlp" else 1) * cost  # it has products of weights, once for a batch
    # Each product's inputs and weights get a gradient, but for numbers, which are all that lr multiplies.
    assert (2.0 if kind == "lr" else 2.98) <= training.flops / scoring.flops <= 3.0


@pytest.mark.parametrize("kind", ["dcn_v2", "masknet", "lr"])
def test_a_trace_is_a_real_forward_pass_too(kind: str, tmp_path: Path) -> None:
    task = built(tmp_path, ensemble(kind, keys=few_layers(kind)))
    traced = trace_dense(task, rows=ROWS, num_dense=NUM_DENSE, trains=False)
    assert traced == run_for_real(task, ROWS, trains=False)
    assert traced.peak_bytes > 0 == traced.saved_bytes


def cost_per_row(run: RunConfig) -> int:
    arch = run.members["a"].arch
    fields = member_fields(
        arch, wish="auto", dense_names=FEATURES.dense_names, id_features=tuple(FEATURES.table_rows), numeric_ids={}
    )
    return fields.cost(arch, dim=8).multiply_adds


def test_bf16_is_what_a_real_step_does_but_for_statistics(tmp_path: Path) -> None:
    keys = ", batch_norm = true"
    task = built(tmp_path, ensemble("mlp", dense='precision = "bf16"', keys=keys))
    traced, real = trace_dense(task, rows=512, num_dense=NUM_DENSE, trains=True), run_for_real(task, 512, trains=True)
    assert traced.matmuls == real.matmuls and traced.num_ops == real.num_ops
    assert {one.precision for one in traced.matmuls} == {"bf16"}
    assert traced.saved_bytes == pytest.approx(real.saved_bytes, rel=0.01)


def test_bytes_are_those_of_a_run_that_nobody_records(tmp_path: Path) -> None:
    rows = 2_048
    task = built(tmp_path, ensemble("dlrm", "copies = 2"))
    traced = trace_dense(task, rows=rows, num_dense=NUM_DENSE, trains=True)
    bank, batch = task.ensemble.bank, real_rows(task, rows, trains=True)
    there = {value.untyped_storage().data_ptr() for value in (*bank.parameters(), *bank.buffers(), *batch.tensors)}
    kept: dict[int, Tensor] = {}

    def keep(value: Tensor) -> Tensor:
        if value.untyped_storage().data_ptr() not in there:
            kept[value.untyped_storage().data_ptr()] = value.detach()
        return value.detach()

    task.train().begin_step(step=1, rank=0)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        loss, _ = task.losses(bank(batch.dense_BN, batch.pooled), batch.labels_B, batch.loss_weights_B)
    assert traced.saved_bytes == sum(value.untyped_storage().nbytes() for value in kept.values())
    del loss
    kept.clear()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        loss, output = task.losses(bank(batch.dense_BN, batch.pooled), batch.labels_B, batch.loss_weights_B)
        loss.backward()
        del loss, output
    live = peak = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    # The allocator has the gradients of parameters too.
    gradients = sum(value.grad.nbytes for value in bank.parameters() if value.grad is not None)
    assert peak - gradients <= traced.peak_bytes <= 1.02 * peak
    assert traced.saved_bytes < traced.peak_bytes


def test_members_computed_as_one_take_the_same_products_in_fewer_operations(tmp_path: Path) -> None:
    member = ("copies = 2", 'tables = "own"', "feature_dropout = 0.2")
    dim = "[tables.own]\ndim = 8"
    alone, stacked = (
        built(tmp_path, ensemble("mlp", *member, keys=few_layers("mlp"), dense=f"batch_copies = {on}", more=dim))
        for on in ("false", "true")
    )
    one, many = (trace_dense(task, rows=ROWS, num_dense=NUM_DENSE, trains=True) for task in (stacked, alone))
    assert one == run_for_real(stacked, ROWS, trains=True)
    assert one.flops == many.flops
    assert sum(found.count for found in one.matmuls) < sum(found.count for found in many.matmuls)


def test_frozen_members_take_a_forward_pass_alone(tmp_path: Path) -> None:
    frozen = "\n".join(
        ["[members.b]", 'tables = "own"', 'arch = {kind = "dlrm"}', "freeze = true", 'weights_from = "x/checkpoints/s"']
    )
    both, alone = (
        {trains: trace_dense(task, rows=ROWS, num_dense=NUM_DENSE, trains=trains) for trains in (True, False)}
        for task in (built(tmp_path, ensemble("mlp") + "\n" + frozen), built(tmp_path, ensemble("mlp")))
    )
    assert both[True].flops - alone[True].flops == both[False].flops - alone[False].flops > 0
    assert both[True].saved_bytes == alone[True].saved_bytes


@pytest.mark.parametrize("loss", ["merged_share = 0.5", "distillation = 1.0", "mutual = 1.0"])
def test_losses_that_tie_members_are_in_it_without_the_other_ranks(loss: str, tmp_path: Path) -> None:
    def refused(_: Tensor) -> Tensor:
        raise AssertionError("a collective")

    plain = trace_dense(built(tmp_path, ensemble("mlp", "copies = 2")), rows=ROWS, num_dense=NUM_DENSE, trains=True)
    task = built(tmp_path, ensemble("mlp", "copies = 2", "[loss]", loss), mean_over_ranks=refused)
    tied = trace_dense(task, rows=ROWS, num_dense=NUM_DENSE, trains=True)
    assert tied.num_ops > plain.num_ops and tied.saved_bytes > plain.saved_bytes
    assert trace_dense(task, rows=ROWS, num_dense=NUM_DENSE, trains=False).num_ops < plain.num_ops


@pytest.mark.parametrize("stacked", ["false", "true"])
def test_what_heads_are_taught_is_in_it(stacked: str, tmp_path: Path) -> None:
    mean, taught = (
        built(tmp_path, ensemble("finalnet", "copies = 2", keys=keys, dense=f"batch_copies = {stacked}"))
        for keys in ("", ', loss = "taught"')
    )
    found, without = (trace_dense(task, rows=ROWS, num_dense=NUM_DENSE, trains=True) for task in (taught, mean))
    assert found == run_for_real(taught, ROWS, trains=True)
    assert found.num_ops > without.num_ops and found.flops == without.flops


def test_no_memory_is_taken_and_the_task_is_left_as_it_is(tmp_path: Path) -> None:
    text = ensemble("dcn_v2", "copies = 2", keys=", hidden = [30000, 10000], batch_norm = true, dropout = 0.1")
    with torch.device("meta"):
        task = built(tmp_path, text)
    before = {name: id(value) for name, value in task.state_dict(keep_vars=True).items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work = trace_dense(task, rows=65_536, num_dense=NUM_DENSE, trains=True)
    assert work.peak_bytes > work.saved_bytes > 50e9 and work.flops > 2e14
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 200_000  # KiB
    assert {name: id(value) for name, value in task.state_dict(keep_vars=True).items()} == before
    assert all(value.is_meta and value.grad is None for value in task.parameters()) and task.training


@pytest.mark.parametrize("kind", ["dlrm", "finalmlp"])
def test_members_without_weights_give_the_same(kind: str, tmp_path: Path) -> None:
    text = ensemble(kind)
    with torch.device("meta"):
        bare = built(tmp_path, text)
    found = [trace_dense(task, rows=ROWS, num_dense=NUM_DENSE, trains=True) for task in (bare, built(tmp_path, text))]
    assert found[0] == found[1]


ASKING = '''"""A kind that asks what a value is."""
from dataclasses import dataclass
import torch
from torch import nn
from configs.section import ArchConfig

@dataclass(frozen=True, kw_only=True)
class Config(ArchConfig):
    """Asks."""
    def build(self, *, num_dense, num_features, dim):
        return Asking()

class Asking(nn.Module):
    first_order = False
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
    def forward(self, inputs):
        return inputs.embedded_BFD.sum(dim=(1, 2)) * (self.weight if self.weight.item() > 0 else -self.weight)
'''


def test_a_member_that_asks_for_a_value_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "curious_kinds").mkdir()
    (tmp_path / "curious_kinds" / "asking.py").write_text(ASKING)
    monkeypatch.syspath_prepend(str(tmp_path))
    task = built(tmp_path, ensemble("mlp") + '\n[members.curious]\narch = {kind = "curious_kinds.asking"}')
    with pytest.raises(ConfigError, match=r"^members\.curious\.arch: planning runs members on tensors without values"):
        trace_dense(task, rows=ROWS, num_dense=NUM_DENSE, trains=True)
