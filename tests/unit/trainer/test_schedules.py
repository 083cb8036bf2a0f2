"""Schedules: the factor of every step, and what a plateau's state carries over."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from configs.errors import ConfigError
from configs.interval_schema import Until
from configs.training_schema import Schedule, Train
from trainer.schedules import LrSchedule, run_schedule


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
        {"kind": "cyclic", "cycle_steps": 9, "final_factor": 1.0},
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


def test_cycles_are_those_of_snapshot_ensembles() -> None:
    """Huang et al., equation 2, written as in the paper: its t is our step, ceil(T / M) a cycle."""
    found = factors(12, kind="cyclic", cycle_steps=4)
    assert found == pytest.approx([0.5 * (math.cos(math.pi * ((t - 1) % 4) / 4) + 1) for t in range(1, 13)], abs=1e-15)
    floored = factors(12, kind="cyclic", cycle_steps=4, final_factor=0.2)
    assert floored == pytest.approx([0.2 + 0.8 * factor for factor in found], abs=1e-15)
    assert factors(6, kind="cyclic", cycle_steps=4, warmup_steps=2) == [0.5 * found[0], *found[1:6]]


@pytest.mark.parametrize(("epochs", "steps_per_epoch"), [(2.0, 5), (0.5, 11), (0.05, 391), (0.3, 77), (1.1, 30)])
def test_the_last_step_of_a_cycle_has_its_lowest_factor(epochs: float, steps_per_epoch: int) -> None:
    """Lengths that are no whole steps, too: a cycle ends at the first step that is not within it."""
    schedule = LrSchedule(Schedule(kind="cyclic", cycle_epochs=epochs), steps_per_epoch=steps_per_epoch)
    found = [schedule.factor(step) for step in range(1, 500)]
    ends = [step for step in range(1, 500) if schedule.cycles_at_end(step)]
    assert [schedule.cycles_at_end(step) for step in ends] == list(range(1, len(ends) + 1))
    hundredths = round(epochs * 100) * steps_per_epoch
    assert ends == [end for n in range(1, 500) if (end := -(-n * hundredths // 100)) < 500]
    for begin, end in zip([0, *ends], ends, strict=False):
        cycle = found[begin:end]
        assert cycle[0] == 1.0 and cycle == sorted(set(cycle), reverse=True)
        assert found[end : end + 1] in ([1.0], [])


def cyclic(*, until: Until, epoch_rows: int = 100, **keys: Any) -> LrSchedule:
    train = Train(batch_size=10, until=until, schedule=Schedule(kind="cyclic", **keys))
    return run_schedule(train, epoch_rows=epoch_rows)


def test_a_run_must_end_with_a_cycle() -> None:
    assert cyclic(until=Until(epochs=6), cycle_epochs=2.0, epoch_rows=101).cycles_at_end(66) == 3
    assert cyclic(until=Until(steps=30), cycle_epochs=0.5).cycles_at_end(30) == 6
    assert cyclic(until=Until(epochs=1), cycle_steps=5).cycles_at_end(10) == 2
    refused: list[tuple[Until, dict[str, Any], str]] = [
        (Until(epochs=5), {"cycle_epochs": 2.0}, "end at step 50, .* as at step 40 or 60"),
        (Until(steps=7), {"cycle_steps": 8}, "end at step 7, .* as at step 8$"),
        (Until(epochs=1), {"cycle_epochs": 0.1}, "0.1 epochs of 10 steps are 1 steps; a cycle must have 2 or more"),
        (Until(epochs=1), {"cycle_epochs": 0.5, "warmup_steps": 5}, "are 5 steps; a cycle must have 6 or more"),
    ]
    for until, keys, told in refused:
        with pytest.raises(ConfigError, match=told):
            cyclic(until=until, **keys)


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
    cyclic = {"kind": "cyclic", "cycle_steps": 5}
    for keys in ({}, {"kind": "cosine", "decay_steps": 5}, {"kind": "polynomial", "decay_steps": 5}, cyclic):
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


@pytest.mark.parametrize("kind", ["cosine", "polynomial"])
def test_a_decay_in_epochs_is_the_same_in_steps(kind: str) -> None:
    in_steps = LrSchedule(Schedule(kind=kind, decay_start_step=14, decay_steps=6))
    in_epochs = LrSchedule(Schedule(kind=kind, decay_start_epochs=1.4, decay_epochs=0.6), steps_per_epoch=10)
    assert [in_epochs.factor(step) for step in range(1, 25)] == [in_steps.factor(step) for step in range(1, 25)]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"kind": "cosine", "decay_epochs": 0.5, "decay_start_step": 3}, "decay_epochs: decay_steps or"),
        ({"kind": "constant", "decay_epochs": 0.5}, "decay_epochs: kind is 'constant'"),
        ({"kind": "cosine", "decay_start_epochs": 0.5}, "decay_steps: cosine needs"),
    ],
)
def test_half_a_decay_in_epochs_is_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Schedule(**keys)


def test_a_decay_that_begins_within_warm_up_is_refused() -> None:
    schedule = Schedule(kind="cosine", warmup_steps=6, decay_start_epochs=0.5, decay_epochs=0.5)
    with pytest.raises(ConfigError, match="decay_start_epochs: 0.5 epochs of 10 steps"):
        run_schedule(Train(batch_size=4, schedule=schedule), epoch_rows=40)
