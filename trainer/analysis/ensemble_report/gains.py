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
from trainer.analysis.worth.size_curve import (
    LEAST_SIZES,
    fit_curve,
    fit_curves,
    jackknife_half_width,
    mean_shares,
    size_points,
)
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
            of_shapley = found["shapley"]
            half = Estimate(value=0.0, standard_error=errors["log_loss_nats"]).half_width()
            of_shapley["log_loss_nats"] = _widened(of_shapley["log_loss_nats"], half)
            of_shapley["ne"] = _widened(of_shapley["ne"], half / entropy)
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


def _widened(interval: Interval, half: float) -> Interval:
    """An interval over rows that holds another, independent error of that half-width, too."""
    return Interval(
        value=interval.value,
        low=interval.value - math.hypot(interval.value - interval.low, half),
        high=interval.value + math.hypot(interval.high - interval.value, half),
    )


def curves(rows: StudyRows, plan: SubsetPlan, figures: SubsetFigures, *, replicates: Replicates) -> dict[str, Any]:
    """Each figure over the number of members, with a fit where there are three sizes or more, and no member twice."""
    entropy = entropy_nats(float(rows.labels.mean()))
    drawn_losses, drawn_entropy = _drawn_losses(rows, figures, replicates)
    has_fit = plan.num_members >= LEAST_SIZES and not rows.same_members()
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
            "fit": _fit(plan, values, drawn=drawn) if has_fit else None,
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
    """The fit, what it says of twice the members, and how far that hinges on rows and on which members there are."""
    means = values @ mean_shares(plan)
    fit, size = fit_curve(means), 2 * plan.num_members
    told = {"limit": fit.limit, "at": fit.at(size), "gain": float(means[-1]) - fit.at(size)}
    without = _without_one(plan, values, size=size)
    found: dict[str, Any] = {**vars(fit), "is_at_edge": fit.is_at_edge, "size": size}
    if drawn is None:
        found |= {name: {"value": value} for name, value in told.items()}
    else:
        limits, scales, exponents, _ = fit_curves(drawn)
        ats = limits + scales / size**exponents
        replicates = {"limit": limits, "at": ats, "gain": drawn[:, -1] - ats}
        of_rows = {name: Drawn(value=told[name], replicates=replicates[name]).interval() for name in told}
        half_widths = {name: jackknife_half_width(without[name]) if without else math.nan for name in told}
        found |= {name: _widened(of_rows[name], half_widths[name]) for name in told}
        found |= {"of_rows": of_rows, "members_half_width": half_widths}
    ranges = {name: [min(without[name]), max(without[name])] for name in ("limit", "at")} if without else None
    return found | {"without_one": ranges}


def _without_one(plan: SubsetPlan, values: NDArray[np.float64], *, size: int) -> dict[str, list[float]] | None:
    """Limit, figure at `size` and gain up to it of the fits that each leave one member out; None: sizes are missing."""
    fits = []
    for member in range(plan.num_members):
        means = values @ mean_shares(plan, without=member)
        if len(means) < plan.num_members - 1:
            return None
        fits.append(fit_curve(means))
    return {
        "limit": [fit.limit for fit in fits],
        "at": [fit.at(size) for fit in fits],
        "gain": [fit.at(plan.num_members) - fit.at(size) for fit in fits],
    }
