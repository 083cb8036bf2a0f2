"""The worth of each member: what its leaving costs, and its Shapley value.

The value of a set of members is the figure that their merged prediction reaches; of no members, that of the base rate
alone (log loss: the entropy of the label rate; AUC: 1/2). A member's Shapley value (Shapley 1953) is its mean gain over
all orders in which members may join, so the values of all members sum to the value of all minus that of none. Values
are signed so that more is better: a gain of log loss is how much lower it gets.

Legend: M members, S subsets, c circles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.analysis.worth.subsets import SubsetPlan


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Linear maps from the values of subsets to the worth of members.

    The last column of each is that of the empty set.
    """

    shapley: NDArray[np.float64]  # [M, S + 1]
    leave_one_out: NDArray[np.float64]  # [M, S + 1]

    @staticmethod
    def of(plan: SubsetPlan) -> Shares:
        """The maps for the subsets of a plan."""
        num_members, empty = plan.num_members, len(plan.subsets)
        leaving = np.zeros((num_members, empty + 1))
        everyone = range(num_members)
        for member in everyone:
            rest = [other for other in everyone if other != member]
            leaving[member, plan.index(everyone)] = 1.0
            leaving[member, plan.index(rest) if rest else empty] = -1.0
        shapley = _of_all_subsets(plan) if plan.is_whole else _of_circles(plan).mean(axis=0)
        return Shares(shapley=shapley, leave_one_out=leaving)


def shapley_error(plan: SubsetPlan, values: NDArray[np.float64]) -> float | None:
    """Standard error of a sampled Shapley value, pooled over the members; None where all subsets were looked at.

    Each circle of the plan gives an estimate of its own; how far these differ, two circles and many members tell well.

    Args:
        plan: The subsets.
        values: Of the subsets, and of none at the end, [S + 1].
    """
    if plan.is_whole:
        return None
    estimates = _of_circles(plan) @ values  # [c, M]
    return math.sqrt(float(estimates.var(axis=0, ddof=1).mean()) / len(estimates))


def _of_all_subsets(plan: SubsetPlan) -> NDArray[np.float64]:
    total = plan.num_members
    weights = [1.0 / (total * math.comb(total - 1, size)) for size in range(total)]  # of joining `size` others
    shapley = np.zeros((total, len(plan.subsets) + 1))
    shapley[:, -1] = -weights[0]
    for place, subset in enumerate(plan.subsets):
        size = len(subset)
        if size < total:
            shapley[:, place] = -weights[size]
        shapley[list(subset), place] = weights[size - 1]
    return shapley


def _of_circles(plan: SubsetPlan) -> NDArray[np.float64]:
    """The map to Shapley values that each circle gives, [c, M, S + 1]."""
    orders = plan.orders()
    num_circles, num_orders, num_members = orders.shape
    shares = np.zeros((num_circles, num_members, len(plan.subsets) + 1))
    for circle in range(num_circles):
        for order in orders[circle]:
            before = -1  # the empty set's column
            for member, place in zip(order, plan.firsts(order), strict=True):
                shares[circle, member, place] += 1.0 / num_orders
                shares[circle, member, before] -= 1.0 / num_orders
                before = place
    return shares
