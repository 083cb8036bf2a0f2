"""Plans: each point once, within a budget, what the bytes rule out never."""

from __future__ import annotations

import pytest

from configs.errors import ConfigError, PlanError
from tests.support.planned_cases import MIB, MadeUpPlanner, machine, variant
from trainer.planning.plans import Budget, OutOfBudgetError, Plans
from trainer.planning.study import Case

ENSEMBLE = variant()
LARGE = Budget(max_plans=100, seconds=None)


def case(world_size: int, *, mib: float = 64, purpose="train", of=ENSEMBLE) -> Case:
    return Case(variant=of, hardware=machine(mib), purpose=purpose, world_size=world_size)


def test_a_point_is_planned_once():
    planner = MadeUpPlanner()
    plans = Plans(planner, budget=LARGE)
    box = machine(64)
    first = plans.point(Case(variant=ENSEMBLE, hardware=box, purpose="train", world_size=4))
    assert first.fits
    assert plans.point(Case(variant=ENSEMBLE, hardware=box, purpose="train", world_size=4)) is first
    for other in (case(2), case(4, purpose="score"), case(4, of=variant("--members.solo.copies=3"))):
        assert plans.point(other) is not first
    assert len(planner.cases) == plans.num_plans == 4


def test_what_the_bytes_rule_out_is_not_planned():
    planner = MadeUpPlanner()
    point = Plans(planner, budget=LARGE).point(case(1, mib=5))
    assert not planner.cases and not point.fits and not point.held
    assert point.refusal is not None and point.refusal.sentence.endswith("; not planned")
    assert point.refusal.need_bytes > point.refusal.capacity_bytes == point.capacity_bytes
    assert (point.batch_size, point.rows_per_rank, point.num_members) == (256, 256, 3)


def test_plans_end_with_the_budget():
    planner = MadeUpPlanner()
    plans = Plans(planner, budget=Budget(max_plans=2, seconds=None))
    plans.point(case(1))
    plans.point(case(2))
    plans.point(case(1))  # remembered
    plans.point(case(1, mib=5))  # ruled out
    with pytest.raises(OutOfBudgetError, match=r"after 2 plans; more with --max-plans"):
        plans.point(case(4))
    assert len(planner.cases) == 2


def test_plans_end_with_the_time():
    plans = Plans(MadeUpPlanner(), budget=Budget(max_plans=2, seconds=1e-9))
    with pytest.raises(OutOfBudgetError, match=r"--timeout"):
        plans.point(case(1))


@pytest.mark.parametrize(("error", "where"), [(ConfigError("no\n such"), "placement"), (PlanError("full"), "planner")])
def test_a_refusal_in_place_of_an_error(error, where):
    def planned(of: Case):
        raise error

    plans = Plans(planned, budget=LARGE)
    point = plans.try_point(case(1))
    assert point.refusal is not None and point.refusal.where == where
    assert point.refusal.sentence == " ".join(str(error).split())
    with pytest.raises(type(error)):
        plans.point(case(1))


def test_it_tells_how_far_it_is(monkeypatch):
    said: list[str] = []
    now = iter(range(0, 1000, 10))
    monkeypatch.setattr("trainer.planning.plans.time.monotonic", lambda: next(now))
    plans = Plans(MadeUpPlanner(), budget=LARGE, say=said.append)
    plans.expected = 4
    plans.point(case(1))
    plans.point(case(2))
    assert said == [
        "plan 1 of 4, 0:10 passed: 1 rank of box to train",
        "plan 2 of 4, 0:20 passed, ETA 1:00: 2 ranks of box to train",
    ]
    plans.expected = None
    plans.point(case(4))
    assert said[-1] == "plan 3, 0:30 passed, at most 100: 4 ranks of box to train"


def test_fewer_ranks_of_a_cpu_host_share_all_of_its_memory_where_they_are_refused_too():
    def planned(of: Case):
        raise PlanError("full")

    box = machine(64, device="cpu")
    plans = Plans(planned, budget=LARGE)
    for world_size, mib in ((1, 256), (2, 128), (4, 64), (8, 64)):
        point = plans.try_point(Case(variant=ENSEMBLE, hardware=box, purpose="train", world_size=world_size))
        assert point.refusal is not None and point.refusal.sentence == "full"
        assert point.capacity_bytes == point.refusal.capacity_bytes == mib * MIB
    (tight,) = [plans.point(Case(variant=ENSEMBLE, hardware=machine(3, device="cpu"), purpose="train", world_size=1))]
    assert tight.refusal is not None and tight.refusal.capacity_bytes == tight.capacity_bytes == 12 * MIB
