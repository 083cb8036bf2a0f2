"""The report's chapters on gains: the worth of each member, and the curve over the number of members.

Legend: M members, S subsets, b blocks, B replicates.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.analysis.intervals import Estimate, Interval
from trainer.analysis.worth.block_bootstrap import Drawn, Replicates
from trainer.analysis.worth.members import Shares, shapley_error
from trainer.analysis.worth.size_curve import LEAST_SIZES, fit_curve, fit_curves, mean_shares, size_points
from trainer.analysis.worth.study_rows import StudyRows
from trainer.analysis.worth.subsets import SubsetFigures, SubsetPlan
from trainer.metrics.exact import entropy_nats

_AUC_OF_NONE = 0.5


def worth(
    rows: StudyRows,
    plan: SubsetPlan,
    figures: SubsetFigures,
    *,
    replicates: Replicates,
    distances: NDArray[np.float64],
) -> dict[str, Any]:
    """What each member adds, in every figure, with intervals over rows where sums over blocks give them."""
    shares, rate = Shares.of(plan), float(rows.labels.mean())
    entropy = entropy_nats(rate)
    losses = np.append(figures.log_loss_nats, entropy)
    aucs = np.append(figures.auc, _AUC_OF_NONE)
    drawn_losses, drawn_entropy = _drawn_losses(rows, figures, replicates)
    members = []
    errors = {"log_loss_nats": shapley_error(plan, -losses), "auc": shapley_error(plan, aucs)}
    for index, name in enumerate(rows.members):
        found: dict[str, Any] = {"name": name, "distance_nats": float(distances[index])}
        for kind, share in (("leave_one_out", shares.leave_one_out[index]), ("shapley", shares.shapley[index])):
            gain = Drawn(value=float(-share @ losses), replicates=-(drawn_losses @ share))
            relative = Drawn(value=gain.value / entropy, replicates=gain.replicates / drawn_entropy)
            found[kind] = {
                "log_loss_nats": gain.interval(),
                "ne": relative.interval(),
                "auc": {"value": float(share @ aucs)},
            }
        if errors["log_loss_nats"] is not None:
            of_shapley, error = found["shapley"], errors["log_loss_nats"]
            of_shapley["log_loss_nats"] = _widened(of_shapley["log_loss_nats"], error)
            of_shapley["ne"] = _widened(of_shapley["ne"], error / entropy)
        members.append(found)
    everyone = plan.index(range(plan.num_members))
    return {
        "members": members,
        "shapley_error": None if plan.is_whole else errors,
        "none": {"log_loss_nats": entropy, "ne": 1.0, "auc": _AUC_OF_NONE},
        "all": {
            "log_loss_nats": losses[everyone],
            "ne": losses[everyone] / entropy,
            "auc": aucs[everyone],
        },
    }


def _widened(interval: Interval, standard_error: float) -> Interval:
    """An interval over rows that holds the sampling error, too."""
    half = Estimate(value=0.0, standard_error=standard_error).half_width()
    return Interval(
        value=interval.value,
        low=interval.value - math.hypot(interval.value - interval.low, half),
        high=interval.value + math.hypot(interval.high - interval.value, half),
    )


def curves(rows: StudyRows, plan: SubsetPlan, figures: SubsetFigures, *, replicates: Replicates) -> dict[str, Any]:
    """Each figure over the number of members, with a fit where there are three sizes or more."""
    entropy = entropy_nats(float(rows.labels.mean()))
    drawn_losses, drawn_entropy = _drawn_losses(rows, figures, replicates)
    drawn_means = drawn_losses[:, :-1] @ mean_shares(plan)
    kinds: dict[str, tuple[NDArray[np.float64], Any, NDArray[np.float64] | None]] = {
        "log_loss_nats": (figures.log_loss_nats, np.argmin, drawn_means),
        "ne": (figures.log_loss_nats / entropy, np.argmin, drawn_means / drawn_entropy[:, None]),
        "auc": (figures.auc, np.argmax, None),
    }
    return {
        name: {
            "points": [
                vars(point) | {"best": [rows.members[member] for member in point.best]}
                for point in size_points(plan, values, best=best)
            ],
            "fit": _fit(plan, values, drawn=drawn) if plan.num_members >= LEAST_SIZES else None,
        }
        for name, (values, best, drawn) in kinds.items()
    }


def _drawn_losses(
    rows: StudyRows, figures: SubsetFigures, replicates: Replicates
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log loss of each subset in each replicate [B, S + 1], none of the members last; and that entropy alone [B]."""
    num_rows = replicates.sums(np.diff(rows.block_starts, append=rows.num_rows).astype(np.float64))
    rates = replicates.sums(rows.by_block(rows.labels)) / num_rows
    entropies = np.array([entropy_nats(float(rate)) for rate in rates])
    losses = replicates.sums(figures.block_losses) / num_rows[:, None]
    return np.column_stack([losses, entropies]), np.where(entropies > 0, entropies, np.nan)


def _fit(plan: SubsetPlan, values: NDArray[np.float64], *, drawn: NDArray[np.float64] | None) -> dict[str, Any]:
    """The fit, what it says of twice the members, and how far that hinges on the rows and on single members."""
    means = values @ mean_shares(plan)
    fit, size = fit_curve(means), 2 * plan.num_members
    found = {**vars(fit), "is_at_edge": fit.is_at_edge, "size": size}
    limit, at, gain = fit.limit, fit.at(size), means[-1] - fit.at(size)
    if drawn is None:
        found |= {"limit": {"value": limit}, "at": {"value": at}, "gain": {"value": gain}}
    else:
        limits, scales, exponents, _ = fit_curves(drawn)
        ats = limits + scales / size**exponents
        found |= {
            "limit": Drawn(value=limit, replicates=limits).interval(),
            "at": Drawn(value=at, replicates=ats).interval(),
            "gain": Drawn(value=gain, replicates=drawn[:, -1] - ats).interval(),
        }
    return found | {"without_one": _without_one(plan, values, size=size)}


def _without_one(plan: SubsetPlan, values: NDArray[np.float64], *, size: int) -> dict[str, Any] | None:
    """Lowest and highest limit and figure at `size` of the fits that each leave one member out."""
    fits = []
    for member in range(plan.num_members):
        means = values @ mean_shares(plan, without=member)
        if len(means) < max(LEAST_SIZES, plan.num_members - 1):
            return None
        fits.append(fit_curve(means))
    limits, ats = [fit.limit for fit in fits], [fit.at(size) for fit in fits]
    return {"limit": [min(limits), max(limits)], "at": [min(ats), max(ats)]}
