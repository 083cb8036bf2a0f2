"""Subsets against loops, and which of them are taken."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch

from modules.merge import MergeRule
from tests.unit.trainer.analysis.worth.made_rows import made_rows
from trainer.analysis.worth.subsets import auc, merged_logits, plan_subsets, score_subsets
from trainer.metrics.exact import exact_auc, log_losses


def test_few_members_have_all_subsets() -> None:
    for members in (1, 2, 5, 9):
        plan = plan_subsets(members, seed=1)
        wanted = [one for size in range(1, members + 1) for one in combinations(range(members), size)]
        assert plan.is_whole and sorted(plan.subsets) == sorted(wanted)
        assert [len(draws) for draws in plan.draws] == [math.comb(members, size) for size in range(1, members + 1)]


def test_many_members_have_whole_sizes_where_few_and_balanced_draws_elsewhere() -> None:
    plan = plan_subsets(25, seed=1)
    assert [size for size, whole in enumerate(plan.whole_sizes, start=1) if whole] == [1, 24, 25]
    assert len(set(plan.subsets)) == len(plan.subsets)
    for size, draws in enumerate(plan.draws, start=1):
        assert all(len(plan.subsets[place]) == size for place in draws)
        counts = Counter(member for place in draws for member in plan.subsets[place])
        assert len(counts) == 25 and len(set(counts.values())) == 1  # each member as often
        assert plan.whole_sizes[size - 1] or len(draws) >= 64
    assert plan_subsets(25, seed=1).subsets == plan.subsets != plan_subsets(25, seed=2).subsets


def test_orders_put_every_member_as_often_at_every_place() -> None:
    plan = plan_subsets(11, seed=3)
    orders = plan.orders().reshape(-1, 11)
    for place in range(11):
        assert set(Counter(orders[:, place].tolist()).values()) == {len(orders) // 11}
    for order in orders:
        assert [set(plan.subsets[one]) for one in plan.firsts(order)] == [set(order[:k]) for k in range(1, 12)]


@pytest.mark.parametrize("rule", ["mean_logit", "mean_probability", "median", "confidence"])
def test_figures_are_those_of_each_subset_alone(rule: str) -> None:
    rows = made_rows(num_members=4)
    plan = plan_subsets(4, seed=1)
    figures = score_subsets(rows, plan.subsets, rule=MergeRule.fixed(rule, members=rows.members))
    for place, subset in enumerate(plan.subsets):
        alone = MergeRule.fixed(rule, members=[rows.members[member] for member in subset])
        chances = alone.probabilities(torch.from_numpy(rows.logits[:, list(subset)].copy())).numpy()
        losses = log_losses(rows.labels, chances)
        assert figures.log_loss_nats[place] == pytest.approx(losses.mean(), abs=1e-12)
        assert figures.block_losses[:, place] == pytest.approx(rows.by_block(losses), abs=1e-10)
        assert figures.auc[place] == pytest.approx(exact_auc(rows.labels, chances), abs=1e-9)


def test_extreme_logits_keep_their_loss() -> None:
    logits = torch.tensor([[900.0, 700.0], [-900.0, -600.0], [800.0, -800.0]], dtype=torch.float64)
    subsets = [(0,), (0, 1)]
    mean = merged_logits(logits, subsets, rule=MergeRule.fixed("mean_logit", members=["a", "b"]))
    assert mean.tolist() == [[900.0, 800.0], [-900.0, -750.0], [800.0, 0.0]]
    chances = merged_logits(logits, subsets, rule=MergeRule.fixed("mean_probability", members=["a", "b"]))
    half = math.log(2.0)  # of two chances, one of which is nothing beside the other
    wanted = [[900.0, 700.0 + half], [-900.0, -600.0 - half], [800.0, 0.0]]
    assert chances.numpy() == pytest.approx(np.array(wanted))


def test_auc_counts_ties_half() -> None:
    draw = np.random.default_rng(0)
    scores, labels = np.round(draw.normal(size=300), 1), draw.integers(0, 2, 300)
    pairs = [(p > n) + (p == n) / 2 for p in scores[labels == 1] for n in scores[labels == 0]]
    assert auc(scores[labels == 1], scores[labels == 0]) == pytest.approx(np.mean(pairs), abs=1e-14)
    assert auc(np.zeros(3), np.zeros(5)) == 0.5
