"""EnsembleTask: losses against a plain mean over real rows, and members that leave each other's gradients alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from modules.task import EnsembleTask, MemberLosses
from tests.unit.modules.small import batch, deepfm, ensemble, mlp


def gradients(task: EnsembleTask, inputs: SimpleNamespace) -> dict[str, Tensor]:
    task.begin_step(step=4, rank=0)
    loss, _ = task(inputs)
    loss.backward()
    return {name: p.grad for name, p in task.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_mean_over_ranks_is_the_mean_over_the_global_batch(world_size: int) -> None:
    count, slice_rows = 7, 4  # ranks hold 7; 4 and 3; 4, 3 and none
    slice_rows = count if world_size == 1 else slice_rows
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(count, 2, generator=random, dtype=torch.float64)
    labels = (torch.rand(count, generator=random) > 0.5).double()
    summed = torch.zeros(2, dtype=torch.float64)
    for rank in range(world_size):
        mine = slice(rank * slice_rows, min((rank + 1) * slice_rows, count))
        rows = len(labels[mine])
        padding = slice_rows - rows
        # What a padded row's logit and label are must not matter.
        padded_logits = torch.cat([logits[mine], torch.full((padding, 2), 55.0, dtype=torch.float64)])
        padded_labels = torch.cat([labels[mine], torch.zeros(padding, dtype=torch.float64)])
        weights = torch.tensor([world_size / count] * rows + [0.0] * padding)
        total, output = MemberLosses()([padded_logits[:, 0], padded_logits[:, 1]], padded_labels.float(), weights)
        torch.testing.assert_close(total.double(), output.losses_M.double().sum(), rtol=1e-6, atol=1e-6)
        summed += output.losses_M
    expected = [binary_cross_entropy_with_logits(logits[:, m], labels).item() for m in range(2)]
    torch.testing.assert_close((summed / world_size).tolist(), expected, rtol=1e-6, atol=1e-6)


def test_the_output_is_for_metrics_alone() -> None:
    task = EnsembleTask(ensemble({"deep": mlp(seed=1)}, groups={"deep": "shared"}))
    loss, output = task(batch(5))
    assert loss.requires_grad
    assert not output.logits_BM.requires_grad and not output.losses_M.requires_grad
    assert output.logits_BM.shape == (5, 1)
    assert output.losses_M.shape == (1,)


def test_padding_gets_no_gradient() -> None:
    task = EnsembleTask(ensemble({"deep": mlp(seed=1)}, groups={"deep": "shared"}))
    padded, real = batch(6), batch(6)
    padded.loss_weights_B = torch.tensor([0.25] * 4 + [0.0] * 2)
    found = gradients(task, padded)
    task.zero_grad()
    logits = task.ensemble(real.dense_BN, real.sparse)[0][:4]
    binary_cross_entropy_with_logits(logits, real.labels_B[:4]).backward()
    for name, parameter in task.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-5, atol=1e-7)


def of_member(found: dict[str, Tensor], member: str) -> dict[str, Tensor]:
    return {name: gradient for name, gradient in found.items() if f".members.{member}." in name}


@pytest.mark.parametrize("order", [("deep", "fm"), ("fm", "deep")])
@pytest.mark.parametrize("shared", [False, True])
def test_a_members_gradients_are_the_same_bits_whoever_else_is_there(order: tuple[str, str], shared: bool) -> None:
    def build(name: str) -> nn.Module:
        return mlp(seed=1, dropout=0.3) if name == "deep" else deepfm(seed=2)

    def task(*names: str) -> EnsembleTask:
        built = ensemble(
            {name: build(name) for name in names}, groups={name: "shared" if shared else name for name in names}
        )
        # Seeds go by name here, as the assembly derives them.
        seeds = {name: {"deep": 10, "fm": 11}[name] for name in names}
        rebuilt = type(built)(
            tables=built.tables,
            members=dict(built.bank.members.items()),
            groups={name: "shared" if shared else name for name in names},
            seeds=seeds,
        )
        return EnsembleTask(rebuilt)

    both = gradients(task(*order), batch(16))
    for name in order:
        alone = gradients(task(name), batch(16))
        mine = of_member(alone, name)
        assert mine
        assert all(torch.equal(both[key], gradient) for key, gradient in mine.items())
        if not shared:
            tables = {key: value for key, value in alone.items() if f"embedding_bags.{name}" in key}
            assert tables
            assert all(torch.equal(both[key], gradient) for key, gradient in tables.items())


def test_a_shared_table_receives_the_sum_of_its_members_gradients() -> None:
    def table_gradients(*seeds: int) -> dict[str, Tensor]:
        members = {f"m{seed}": mlp(seed=seed) for seed in seeds}
        task = EnsembleTask(ensemble(members, groups=dict.fromkeys(members, "shared")))
        return {key: value for key, value in gradients(task, batch(16)).items() if "embedding_bags" in key}

    both, first, second = table_gradients(1, 2), table_gradients(1), table_gradients(2)
    assert both.keys() == first.keys()
    for key in both:
        assert both[key].any()
        torch.testing.assert_close(both[key], first[key] + second[key], rtol=1e-5, atol=1e-7)
