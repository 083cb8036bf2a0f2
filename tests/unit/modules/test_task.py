"""EnsembleTask: padding that counts nothing, and members that leave each other's gradients alone unless tied."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from modules.bagging import bag_counts
from modules.losses import MemberLosses
from modules.task import EnsembleTask
from tests.unit.modules.small import batch, deepfm, ensemble, mlp


def gradients(task: EnsembleTask, inputs: SimpleNamespace) -> dict[str, Tensor]:
    task.begin_step(step=4, rank=0)
    loss, _ = task(inputs)
    loss.backward()
    return {name: p.grad for name, p in task.named_parameters() if p.grad is not None}


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


def two_members(losses: MemberLosses | None = None) -> EnsembleTask:
    members = {"deep": mlp(seed=1), "fm": deepfm(seed=2)}
    return EnsembleTask(ensemble(members, groups={"deep": "shared", "fm": "fm"}), losses=losses)


def test_ties_reach_every_members_parameters_and_tables() -> None:
    plain = gradients(two_members(), batch(16))
    for losses in (MemberLosses(merged_share=0.5), MemberLosses(distillation=1.0), MemberLosses(mutual=1.0)):
        tied = gradients(two_members(losses), batch(16))
        assert tied.keys() == plain.keys()
        assert not any(torch.equal(tied[key], plain[key]) for key in plain if plain[key].any())


def test_a_bagged_members_rows_count_as_often_as_its_bag_says() -> None:
    inputs = batch(16)
    inputs.part_B, inputs.row_B = torch.full((16,), 1, dtype=torch.int32), torch.arange(500, 516)
    bagged = gradients(two_members(MemberLosses(bag_seeds={1: 9})), inputs)
    plain = gradients(two_members(), inputs)
    inputs.loss_weights_B = inputs.loss_weights_B * bag_counts(inputs.part_B, inputs.row_B, seed=9)
    weighted = gradients(two_members(), inputs)
    of_fm = [key for key in plain if ".members.fm." in key or "embedding_bags.fm" in key]
    assert of_fm and len(of_fm) < len(plain)
    for key in plain:
        assert torch.equal(bagged[key], (weighted if key in of_fm else plain)[key])
        if key in of_fm and plain[key].any():
            assert not torch.equal(bagged[key], plain[key])


def test_who_is_stopped_gets_no_gradient_in_dense_part_or_tables() -> None:
    task = two_members(MemberLosses())
    task.stop({task.ensemble.member_names[1]})
    found = gradients(task, batch(16))
    assert any(gradient.any() for key, gradient in found.items() if ".members.deep." in key)
    # The tables' lookup is one function, so tables that nothing came back to may have zeros.
    assert not any(gradient.any() for key, gradient in found.items() if "deep" not in key and ".shared" not in key)
