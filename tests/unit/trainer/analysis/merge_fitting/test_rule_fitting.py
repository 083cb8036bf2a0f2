"""Every rule with every calibration through the one door, on rows easy and extreme."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from modules.merge import MergeRule
from tests.support.fit_rows import drawn_rows, fit_rows
from trainer.analysis.merge_fitting import rule_fitting
from trainer.analysis.merge_fitting.calibrating import CALIBRATION_KINDS
from trainer.analysis.merge_fitting.fit_rows import FitRows, merged_logits
from trainer.analysis.merge_fitting.greedy_selection import GreedySettings
from trainer.analysis.merge_fitting.logistic_loss import mean_loss
from trainer.analysis.merge_fitting.rule_fitting import ALL_RULES, FitSettings, fit_calibrated, fit_rule, needs_fit

SETTINGS = FitSettings(greedy=GreedySettings(rounds=10))
ROWS = drawn_rows(1_500, noise=(0.4, 0.8, 1.5))


def loss_of(rule: MergeRule, rows: FitRows) -> float:
    return mean_loss(rows.labels, merged_logits(rule, rows.logits))


@pytest.mark.parametrize("name", ALL_RULES)
def test_a_fit_is_no_worse_than_the_mean_logit_where_it_was_fitted(name: str) -> None:
    fitted = fit_rule(name, ROWS, SETTINGS).rule
    assert (fitted.rule, fitted.members) == (name, ROWS.members)
    if needs_fit(name, "none"):
        assert loss_of(fitted, ROWS) <= loss_of(MergeRule.fixed("mean_logit", members=ROWS.members), ROWS) + 1e-12


@pytest.mark.parametrize("name", ALL_RULES)
@pytest.mark.parametrize("kind", [kind for kind in CALIBRATION_KINDS if kind != "none"])
def test_a_calibration_improves_what_it_was_fitted_on(name: str, kind: str) -> None:
    bare = fit_rule(name, ROWS, SETTINGS)
    calibrated = fit_calibrated(bare, kind, ROWS)
    assert calibrated.rule.calibration is not None and calibrated.rule.weights == bare.rule.weights
    assert loss_of(calibrated.rule, ROWS) <= loss_of(bare.rule, ROWS) + 1e-9


@pytest.mark.parametrize("name", ALL_RULES)
def test_one_member_stays_itself(name: str) -> None:
    rows = drawn_rows(300, noise=(0.2,))
    fitted = fit_rule(name, rows, SETTINGS).rule
    if name != "stacking":  # which scales and shifts it
        np.testing.assert_allclose(merged_logits(fitted, rows.logits), rows.logits[:, 0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ALL_RULES)
def test_identical_members_are_one(name: str) -> None:
    rows = drawn_rows(300, noise=(0.2,))
    fitted = fit_rule(name, fit_rows(rows.labels, rows.logits[:, [0, 0, 0]]), FitSettings(stacking_strength=1e-9)).rule
    alone = fit_rule(name, rows, FitSettings(stacking_strength=1e-9)).rule
    three = merged_logits(fitted, np.asfortranarray(rows.logits[:, [0, 0, 0]]))
    np.testing.assert_allclose(three, merged_logits(alone, rows.logits), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ALL_RULES)
@pytest.mark.parametrize("kind", CALIBRATION_KINDS)
def test_saturated_logits_end_in_numbers(name: str, kind: str) -> None:
    draw = np.random.default_rng(2)
    labels = draw.integers(0, 2, 600)
    right = draw.random((600, 3)) < 0.8
    rows = fit_rows(labels, np.where(right == (labels[:, None] == 1), 100.0, -100.0))
    fitted = fit_calibrated(fit_rule(name, rows, SETTINGS), kind, rows).rule
    merged = merged_logits(fitted, rows.logits)
    assert np.isfinite(merged).all()
    assert MergeRule.of_json(fitted.as_json()) == fitted


def test_sharpness_is_the_best_there_is() -> None:
    """Members that are right where they are sure: one of two knows a row, the other guesses mildly."""
    draw = np.random.default_rng(3)
    labels = draw.integers(0, 2, 3_000)
    sure = np.where((draw.random(3_000) < 0.95) == (labels == 1), 3.0, -3.0)
    knows = draw.random(3_000) < 0.5
    guess = draw.normal(size=3_000) * 0.3
    rows = fit_rows(labels, np.column_stack([np.where(knows, sure, guess), np.where(knows, guess, sure)]))
    fitted = fit_rule("confidence", rows, SETTINGS)

    def loss(sharpness: float) -> float:
        return loss_of(MergeRule(rule="confidence", members=rows.members, sharpness=sharpness), rows)

    best = minimize_scalar(loss, bounds=(0, 32), method="bounded")
    assert fitted.rule.sharpness > 2
    assert loss(fitted.rule.sharpness) <= best.fun + 1e-8
    assert loss(fitted.rule.sharpness) < loss(0.0) - 0.05


def test_sharpness_of_many_rows_comes_from_spaced_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_fitting, "SHARPNESS_ROWS", 200)
    assert "from 200 evenly spaced rows" in fit_rule("confidence", ROWS, SETTINGS).notes[0]
