"""Comparisons of made predictions: what is compared with what, how the best is chosen, and who wins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from configs.benchmark_schema import Pool, Strategy
from tests.support.benchmarks import KINDS, SINGLE, made_results
from trainer.benchmark.columns import Results
from trainer.benchmark.comparisons import Comparison, comparisons
from trainer.benchmark.points import point

NAMES = ("logistic regression", "gradient boosting")


def made_baselines(results: Results) -> dict[str, dict[str, np.ndarray]]:
    """The first knows the base rate's side of each row badly, the second nothing."""
    draw = np.random.default_rng(3)
    return {
        name: {
            window: strength * (2.0 * rows.labels_N - 1) + 2 * draw.normal(size=len(rows.labels_N))
            for window, rows in results.rows.items()
        }
        for name, strength in zip(NAMES, (0.5, 0.0), strict=True)
    }


def of(found: list[Comparison], what: str, against: str) -> Comparison:
    (one,) = [one for one in found if one.what == what and one.against.startswith(against)]
    return one


def test_the_headline_is_held_against_members_and_baselines_and_the_best_member_against_baselines():
    results = made_results(windows=("a", "b"))
    found = comparisons(results, baselines=made_baselines(results))
    best = "best single member (deep, by its AUC on the judged rows)"
    merged = "K kinds, K = 3"
    assert [(one.what, one.against) for one in found] == [
        *((merged, against) for against in (best, *NAMES, "deep", "cross", "dot")),
        *((best, name) for name in NAMES),
    ]
    assert all(one.auc.value > 0 and one.log_loss_nats.value < 0 for one in found)
    assert of(found, merged, NAMES[1]).auc.is_clear()
    assert of(found, merged, "best single").auc == of(found, merged, "deep").auc


def test_a_difference_is_that_of_the_figures_on_the_page():
    results = made_results(
        pools={"kinds": Pool(members=("deep", "cross", "dot"), seeds=2)},
        strategies={
            "single": SINGLE,
            "kinds": replace(KINDS, sizes=(1, 2)),
            "deep": replace(SINGLE, members=("deep",)),
        },
    )
    found = comparisons(results, baselines={})
    merged, single = (
        point(results, name=name, strategy=results.benchmark.strategies[name], size=size)
        for name, size in (("kinds", 2), ("deep", 1))
    )
    one = of(found, "K kinds, K = 2", "deep")
    for metric in ("auc", "log_loss_nats"):
        assert getattr(one, metric).value == pytest.approx(merged.gain(single, metric).value, abs=1e-12)


def swapped(results: Results, first: str, second: str) -> Results:
    """With what two members predict for the rows that merges are fitted on changed about."""
    by_place = {(c.member, c.group, c.window): c.tune_logits_T for c in results.columns}
    other = {first: second, second: first}
    return replace(
        results,
        columns=tuple(
            replace(c, tune_logits_T=by_place[other.get(c.member, c.member), c.group, c.window])
            for c in results.columns
        ),
    )


def test_the_best_member_is_chosen_on_the_rows_that_merges_are_fitted_on_where_there_are_any():
    results = made_results(num_tune=600, noises={"deep": 0.5, "dot": 3.0})
    chosen = [one.against for one in comparisons(swapped(results, "deep", "dot"), baselines={})]
    assert chosen[0] == "best single member (dot, by its AUC on the rows that merges are fitted on)"
    assert comparisons(results, baselines={})[0].against.startswith("best single member (deep,")


def test_the_best_merge_of_one_members_separate_trainings_is_an_opponent_and_no_other_merge_is():
    def seeds(pool: str, title: str, member: str = "deep") -> Strategy:
        return Strategy(title=title, family="seeds", pools=(pool,), members=(member,), sizes=(1, 2))

    pools = {
        "kinds": Pool(members=("deep", "cross"), seeds=2),
        "snapshots": Pool(members=("deep",), checkpoints=2),
        "together": Pool(members=("deep",), jobs="together", copies=2),
    }
    strategies = {
        "single": SINGLE,
        "kinds": replace(KINDS, sizes=(1, 4), subsets="any"),
        "deep": seeds("kinds", "seeds of deep"),
        "cross": seeds("kinds", "seeds of cross", "cross"),
        "snapshots": seeds("snapshots", "snapshots"),
        "together": seeds("together", "together"),
    }
    noises = {"deep": 1.5, "cross": 1.0}
    found = comparisons(made_results(noises=noises, pools=pools, strategies=strategies), baselines={})
    assert found[1].against == "best merge of one kind (seeds of cross, K = 2, by its AUC on the judged rows)"
    del strategies["deep"], strategies["cross"]
    without = comparisons(made_results(noises=noises, pools=pools, strategies=strategies), baselines={})
    assert not any("one kind" in one.against for one in without)


def test_members_of_one_name_in_two_pools_are_told_apart():
    pools = {"kinds": Pool(members=("deep", "cross")), "wide": Pool(members=("deep",))}
    strategies = {"single": SINGLE, "kinds": replace(KINDS, pools=("kinds", "wide"), sizes=(1, 2))}
    found = comparisons(made_results(pools=pools, strategies=strategies), baselines={})
    assert [one.against for one in found[1:]] == ["kinds/deep", "cross", "wide/deep"]
