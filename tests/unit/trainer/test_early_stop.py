"""EarlyStop: who stops when, what the best weights are, and that a checkpoint has it all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.training_schema import EarlyStop as Section
from configs.training_schema import Schedule
from trainer.checkpoints.pieces import Pieces
from trainer.early_stop import EarlyStop

GROUPS = {"shared": ("a", "b"), "solo": ("solo",)}


class Run:
    """Two groups with a weight each; the second's table is one of two shards."""

    def __init__(self, *, evaluations: int = 2, schedule: Schedule | None = None, **keys: Any) -> None:
        self.shared, self.solo = torch.zeros(2), torch.zeros(3, 4)
        weights = {
            "shared": {"model/shared": self.shared},
            "solo": {"model/solo": Pieces(shape=(6, 4), parts={(3, 0): self.solo})},
        }
        columns = {"shared": "merged"} if evaluations else {}
        section = Section(evaluations=evaluations, columns=columns, **keys)
        self.stop = EarlyStop(section, schedule=schedule or Schedule(), groups=GROUPS, weights=weights)  # type: ignore[arg-type]
        self.stop.begin()

    def evaluate(self, *, merged: float, solo: float) -> list[str]:
        figures = {"merged": merged, "solo": solo, "a": 0.9, "b": 0.9}
        return self.stop.update(
            {name: SimpleNamespace(metrics=SimpleNamespace(auc=value)) for name, value in figures.items()}  # type: ignore[misc]
        )

    def train(self, value: float) -> None:
        self.shared.fill_(value)
        self.solo.fill_(value)


def test_a_group_stops_by_its_own_figure_and_gets_its_best_weights_back() -> None:
    run = Run()
    told = []
    for step, (merged, solo) in enumerate([(0.6, 0.6), (0.7, 0.5), (0.8, 0.6)], start=1):
        run.train(float(step))
        told += run.evaluate(merged=merged, solo=solo)
    assert told == ["solo: stopped, no better for 2 evaluations; best auc 0.60000"]
    assert run.stop.stopped_groups == {"solo"} and run.stop.stopped_members == {"solo"} and not run.stop.is_over
    assert (run.solo == 1.0).all() and (run.shared == 3.0).all()
    run.train(4.0)
    run.solo.fill_(1.0)  # it is not trained
    run.evaluate(merged=0.8, solo=0.99)
    assert run.evaluate(merged=0.7, solo=0.99) == ["a, b: stopped, no better for 2 evaluations; best auc 0.80000"]
    assert run.stop.is_over and (run.shared == 3.0).all() and (run.solo == 1.0).all()


def test_a_change_that_is_too_small_is_none() -> None:
    run = Run(min_change=0.01)
    for merged in (0.5, 0.505, 0.509):
        told = run.evaluate(merged=merged, solo=merged * 1.5)
    assert told == ["a, b: stopped, no better for 2 evaluations; best auc 0.50000"]


def test_rows_that_do_not_define_the_figure_stop_nobody_and_cost_nobody_its_weights() -> None:
    run = Run(evaluations=1)
    run.train(1.0)
    for _ in range(3):
        told = run.evaluate(merged=float("nan"), solo=0.5)
    assert told[0] == "a, b: these rows do not define auc, it goes on"
    assert run.stop.stopped_members == {"solo"}
    run.stop.hold_best(True)
    assert (run.shared == 1.0).all()  # never evaluated, so the last weights are all there is


def test_before_any_evaluation_there_are_no_best_weights() -> None:
    run = Run()
    run.train(1.0)
    run.stop.hold_best(True)
    assert (run.shared == 1.0).all() and (run.solo == 1.0).all()
    run.stop.hold_best(False)
    assert (run.shared == 1.0).all() and (run.solo == 1.0).all()


def test_caches_are_brought_up_to_date_before_and_emptied_after() -> None:
    calls: list[str] = []
    weights = {"solo": {"model/solo": torch.zeros(2)}}
    stop = EarlyStop(
        Section(evaluations=1),
        schedule=Schedule(),
        groups={"solo": ("solo",)},
        weights=weights,
        before_read=lambda: calls.append("read"),
        after_write=lambda: calls.append("write"),
    )
    stop.begin()
    stop.update({"solo": SimpleNamespace(metrics=SimpleNamespace(auc=0.5))})  # type: ignore[dict-item]
    stop.hold_best(True)
    assert calls == ["read", "read", "write", "read", "write"]


def test_each_group_has_a_rate_of_its_own_where_the_schedule_says_so() -> None:
    schedule = Schedule(kind="plateau", plateau_of="early_stop", plateau_factor=0.5, final_factor=0.2)
    run = Run(evaluations=9, schedule=schedule)
    assert run.stop.lr_factors == {"shared": 1.0, "solo": 1.0}
    for merged, solo in ((0.5, 0.5), (0.6, 0.4), (0.7, 0.4), (0.8, 0.4), (0.9, 0.4)):
        run.evaluate(merged=merged, solo=solo)
    assert run.stop.lr_factors == {"shared": 1.0, "solo": 0.2}
    assert Run(schedule=Schedule(kind="plateau")).stop.lr_factors == {}


def test_at_the_end_the_best_weights_are_in_place_and_the_last_can_come_back() -> None:
    run = Run()
    run.train(1.0)
    run.evaluate(merged=0.9, solo=0.5)
    run.train(2.0)
    run.evaluate(merged=0.8, solo=0.6)
    run.stop.hold_best(True)
    run.stop.hold_best(True)
    assert (run.shared == 1.0).all() and (run.solo == 2.0).all()
    run.stop.hold_best(False)
    assert (run.shared == 2.0).all() and (run.solo == 2.0).all()


@pytest.mark.parametrize("hold", [False, True])
def test_a_restored_one_goes_on_as_if_nothing_had_been(hold: bool) -> None:
    schedule = Schedule(kind="plateau", plateau_of="early_stop", plateau_factor=0.5)
    run, other = Run(schedule=schedule), Run(schedule=schedule)
    run.train(1.0)
    run.evaluate(merged=0.9, solo=0.5)
    run.train(2.0)
    run.evaluate(merged=0.8, solo=0.6)
    run.stop.hold_best(hold)
    for key, value in run.stop.state_tensors().items():
        _copy(value, to=other.stop.state_tensors()[key])
    other.shared.copy_(run.shared)
    other.solo.copy_(run.solo)
    other.stop.restore(run.stop.state())
    for one in (run, other):
        one.stop.hold_best(False)
        one.train(3.0)
        assert one.evaluate(merged=0.7, solo=0.4) == [
            "a, b: stopped, no better for 2 evaluations; best auc 0.90000",
            "solo: no better than auc 0.60000; lr times 0.5",
        ]
        assert (one.shared == 1.0).all() and (one.solo == 3.0).all()


def _copy(value: Pieces | Tensor, *, to: Pieces | Tensor) -> None:
    if isinstance(value, Pieces) and isinstance(to, Pieces):
        for at, part in value.parts.items():
            to.parts[at].copy_(part)
    elif isinstance(value, Tensor) and isinstance(to, Tensor):
        to.copy_(value)


def test_with_0_evaluations_it_is_not_there() -> None:
    run = Run(evaluations=0)
    assert run.evaluate(merged=0.1, solo=0.1) == [] and not run.stop.is_on and not run.stop.is_over
    assert run.stop.state_tensors() == {} and run.stop.state()["groups"] == {}
