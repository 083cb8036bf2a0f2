"""Fitted merges of made predictions: what they are fitted on, what they find, what they are compared with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from configs.benchmark_schema import Pool
from tests.support.benchmarks import KINDS, made_results
from trainer.benchmark.columns import Column, Results
from trainer.benchmark.fitted import FittedMerge, fitted_merges
from trainer.benchmark.points import merged_logits, point
from trainer.metrics.exact import metrics_of_logits

RULES = ("mean_logit", "greedy", "weights", "stacking")


def of(found: list[FittedMerge], rule: str, scope: str = "group") -> FittedMerge:
    (one,) = [one for one in found if (one.rule, one.scope) == (rule, scope)]
    return one


def test_every_rule_is_there_for_each_group_and_for_all_groups_at_once():
    found = fitted_merges(made_results(fitted=("kinds",)))
    assert [(one.rule, one.scope, one.columns, len(one.figures)) for one in found] == [
        *((rule, "group", 3, 3) for rule in RULES),
        *((rule, "all groups", 9, 1) for rule in RULES),
    ]
    assert [of(fitted_merges(made_results(fitted=("kinds",), groups=1)), "weights").columns] == [3]
    assert fitted_merges(made_results(fitted=("kinds",), groups=1, noises={"deep": 1.0})) == []


def test_the_mean_logit_is_the_strategys_own_merge_and_that_of_all_columns():
    results = made_results(fitted=("kinds",), windows=("a", "b"))
    found = fitted_merges(results)
    mean = of(found, "mean_logit")
    assert mean.figures == point(results, name="kinds", strategy=results.benchmark.strategies["kinds"], size=3).groups
    assert mean.weights == pytest.approx(dict.fromkeys(("deep", "cross", "dot"), 1 / 3))
    assert mean.difference["auc"].value == mean.difference["auc"].standard_error == 0.0
    wanted = [
        metrics_of_logits(rows.labels_N, merged_logits([c.logits_N for c in results.columns if c.window == window])).auc
        for window, rows in results.rows.items()
    ]
    assert of(found, "mean_logit", "all groups").figures[0].auc == pytest.approx(np.mean(wanted))


def with_a_useless_member(results: Results) -> Results:
    """dot's logits are noise."""
    draw = np.random.default_rng(5)

    def spoiled(column: Column) -> Column:
        noise = (draw.normal(size=len(rows)).astype(np.float32) for rows in (column.logits_N, column.tune_logits_T))
        judged, tune = noise
        return replace(column, logits_N=3 * judged, tune_logits_T=3 * tune) if column.member == "dot" else column

    return replace(results, columns=tuple(spoiled(column) for column in results.columns))


@pytest.mark.parametrize("num_tune", [0, 900])
def test_fitted_weights_leave_a_useless_member_out_and_gain_by_it(num_tune):
    results = with_a_useless_member(made_results(fitted=("kinds",), num_rows=900, num_tune=num_tune))
    found = fitted_merges(results)
    for scope, rules in (("group", RULES[1:]), ("all groups", RULES[1:])):
        for rule in rules:
            one, mean = of(found, rule, scope), of(found, "mean_logit", scope)
            assert abs(one.weights["dot"]) < 0.1 < one.weights["deep"]
            gain = np.mean([a.auc - b.auc for a, b in zip(one.figures, mean.figures, strict=True)])
            assert one.difference["auc"].value == pytest.approx(gain)
            assert one.difference["auc"].is_clear() and gain > 0
            assert one.difference["log_loss_nats"].value < 0
    assert sum(of(found, "weights").weights.values()) == pytest.approx(1.0)


def test_the_labels_that_a_row_is_judged_by_do_not_reach_its_merge_where_rows_are_set_aside():
    results = made_results(fitted=("kinds",), num_tune=300)
    rows = results.rows["all"]
    turned = replace(results, rows={"all": replace(rows, labels_N=1 - rows.labels_N)})
    before, after = fitted_merges(results), fitted_merges(turned)
    for one, other in zip(before, after, strict=True):
        assert one.weights == other.weights
        assert [1 - figures.auc for figures in one.figures] == pytest.approx([figures.auc for figures in other.figures])


def test_where_no_rows_are_set_aside_noise_is_not_fitted_on_the_rows_it_is_judged_on():
    # Forty columns of noise: a fit judged on its own rows would look far better than the mean.
    members = tuple(f"noise_{place}" for place in range(40))
    results = made_results(fitted=("kinds",), noises=dict.fromkeys(members, 1.0), groups=1, num_rows=300)
    draw = np.random.default_rng(2)
    noise = tuple(replace(c, logits_N=draw.normal(size=300).astype(np.float32)) for c in results.columns)
    stacking = of(fitted_merges(replace(results, columns=noise)), "stacking")
    assert abs(stacking.figures[0].auc - 0.5) < 0.11


def test_a_members_columns_share_its_weight():
    results = made_results(
        fitted=("kinds",),
        pools={"kinds": Pool(members=("deep", "cross"), seeds=2)},
        strategies={"single": replace(KINDS, sizes=(1,)), "kinds": replace(KINDS, sizes=(1, 2))},
    )
    mean = of(fitted_merges(results), "mean_logit")
    assert mean.columns == 4
    assert mean.weights == pytest.approx({"deep": 0.5, "cross": 0.5})


def test_greedy_selection_has_more_rounds_than_there_are_columns():
    members = tuple(f"alike_{place}" for place in range(30))
    results = made_results(fitted=("kinds",), noises=dict.fromkeys(members, 2.0), groups=1, num_rows=1_000)
    weights = of(fitted_merges(results), "greedy").weights
    assert min(weight for weight in weights.values() if weight > 0) < 1 / 25
