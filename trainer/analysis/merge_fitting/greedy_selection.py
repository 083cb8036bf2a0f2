"""Greedy forward selection with replacement (Caruana, Niculescu-Mizil, Crew & Ksikes, ICML 2004).

Members join one after the other, each time the one with which the mean logit of all that joined is best; a member may
join again. The best of the ensembles on the way is taken, and a member's weight is how often it joined over the number
of joins. As published: it starts with the best few, and with bagging it is done over for random halves of the members,
whose weights are averaged. Published for probabilities; here logits are averaged.

Legend: N rows, M members.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trainer.analysis.merge_fitting.fit_rows import FitRows
from trainer.analysis.merge_fitting.logistic_loss import mean_loss
from trainer.metrics.exact import exact_auc
from trainer.row_progress import RowProgress

GreedyMetric = Literal["log_loss", "auc"]
_BAG_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class GreedySettings:
    """How members are selected."""

    metric: GreedyMetric = "log_loss"
    rounds: int = 25  # joins, those of the start among them
    starts: int = 1  # the best members, which join at once
    bags: int = 0  # 0: without bagging
    seed: int = 1


@dataclass(frozen=True, kw_only=True)
class GreedySelection:
    """The weights, and who joined."""

    weights: NDArray[np.float64]  # [M], adding up to 1
    joined: tuple[tuple[str, ...], ...]  # for each bag, in order, up to the best ensemble


def select_members(rows: FitRows, settings: GreedySettings) -> GreedySelection:
    """Selects members of these rows; of equally good ones the first joins.

    Raises:
        DataError: one class of labels alone.
    """
    rows.refuse_one_class()
    members = len(rows.members)
    draw = np.random.default_rng(settings.seed)
    size = max(1, round(_BAG_SHARE * members))
    bags = [np.sort(draw.choice(members, size=size, replace=False)) for _ in range(settings.bags)]
    progress = RowProgress("greedy selection", max(1, settings.bags) * settings.rounds * rows.num_rows)
    joined = [_select(rows, bag, settings, progress) for bag in bags or [np.arange(members)]]
    shares = [np.bincount(of_bag, minlength=members) / len(of_bag) for of_bag in joined]
    weights = np.mean(shares, axis=0)
    return GreedySelection(
        weights=weights / weights.sum(), joined=tuple(tuple(rows.members[i] for i in of_bag) for of_bag in joined)
    )


def _select(
    rows: FitRows, bag: NDArray[np.integer], settings: GreedySettings, progress: RowProgress
) -> NDArray[np.int64]:
    """Who joined up to the best ensemble, in order."""
    order = [int(bag[place]) for place in np.argsort([_badness(rows, rows.logits[:, i], settings) for i in bag])]
    joined = order[: min(settings.starts, settings.rounds)]
    total = np.zeros(rows.num_rows)
    for index in joined:
        total += rows.logits[:, index]
    badness = [_badness(rows, total / len(joined), settings)]
    progress.add(len(joined) * rows.num_rows)
    for size in range(len(joined) + 1, settings.rounds + 1):
        tried = [_badness(rows, (total + rows.logits[:, i]) / size, settings) for i in bag]
        best = int(np.argmin(tried))
        joined.append(int(bag[best]))
        total += rows.logits[:, joined[-1]]
        badness.append(tried[best])
        progress.add(rows.num_rows)
    start = min(settings.starts, settings.rounds, len(bag))
    return np.asarray(joined[: start + int(np.argmin(badness))])


def _badness(rows: FitRows, logits: NDArray[np.floating], settings: GreedySettings) -> float:
    if settings.metric == "auc":
        return -exact_auc(rows.labels, logits)
    return mean_loss(rows.labels, logits)
