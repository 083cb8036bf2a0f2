"""Dense gradients: one rank's mean is its own; several ranks stand in as a collective that multiplies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from sharding.dense_gradients import DenseGradients


def parameter(*values: float, gradient: bool = True) -> nn.Parameter:
    made = nn.Parameter(torch.tensor(values))
    if gradient:
        made.grad = made.detach().clone()
    return made


def test_one_rank_keeps_its_gradients(group: dist.ProcessGroup) -> None:
    one, none = parameter(1.0, 2.0), parameter(3.0, gradient=False)
    DenseGradients({"deep": [one, none]}, process_group=group).average()
    assert one.grad is not None and one.grad.tolist() == [1.0, 2.0]
    assert none.grad is None


def test_a_member_is_one_collective(group: dist.ProcessGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks, the other of which holds ten times this one's gradients."""
    sizes: list[int] = []

    class Done:
        def wait(self) -> None: ...

    def all_reduce(flat: torch.Tensor, *, group: Any, async_op: bool) -> Done:
        sizes.append(flat.numel())
        flat.mul_(11.0)
        return Done()

    monkeypatch.setattr(dist, "get_world_size", lambda _group: 2)
    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    matrix = nn.Parameter(torch.ones(2, 3))
    matrix.grad = torch.arange(6.0).view(2, 3)
    bias, unused, other = parameter(4.0), parameter(5.0, gradient=False), parameter(6.0, 8.0)
    DenseGradients({"deep": [matrix, bias, unused], "solo": [other]}, process_group=group).average()
    assert sizes == [8, 2]
    assert torch.equal(matrix.grad, torch.arange(6.0).view(2, 3) * 5.5)
    assert bias.grad is not None and bias.grad.tolist() == [22.0]
    assert unused.grad is not None and unused.grad.tolist() == [0.0]
    assert other.grad is not None and other.grad.tolist() == [33.0, 44.0]


def test_a_member_is_scaled_as_a_whole_and_alone(group: dist.ProcessGroup) -> None:
    weight, bias, unused = parameter(3.0, 0.0), parameter(4.0), parameter(1.0, gradient=False)
    small, free = parameter(0.3, 0.4), parameter(30.0)
    gradients = DenseGradients(
        {"deep": [weight, bias, unused], "solo": [small], "free": [free]},
        process_group=group,
        clip_norms={"deep": 2.5, "solo": 2.5, "free": None, "frozen": 1.0},
    )
    gradients.clip()
    assert weight.grad is not None and bias.grad is not None and small.grad is not None and free.grad is not None
    torch.testing.assert_close(torch.cat([weight.grad, bias.grad]), torch.tensor([1.5, 0.0, 2.0]), rtol=1e-5, atol=0)
    assert unused.grad is None
    assert torch.equal(small.grad, torch.tensor([0.3, 0.4]))
    assert free.grad.tolist() == [30.0]


def test_clipping_is_torchs(group: dist.ProcessGroup) -> None:
    random = torch.Generator().manual_seed(0)
    ours = [nn.Parameter(torch.zeros(5, 3)), nn.Parameter(torch.zeros(7))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    for one, other in zip(ours, theirs, strict=True):
        one.grad = torch.randn(one.shape, generator=random)
        other.grad = one.grad.clone()
    DenseGradients({"deep": ours}, process_group=group, clip_norms={"deep": 0.7}).clip()
    assert nn.utils.clip_grad_norm_(theirs, 0.7) > 0.7
    for one, other in zip(ours, theirs, strict=True):
        assert one.grad is not None and other.grad is not None and torch.equal(one.grad, other.grad)


def test_running_statistics_travel_with_the_gradients_and_who_is_left_out_does_not(
    group: dist.ProcessGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ranks, the other of which holds three times this one's values."""
    sizes: list[int] = []

    class Done:
        def wait(self) -> None: ...

    def all_reduce(flat: torch.Tensor, *, group: Any, async_op: bool) -> Done:
        sizes.append(flat.numel())
        flat.mul_(4.0)
        return Done()

    monkeypatch.setattr(dist, "get_world_size", lambda _group: 2)
    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    one, other, mean, variance = parameter(1.0), parameter(2.0), torch.tensor([1.0, 2.0]), torch.tensor([3.0])
    gradients = DenseGradients(
        {"deep": [one], "solo": [other]},
        process_group=group,
        statistics={"deep": [mean, variance]},
        clip_norms={"solo": 0.5},
    )
    gradients.leave_out({"solo"})
    gradients.average()
    gradients.clip()
    assert sizes == [4]
    assert mean.tolist() == [2.0, 4.0] and variance.tolist() == [6.0]
    assert one.grad is not None and one.grad.tolist() == [2.0]
    assert other.grad is not None and other.grad.tolist() == [2.0]
    gradients.leave_out(())
    gradients.average()
    assert sizes == [4, 4, 1]
