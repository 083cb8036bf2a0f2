"""LossWindow: means over steps and ranks, agreement on a stop, and the first loss that is not finite."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from configs.errors import ChorusError
from tests.unit.trainer.ranks import OneOfMany
from trainer.loss_window import Agreement, LossWindow


def window(runtime: OneOfMany, *, step: int = 0) -> LossWindow:
    return LossWindow(["deep", "solo"], step=step, runtime=runtime)  # type: ignore[arg-type]


def test_losses_are_means_over_the_steps_since_the_last_time() -> None:
    losses = window(OneOfMany())
    for step, values in enumerate(([1.0, 4.0], [2.0, 5.0], [6.0, 0.0]), start=1):
        losses.add(torch.tensor(values))
        if step != 1:
            losses.agree(step)
    assert losses.take() == {"deep": 3.0, "solo": 3.0}
    losses.add(torch.tensor([7.0, 8.0]))
    losses.agree(4)
    assert losses.take() == {"deep": 7.0, "solo": 8.0}


def test_ranks_count_alike() -> None:
    """Three ranks; the other two together have twice this one's sums plus 3 for each value."""

    def summed(mine: Tensor) -> Tensor:
        return mine * 3 + 3

    losses = window(OneOfMany(world_size=3, summed=summed))
    losses.add(torch.tensor([1.0, 2.0]))
    losses.agree(1)
    assert losses.take() == {"deep": 2.0, "solo": 3.0}


NOTHING = Agreement(stop=False, save=False, failed=False)


def test_what_one_rank_asks_for_all_do() -> None:
    runtime = OneOfMany(world_size=2)
    losses = window(runtime)
    losses.add(torch.zeros(2))
    assert losses.agree(1) == NOTHING
    for step, asked in enumerate(("save", "failed"), start=2):
        losses.add(torch.zeros(2))
        assert losses.agree(step, **{asked: True}) == dataclasses.replace(NOTHING, **{asked: True})
    runtime.stop_requested = True
    losses.add(torch.zeros(2))
    assert losses.agree(4) == dataclasses.replace(NOTHING, stop=True)


@pytest.mark.parametrize(("place", "asked"), [(-3, "stop"), (-2, "save"), (-1, "failed")])
def test_what_another_rank_asks_for_this_one_does(place: int, asked: str) -> None:
    def another_asks(mine: Tensor) -> Tensor:
        theirs = torch.zeros_like(mine)
        theirs[place] = 1.0
        return mine + theirs

    losses = window(OneOfMany(world_size=2, summed=another_asks))
    losses.add(torch.zeros(2))
    assert losses.agree(1) == dataclasses.replace(NOTHING, **{asked: True})


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_first_loss_that_is_not_finite_is_named(bad: float) -> None:
    losses = window(OneOfMany(), step=100)
    losses.add(torch.tensor([0.5, 0.5]))
    losses.agree(101)
    for values in ([0.5, 0.5], [0.5, bad], [bad, bad]):
        losses.add(torch.tensor(values))
    with pytest.raises(ChorusError) as refused:
        losses.agree(104)
    assert str(refused.value) == (
        f"member solo: loss is {bad} at step 103; lower members.solo.lr, dense.lr or the lr of its tables,"
        " and start again from a checkpoint before it"
    )
    assert refused.value.exit_code == 1


def test_agreement_is_due_about_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    monkeypatch.setattr("trainer.loss_window.time.monotonic", lambda: now[0])
    losses = window(OneOfMany())
    assert losses.due(1)
    for seconds, next_due in ((0.01, 100), (0.25, 4), (30.0, 1), (1e-9, 1_000)):
        start = losses._agreed_step
        now[0] += seconds
        losses.add(torch.zeros(2))
        losses.agree(start + 1)
        assert not losses.due(start + next_due)
        assert losses.due(start + 1 + next_due)
