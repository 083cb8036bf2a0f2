"""Kills are drawn uniformly over a life, and the same for the same seed."""

from __future__ import annotations

import signal

import pytest

from trainer.analysis.reliability.kills import MEANINGS, SHARES, Life, draw_kill, draw_kills_of_job

LIFE = Life(start_seconds=10.0, steps_seconds=20.0, end_seconds=2.0, num_steps=100, write_seconds=0.5)


def _draw(number: int, *, first_step: int = 0, **kinds: int):
    return draw_kill(LIFE, first_step=first_step, world_size=3, seed=f"1/{number}", kinds=kinds or SHARES)


def test_the_same_seed_gives_the_same_kill():
    assert _draw(1) == _draw(1)
    assert len({_draw(number) for number in range(50)}) == 50


@pytest.mark.parametrize(("first_step", "steps_seconds"), [(0, 20.0), (50, 10.0), (100, 0.0)])
def test_moments_are_uniform_over_what_is_left_of_the_life(first_step, steps_seconds):
    kills = [_draw(number, first_step=first_step, rank=1) for number in range(4_000)]
    whole = 10.0 + steps_seconds + 2.0
    starts = [kill for kill in kills if kill.step == 0 and first_step + kill.step < 1 or kill.step < first_step]
    starts = [kill for kill in kills if kill.step == 0 and kill.seconds > 0.2] if first_step == 0 else starts
    assert len(starts) / len(kills) == pytest.approx(10.0 / whole, abs=0.03)
    steps = [kill.step for kill in kills if kill.step > first_step or (kill.step == first_step and first_step)]
    assert all(first_step <= step <= 100 for step in steps)
    halfway = sum(step < (first_step + 100) / 2 for step in steps)
    assert halfway / len(kills) == pytest.approx(steps_seconds / 2 / whole, abs=0.03)
    ends = sum(kill.step == 100 for kill in kills)
    assert ends / len(kills) == pytest.approx(2.0 / whole, abs=0.02)


def test_every_rank_is_a_victim():
    kills = [_draw(number, rank=1) for number in range(300)]
    assert all(70 < sum(kill.rank == rank for kill in kills) < 130 for rank in range(3))


def test_aimed_kills_wait_among_the_steps_for_a_part_of_a_write():
    kills = [_draw(number, first_step=20, writing=1) for number in range(300)]
    assert all(20 <= kill.step <= 100 and kill.is_aimed for kill in kills)
    assert 0.1 < sum(kill.lag_seconds for kill in kills) / 300 < 0.15
    assert max(kill.lag_seconds for kill in kills) <= 0.25


def test_kinds_come_in_their_shares_and_are_explained():
    assert set(MEANINGS) == set(SHARES)
    kills = [_draw(number) for number in range(3_000)]
    for kind, share in SHARES.items():
        assert sum(kill.kind == kind for kill in kills) / 3_000 == pytest.approx(share / sum(SHARES.values()), abs=0.03)


def test_what_is_sent():
    assert _draw(1, stop=1).signal == signal.SIGSTOP
    assert _draw(1, rank=1).signal == signal.SIGKILL
    assert [kind for kind in SHARES if _draw(1, **{kind: 1}).ends_torchrun] == ["agent", "host"]


def test_jobs_get_from_one_to_six_kills():
    assert {draw_kills_of_job(seed=str(seed)) for seed in range(100)} == {1, 2, 3, 4, 5, 6}
