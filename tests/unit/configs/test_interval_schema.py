"""Intervals: what falls due exactly, and what lengths, cycles and other keys cannot be together."""

from __future__ import annotations

import pytest

from configs.interval_schema import Every, SaveEvery
from tests.unit.configs.reading import ONE_MEMBER, problems, read


@pytest.mark.parametrize(("epochs", "steps_per_epoch"), [(0.05, 23), (0.1, 11), (1.1, 2), (0.25, 10), (3.0, 7)])
def test_parts_of_an_epoch_fall_due_with_the_epoch(epochs: float, steps_per_epoch: int) -> None:
    """The n-th at the first step that is not within n times the length, whatever floats make of that."""
    hundredths = round(epochs * 100) * steps_per_epoch
    expected = sorted({-(-n * hundredths // 100) for n in range(1, 600)})
    for section in (Every(epochs=epochs), SaveEvery(epochs=epochs)):
        due = [step for step in range(1, 100) if section.due(step, steps_per_epoch=steps_per_epoch)]
        assert due == [step for step in expected if step < 100]


def test_what_saves_falls_due_by_any_of_its_units() -> None:
    section = SaveEvery(steps=4, cycles=2)
    done = {3: 1, 6: 2, 9: 3, 12: 4}
    due = [step for step in range(1, 13) if section.due(step, steps_per_epoch=5, cycles_done=done.get(step, 0))]
    assert due == [4, 6, 8, 12]
    assert not any(SaveEvery().due(step, steps_per_epoch=1, cycles_done=step) for step in range(1, 9))
    given = (SaveEvery(steps=1), SaveEvery(epochs=0.5), SaveEvery(cycles=1), SaveEvery(seconds=1.0))
    assert not SaveEvery().is_given and all(every.is_given for every in given)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("schedule = {kind = 'cyclic'}", "train.schedule.cycle_steps: cyclic needs exactly one of"),
        (
            "schedule = {kind = 'cyclic', cycle_steps = 4, cycle_epochs = 1.0}",
            "train.schedule.cycle_steps: cyclic need",
        ),
        ("schedule = {kind = 'cyclic', cycle_steps = 1}", "train.schedule.cycle_steps: 1 leaves no step"),
        ("schedule = {kind = 'cyclic', cycle_epochs = -1.0}", "train.schedule.cycle_epochs: -1.0 must not be negative"),
        (
            "schedule = {kind = 'cosine', decay_steps = 4, cycle_epochs = 1.0}",
            "train.schedule.cycle_epochs: kind is 'cos",
        ),
        (
            "schedule = {kind = 'cyclic', cycle_steps = 4, warmup_steps = 4}",
            "train.schedule.warmup_steps: 4 are no part",
        ),
        (
            "schedule = {kind = 'cyclic', cycle_steps = 4, decay_steps = 2}",
            "train.schedule.decay_steps: kind is 'cyclic'",
        ),
        (
            "schedule = {kind = 'cyclic', cycle_steps = 4, decay_start_step = 2}",
            "train.schedule.decay_start_step: kind",
        ),
        (
            "schedule = {kind = 'cyclic', cycle_steps = 4, plateau_of = 'early_stop'}",
            "train.schedule.plateau_of: kind is 'cyclic'",
        ),
        (
            "early_stop.evaluations = 2\nevaluate_every.steps = 1\nschedule = {kind = 'cyclic', cycle_steps = 4}",
            "train.early_stop.evaluations: every new cycle",
        ),
        ("day_by_day = true\nschedule = {kind = 'cyclic', cycle_steps = 4}", "train.day_by_day: days are no whole"),
        ("[checkpoint]\nevery.cycles = 1", "checkpoint.every.cycles: the rates have no cycles; give"),
        ("day_by_day = true\n[checkpoint]\nevery.epochs = 1.0", "checkpoint.every.epochs: train.day_by_day writes"),
        ("[checkpoint]\nevery = {epochs = 1.0, steps = 1}", "checkpoint.every.epochs: give steps or epochs, not both"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_key(text: str, told: str) -> None:
    found = problems(f"[train]\n{text}")
    assert len(found) == 1 and found[0].startswith(told), found


def test_snapshots_are_two_keys() -> None:
    words = ("--train.schedule={kind = 'cyclic', cycle_epochs = 2.0}", "--checkpoint.every={cycles = 1}")
    run = read(ONE_MEMBER, *words)
    assert (run.train.schedule.cycle_epochs, run.checkpoint.every) == (2.0, SaveEvery(cycles=1))
