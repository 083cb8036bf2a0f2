"""Weights on the simplex against a grid, and their certificate."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize

from configs.errors import ChorusError, DataError
from tests.support.fit_rows import drawn_rows, fit_rows
from trainer.analysis.merge_fitting import simplex_weights
from trainer.analysis.merge_fitting.fit_rows import FitRows
from trainer.analysis.merge_fitting.logistic_loss import mean_loss
from trainer.analysis.merge_fitting.simplex_weights import GAP_NATS, fit_simplex_weights, least_on_simplex

GRID_STEPS = 20


def loss_of(rows: FitRows, weights: np.ndarray) -> float:
    return mean_loss(rows.labels, rows.logits.astype(np.float64) @ weights)


def grid(members: int) -> list[np.ndarray]:
    steps = range(GRID_STEPS + 1)
    return [
        np.array(parts) / GRID_STEPS for parts in itertools.product(steps, repeat=members) if sum(parts) == GRID_STEPS
    ]


@pytest.mark.parametrize("seed", range(3))
def test_no_point_of_a_grid_is_better(seed: int) -> None:
    rows = drawn_rows(400, noise=(0.6, 0.9, 1.5), seed=seed)
    fitted = fit_simplex_weights(rows)
    losses = [loss_of(rows, weights) for weights in grid(3)]
    assert fitted.log_loss_nats == pytest.approx(loss_of(rows, fitted.weights), rel=1e-12)
    assert fitted.log_loss_nats <= min(losses) + GAP_NATS
    nearest = grid(3)[int(np.argmin(losses))]
    np.testing.assert_allclose(fitted.weights, nearest, atol=2 / GRID_STEPS)
    assert fitted.weights.sum() == pytest.approx(1.0, abs=1e-14) and (fitted.weights >= 0).all()


def test_the_gap_bounds_what_is_left() -> None:
    rows = drawn_rows(2_000, noise=(0.5, 0.7, 0.8, 2.0))
    best = fit_simplex_weights(rows, gap_nats=1e-13).log_loss_nats
    early = fit_simplex_weights(rows, gap_nats=1e-2)
    assert best <= early.log_loss_nats <= best + early.gap_nats
    assert early.gap_nats <= 1e-2


def test_a_member_of_noise_gets_nearly_nothing() -> None:
    fitted = fit_simplex_weights(drawn_rows(20_000, noise=(0.3, 0.4, np.inf)))
    assert fitted.weights[2] < 0.03
    assert fitted.weights[0] > fitted.weights[1] > 0.2


def test_a_harmful_member_gets_exactly_nothing() -> None:
    rows = drawn_rows(3_000, noise=(0.5, 0.5))
    # Overconfident members would be the better for something that brings their sum down.
    upside_down = fit_rows(rows.labels, 0.6 * np.column_stack([rows.logits, -rows.logits[:, 0]]))
    assert fit_simplex_weights(upside_down).weights[2] == 0.0


def test_identical_members_share_their_weight() -> None:
    rows = drawn_rows(2_000, noise=(0.5, 1.0))
    three = fit_rows(rows.labels, rows.logits[:, [0, 0, 1]])
    twice, once = fit_simplex_weights(three).weights, fit_simplex_weights(rows).weights
    assert twice[0] == pytest.approx(twice[1], abs=1e-5)
    assert twice[0] + twice[1] == pytest.approx(once[0], abs=1e-4)


def test_one_member_has_all_the_weight() -> None:
    assert fit_simplex_weights(drawn_rows(50, noise=(1.0,))).weights.tolist() == [1.0]


@pytest.mark.parametrize("seed", range(3))
def test_saturated_logits_are_fitted_too(seed: int) -> None:
    draw = np.random.default_rng(seed)
    rows = fit_rows(draw.integers(0, 2, 3_000), np.where(draw.random((3_000, 5)) < 0.5, -100.0, 100.0))
    assert fit_simplex_weights(rows).gap_nats <= GAP_NATS


def test_one_class_is_refused() -> None:
    with pytest.raises(DataError, match="3 rows with 0 clicks: a fit needs rows with and without a click"):
        fit_simplex_weights(fit_rows(np.zeros(3), np.ones((3, 2))))


def test_a_fit_that_does_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simplex_weights, "_MOST_STEPS", 1)
    with pytest.raises(ChorusError, match="rule weights: the fit stopped up to"):
        fit_simplex_weights(drawn_rows(500, noise=(0.1, 2.0)))


@pytest.mark.parametrize("seed", range(5))
def test_the_quadratic_step_is_that_of_a_general_solver(seed: int) -> None:
    draw = np.random.default_rng(seed)
    half = draw.normal(size=(6, 6))
    hessian, gradient, at = half @ half.T + 0.1 * np.eye(6), draw.normal(size=6) * 3, draw.dirichlet(np.ones(6))

    def model(weights: np.ndarray) -> float:
        step = weights - at
        return float(gradient @ step + step @ hessian @ step / 2)

    general = minimize(
        model, at, bounds=[(0, 1)] * 6, constraints={"type": "eq", "fun": lambda w: w.sum() - 1}, tol=1e-14
    )
    ours = least_on_simplex(hessian, gradient, at)
    assert model(ours) <= general.fun + 1e-7
    assert ours.sum() == pytest.approx(1.0) and (ours >= 0).all()
