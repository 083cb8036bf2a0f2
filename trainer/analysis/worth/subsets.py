"""Subsets of members: which ones are looked at, and what their merged predictions reach.

Every size with at most `MOST_OF_A_SIZE` subsets is looked at whole. The other sizes are sampled: members are put in a
random circle, and the neighbours on it, k at a time, are M random subsets of size k, in which every member is as often
as every other. Orders in which members join, for Shapley values, go round a circle from each place in both directions:
every member joins as often at every place, so the large differences between joining first and joining late cancel
(Latin squares instead of the plain sampling of Castro, Gomez & Tejada, Computers & Operations Research 2009).

Legend: N rows, M members, S subsets, b blocks, c circles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.merge import MergeRule
from trainer.analysis.worth.study_rows import StudyRows
from trainer.row_progress import RowProgress

MOST_OF_A_SIZE = 200
LEAST_DRAWS = 64  # of each sampled size
_TOGETHER = 8  # subsets that are merged at once: N x 8 float64 are held

_LARGEST = 700.0  # e^-700 is a float64

Subset = tuple[int, ...]  # member numbers, ascending


@dataclass(frozen=True, kw_only=True)
class SubsetPlan:
    """The subsets to look at."""

    num_members: int
    subsets: tuple[Subset, ...]  # distinct, none empty
    draws: tuple[tuple[int, ...], ...]  # for sizes 1 ... M: which subsets stand for it; drawn ones may repeat
    whole_sizes: tuple[bool, ...]  # for sizes 1 ... M: whether these are all subsets of that size
    circles: NDArray[np.int64] | None  # [c, M]; None: all subsets are there

    @property
    def is_whole(self) -> bool:
        """Whether every subset is looked at."""
        return self.circles is None

    def index(self, members: Sequence[int]) -> int:
        """Which subset it is.

        Raises:
            KeyError: it is not looked at.
        """
        return self._places[tuple(sorted(int(one) for one in members))]

    @cached_property
    def _places(self) -> dict[Subset, int]:
        return {subset: place for place, subset in enumerate(self.subsets)}

    def orders(self) -> NDArray[np.int64]:
        """The orders of the members that go round the circles, [c, 2 M, M]."""
        assert self.circles is not None
        places = np.arange(self.num_members)
        turned = self.circles[:, (places[:, None] + places) % self.num_members]
        return np.concatenate([turned, turned[:, :, ::-1]], axis=1)

    def firsts(self, order: NDArray[np.int64]) -> list[int]:
        """For k = 1 ... M, the subset of the first k members of an order, which must be one of `orders`."""
        places = self._places
        return [places[tuple(sorted(order[:size].tolist()))] for size in range(1, self.num_members + 1)]


@dataclass(frozen=True, kw_only=True)
class SubsetFigures:
    """What the merged predictions of subsets reach."""

    log_loss_nats: NDArray[np.float64]  # [S]
    auc: NDArray[np.float64]  # [S]
    block_losses: NDArray[np.float64]  # [b, S], sums over the rows of a block


def plan_subsets(num_members: int, *, seed: int) -> SubsetPlan:
    """Chooses subsets; with up to 9 members they are all subsets."""
    sizes = range(1, num_members + 1)
    whole = tuple(math.comb(num_members, size) <= MOST_OF_A_SIZE for size in sizes)
    places: dict[Subset, int] = {}
    draws: list[list[int]] = [[] for _ in sizes]
    for size in sizes:
        if whole[size - 1]:
            for subset in combinations(range(num_members), size):
                draws[size - 1].append(places.setdefault(subset, len(places)))
    circles = None
    if not all(whole):
        draw = np.random.default_rng(seed)
        num_circles = max(2, math.ceil(LEAST_DRAWS / num_members))  # two, so that they tell how far they differ
        circles = np.stack([draw.permutation(num_members) for _ in range(num_circles)])
        for circle in np.concatenate([circles, circles], axis=1):
            for size, first in product(sizes, range(num_members)):
                if not whole[size - 1]:
                    subset = tuple(sorted(circle[first : first + size].tolist()))
                    draws[size - 1].append(places.setdefault(subset, len(places)))
    return SubsetPlan(
        num_members=num_members,
        subsets=tuple(places),
        draws=tuple(map(tuple, draws)),
        whole_sizes=whole,
        circles=circles,
    )


def score_subsets(rows: StudyRows, subsets: Sequence[Subset], *, rule: MergeRule) -> SubsetFigures:
    """Merges each subset by a rule of `RULES` and takes its log loss and exact AUC; progress goes to stderr."""
    losses = np.empty((len(rows.block_starts), len(subsets)))
    aucs = np.empty(len(subsets))
    progress = RowProgress(f"merging {len(subsets):,} subsets", len(subsets) * rows.num_rows)
    labels, positive = torch.from_numpy(rows.labels).double()[:, None], rows.labels == 1
    for first in range(0, len(subsets), _TOGETHER):
        some = subsets[first : first + _TOGETHER]
        here = slice(first, first + len(some))
        merged = np.empty((rows.num_rows, len(some)), order="F")
        for stretch, blocks in rows.stretches():
            logits = merged_logits(torch.from_numpy(rows.logits[stretch]).double(), some, rule=rule)
            row_losses = (torch.nn.functional.softplus(logits) - labels[stretch] * logits).numpy()
            starts = rows.block_starts[blocks] - stretch.start
            losses[blocks, here] = np.add.reduceat(row_losses, starts, axis=0)
            merged[stretch] = logits.numpy()
        for index in range(len(some)):
            aucs[first + index] = auc(merged[positive, index], merged[~positive, index])
            progress.add(rows.num_rows)
    return SubsetFigures(log_loss_nats=losses.sum(axis=0) / rows.num_rows, auc=aucs, block_losses=losses)


def auc(positives: NDArray[np.floating], negatives: NDArray[np.floating]) -> float:
    """Exact AUC, ties count half; sorts values, not places, which for thousands of subsets makes the difference."""
    positives, negatives = np.sort(positives), np.sort(negatives)
    below = int(np.searchsorted(negatives, positives, side="left").sum())
    not_above = int(np.searchsorted(negatives, positives, side="right").sum())
    return (below + not_above) / (2 * len(positives) * len(negatives))


def merged_logits(logits_nM: Tensor, subsets: Sequence[Subset], *, rule: MergeRule) -> Tensor:
    """The logit of each subset's merged probability [n, S], of logits in float64; a calibration is left out."""
    # One matrix product makes the means of all subsets; probabilities must not underflow for that.
    is_mean = rule.rule == "mean_logit" or (rule.rule == "mean_probability" and float(logits_nM.abs().max()) < _LARGEST)
    if not is_mean:
        columns = []
        for subset in subsets:
            of_subset = replace(rule, members=tuple(rule.members[member] for member in subset), calibration=None)
            columns.append(of_subset.logits(logits_nM[:, list(subset)]))
        return torch.stack(columns, dim=1)
    shares = torch.zeros(logits_nM.shape[1], len(subsets), dtype=torch.float64)
    for column, subset in enumerate(subsets):
        shares[list(subset), column] = 1.0 / len(subset)
    if rule.rule == "mean_logit":
        return logits_nM @ shares
    return torch.log(torch.sigmoid(logits_nM) @ shares) - torch.log(torch.sigmoid(-logits_nM) @ shares)
