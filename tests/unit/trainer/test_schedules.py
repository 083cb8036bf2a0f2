"""Schedules: the factor of every step, and what a plateau's state carries over."""

from __future__ import annotations

import json
import math

import pytest

from configs.training_schema import Schedule
from trainer.schedules import LrSchedule


def factors(num_steps: int, **keys: object) -> list[float]:
    """Factors of steps 1, 2, ..."""
    schedule = LrSchedule(Schedule(**keys))  # type: ignore[arg-type]
    return [schedule.factor(step) for step in range(1, num_steps + 1)]


def test_without_a_schedule_the_factor_is_one() -> None:
    assert factors(1000) == [1.0] * 1000


@pytest.mark.parametrize(
    "keys",
    [
        {"kind": "constant"},
        {"kind": "cosine", "decay_start_step": 9, "decay_steps": 5},
        {"kind": "polynomial", "decay_start_step": 9, "decay_steps": 5},
        {"kind": "plateau"},
    ],
)
def test_every_kind_warms_up_from_zero_to_one(keys: dict[str, object]) -> None:
    assert factors(6, warmup_steps=4, **keys) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_polynomial_step_by_step() -> None:
    found = factors(10, kind="polynomial", warmup_steps=2, decay_start_step=4, decay_steps=4)
    assert found == [0.5, 1.0, 1.0, 1.0, 0.75**2, 0.5**2, 0.25**2, 0.0, 0.0, 0.0]
    floored = factors(10, kind="polynomial", decay_start_step=4, decay_steps=4, power=1.0, final_factor=0.3)
    assert floored == [1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.3, 0.3, 0.3, 0.3]


def dlrm_reference(step: int, *, warmup: int, start: int, decay: int) -> float:
    """The factor of MLPerf's DLRM at its step count, which is 1 at the first step, where both define one."""
    if step < warmup:
        return 1.0 - (warmup - step) / warmup
    if start <= step < start + decay:
        return float(((decay - (step - start)) / decay) ** 2)
    return math.nan


@pytest.mark.parametrize(("warmup", "start", "decay"), [(2750, 49315, 27772), (8, 8, 3), (1, 5, 20)])
def test_polynomial_is_that_of_mlperf(warmup: int, start: int, decay: int) -> None:
    section = Schedule(kind="polynomial", warmup_steps=warmup, decay_start_step=start, decay_steps=decay)
    schedule = LrSchedule(section)
    compared = 0
    for step in {
        *range(1, 50),
        *range(warmup - 5, warmup + 5),
        *range(start - 5, start + decay + 5, max(decay // 99, 1)),
    }:
        expected = dlrm_reference(step, warmup=warmup, start=start, decay=decay) if step > 0 else math.nan
        if not math.isnan(expected):
            compared += 1
            assert schedule.factor(step) == pytest.approx(expected, rel=1e-12), step
    assert compared >= 10


def test_cosine_falls_by_half_at_half_way_and_ends_at_the_final_factor() -> None:
    found = factors(14, kind="cosine", decay_start_step=2, decay_steps=10, final_factor=0.2)
    assert found[:2] == [1.0, 1.0]
    assert found[6] == pytest.approx(0.6) and found[11] == found[13] == pytest.approx(0.2)
    assert all(earlier > later for earlier, later in zip(found[1:12], found[2:12], strict=False))
    assert found[4] == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi * 0.3)) / 2)


def test_a_plateau_lowers_the_factor_down_to_the_final_one() -> None:
    schedule = LrSchedule(
        Schedule(kind="plateau", plateau_evaluations=2, plateau_factor=0.5, final_factor=0.2, warmup_steps=2)
    )
    found = []
    for improved in (True, False, True, False, False, False, False, False, False):
        schedule.on_evaluation(improved)
        found.append(schedule.factor(10))
    assert found == [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.2]
    assert schedule.factor(1) == 0.1  # warm-up on top


@pytest.mark.parametrize("seen", range(6))
def test_a_restored_plateau_goes_on_as_if_it_had_not_stopped(seen: int) -> None:
    section = Schedule(kind="plateau", plateau_evaluations=2, plateau_factor=0.3)
    whole = LrSchedule(section)
    for _ in range(6):
        whole.on_evaluation(False)
    first, second = LrSchedule(section), LrSchedule(section)
    for _ in range(seen):
        first.on_evaluation(False)
    second.restore(json.loads(json.dumps(first.state())))
    for _ in range(6 - seen):
        second.on_evaluation(False)
    assert second.factor(1) == whole.factor(1) == pytest.approx(0.027)


def test_only_a_plateau_has_a_state_and_listens() -> None:
    for keys in ({}, {"kind": "cosine", "decay_steps": 5}, {"kind": "polynomial", "decay_steps": 5}):
        schedule = LrSchedule(Schedule(**keys))  # type: ignore[arg-type]
        before = [schedule.factor(step) for step in range(1, 9)]
        schedule.on_evaluation(False)
        assert [schedule.factor(step) for step in range(1, 9)] == before
        assert schedule.state() == {}
        schedule.restore({})
    changed = LrSchedule(Schedule(kind="plateau"))
    changed.on_evaluation(False)
    changed.restore({})  # a checkpoint of another kind
    assert changed.factor(1) == 1.0


def test_steps_count_from_one() -> None:
    with pytest.raises(AssertionError, match="count from 1"):
        LrSchedule(Schedule()).factor(0)
