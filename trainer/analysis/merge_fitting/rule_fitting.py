"""Fitting any merge rule with any calibration on rows: the one door to the fits of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from modules.merge import FITTED_RULES, RULES, MergeRule
from trainer.analysis.merge_fitting.calibrating import CalibrationKind, fit_calibration
from trainer.analysis.merge_fitting.fit_rows import FitRows, merged_logits
from trainer.analysis.merge_fitting.greedy_selection import GreedySettings, select_members
from trainer.analysis.merge_fitting.logistic_loss import mean_loss
from trainer.analysis.merge_fitting.simplex_weights import fit_simplex_weights
from trainer.analysis.merge_fitting.stacking import fit_stacking

ALL_RULES = ("mean_logit", "mean_probability", "median", "weights", "greedy", "stacking", "confidence")
SHARPNESS_ROWS = 500_000  # evenly spaced ones, which are enough to fit one number
_SHARPNESS_TRIED = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)

assert set(ALL_RULES) == {*RULES, *FITTED_RULES}


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """What the fits may be told."""

    greedy: GreedySettings = field(default_factory=GreedySettings)
    stacking_strength: float | None = None  # None: chosen on held-out rows


@dataclass(frozen=True, kw_only=True)
class FittedRule:
    """A rule, and how its fit went."""

    rule: MergeRule
    notes: tuple[str, ...] = ()


def fit_rule(name: str, rows: FitRows, settings: FitSettings) -> FittedRule:
    """Fits a rule, without calibration; one that needs no fit is given as it is.

    Raises:
        DataError: one class of labels alone.
        ChorusError: the fit does not end.
    """
    if name == "weights":
        simplex = fit_simplex_weights(rows)
        notes = f"log loss at most {simplex.gap_nats:.1g} nats above that of the best weights"
        return _weighted(name, rows, simplex.weights, notes)
    if name == "greedy":
        selected = select_members(rows, settings.greedy)
        joined = "; ".join(", ".join(of_bag) for of_bag in selected.joined)
        return _weighted(name, rows, selected.weights, f"by {settings.greedy.metric}; joined: {joined}")
    if name == "stacking":
        stacked = fit_stacking(rows, strength=settings.stacking_strength)
        how = "given" if settings.stacking_strength is not None else "chosen on held-out rows"
        note = f"L2 strength {stacked.strength:g}, {how}"
        return _weighted(name, rows, stacked.weights, note, intercept=stacked.intercept)
    if name == "confidence":
        return _fit_confidence(rows)
    return FittedRule(rule=MergeRule.fixed(name, members=rows.members))


def fit_calibrated(
    fitted: FittedRule, kind: CalibrationKind, rows: FitRows, *, logits: NDArray[np.float64] | None = None
) -> FittedRule:
    """The rule with a calibration fitted behind it, on the same rows; `logits` are its own, where they are known."""
    if kind == "none":
        return fitted
    merged = merged_logits(fitted.rule, rows.logits) if logits is None else logits
    rows.refuse_one_class()
    return replace(fitted, rule=replace(fitted.rule, calibration=fit_calibration(kind, merged, rows.labels)))


def needs_fit(name: str, kind: CalibrationKind) -> bool:
    """Whether labels have a say in it."""
    return name in (*FITTED_RULES, "confidence") or kind != "none"


def _weighted(
    name: str, rows: FitRows, weights: NDArray[np.float64], note: str, *, intercept: float = 0.0
) -> FittedRule:
    rule = MergeRule(rule=name, members=rows.members, weights=tuple(weights.tolist()), intercept=intercept)
    return FittedRule(rule=rule, notes=(note,))


def _fit_confidence(rows: FitRows) -> FittedRule:
    """The sharpness with the least log loss: the best of some, then between its neighbours (it is not convex)."""
    rows.refuse_one_class()
    few = rows.at_most(SHARPNESS_ROWS)

    def rule(sharpness: float) -> MergeRule:
        return MergeRule(rule="confidence", members=rows.members, sharpness=float(sharpness))

    def loss(sharpness: float) -> float:
        return mean_loss(few.labels, merged_logits(rule(sharpness), few.logits))

    tried: Sequence[float] = _SHARPNESS_TRIED
    losses = [loss(sharpness) for sharpness in tried]
    best = int(np.argmin(losses))
    bounds = (tried[max(best - 1, 0)], tried[min(best + 1, len(tried) - 1)])
    refined = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-3})
    sharpness = float(refined.x) if refined.fun < losses[best] else tried[best]
    used = "" if few is rows else f"; sharpness from {few.num_rows:,} evenly spaced rows"
    return FittedRule(rule=rule(sharpness), notes=(f"sharpness looked for from 0 to {tried[-1]:g}{used}",))
