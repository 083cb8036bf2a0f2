"""Greedy selection against all multisets, its options, and who joins where it is plain."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from configs.errors import DataError
from tests.support.fit_rows import drawn_rows, fit_rows
from trainer.analysis.merge_fitting.greedy_selection import GreedySettings, select_members
from trainer.analysis.merge_fitting.logistic_loss import mean_loss
from trainer.metrics.exact import exact_auc

ROWS = drawn_rows(600, noise=(0.8, 0.9, 1.0))


def best_pair(metric: str) -> tuple[float, float]:
    """The best and the second best figure (lower is better) of all multisets of one or two members."""
    values = []
    for size in (1, 2):
        for chosen in itertools.combinations_with_replacement(range(3), size):
            logits = ROWS.logits[:, list(chosen)].astype(np.float64).mean(axis=1)
            values.append(mean_loss(ROWS.labels, logits) if metric == "log_loss" else -exact_auc(ROWS.labels, logits))
    first, second = sorted(values)[:2]
    return first, second


@pytest.mark.parametrize("metric", ["log_loss", "auc"])
def test_two_rounds_find_the_best_pair(metric: str) -> None:
    selected = select_members(ROWS, GreedySettings(metric=metric, rounds=2))
    logits = ROWS.logits.astype(np.float64) @ selected.weights
    value = mean_loss(ROWS.labels, logits) if metric == "log_loss" else -exact_auc(ROWS.labels, logits)
    best, second = best_pair(metric)
    assert best < second
    assert value == pytest.approx(best, abs=1e-12)


def test_the_first_to_join_is_the_best_member() -> None:
    losses = [mean_loss(ROWS.labels, logits) for logits in ROWS.logits.T]
    (joined,) = select_members(ROWS, GreedySettings(rounds=1)).joined
    assert joined == (ROWS.members[int(np.argmin(losses))],)


def test_weights_are_how_often_a_member_joined() -> None:
    selected = select_members(ROWS, GreedySettings(rounds=7))
    (joined,) = selected.joined
    expected = [joined.count(name) / len(joined) for name in ROWS.members]
    assert selected.weights.tolist() == pytest.approx(expected, abs=1e-15)


def test_the_best_ensemble_on_the_way_is_taken() -> None:
    """With a member of noise forced in by the start, later rounds are better, and without it the first is."""
    rows = drawn_rows(800, noise=(0.3, np.inf))
    assert select_members(rows, GreedySettings(rounds=1)).weights.tolist() == [1.0, 0.0]
    forced = select_members(rows, GreedySettings(rounds=2, starts=2))
    assert forced.weights.tolist() == [0.5, 0.5]
    assert select_members(rows, GreedySettings(rounds=30, starts=2)).weights[0] > 0.9
    losses = [
        mean_loss(rows.labels, rows.logits.astype(np.float64) @ np.array([share, 1 - share])) for share in (1, 0.5)
    ]
    assert losses[0] < losses[1]


def test_a_member_of_noise_does_not_join() -> None:
    rows = drawn_rows(5_000, noise=(0.5, 0.5, np.inf))
    humble = fit_rows(rows.labels, rows.logits * [0.6, 0.6, 1.0])  # overconfident members would be the better for noise
    assert select_members(humble, GreedySettings(rounds=10)).weights[2] == 0.0


def test_of_identical_members_the_first_joins() -> None:
    rows = fit_rows(ROWS.labels, ROWS.logits[:, [0, 0]])
    assert select_members(rows, GreedySettings(rounds=5)).weights.tolist() == [1.0, 0.0]


def test_bags_are_halves_of_the_members_and_their_weights_are_averaged() -> None:
    rows = drawn_rows(500, noise=(0.7, 0.8, 0.9, 1.0))
    selected = select_members(rows, GreedySettings(rounds=6, bags=4, seed=3))
    assert len(selected.joined) == 4
    assert all(len(set(joined)) <= 2 for joined in selected.joined)
    expected = np.mean([[joined.count(n) / len(joined) for n in rows.members] for joined in selected.joined], axis=0)
    np.testing.assert_allclose(selected.weights, expected, rtol=1e-12)
    again = select_members(rows, GreedySettings(rounds=6, bags=4, seed=3))
    assert again.joined == selected.joined


def test_more_starts_than_members_are_all_of_them() -> None:
    assert select_members(ROWS, GreedySettings(rounds=9, starts=5)).weights.min() > 0


def test_one_class_is_refused() -> None:
    with pytest.raises(DataError, match="with and without a click"):
        select_members(fit_rows(np.ones(3), np.ones((3, 2))), GreedySettings())
