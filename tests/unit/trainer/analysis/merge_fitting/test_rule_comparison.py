"""The comparison of rules: figures as computed apart, pairs on the same rows, and how it is told."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import log_loss, roc_auc_score

from configs.errors import ConfigError, DataError
from modules.calibration import Platt
from modules.merge import MergeRule
from tests.support.fit_rows import drawn_rows, fit_rows
from trainer.analysis.intervals import auc_difference, log_loss_difference
from trainer.analysis.merge_fitting.cross_fitting import cross_fitted
from trainer.analysis.merge_fitting.rule_comparison import RuleComparison, compare_rules
from trainer.analysis.merge_fitting.rule_fitting import ALL_RULES, FitSettings

SETTINGS = FitSettings(stacking_strength=1e-4)
ROWS = drawn_rows(1_000, noise=(0.5, 0.9, np.inf))


@pytest.fixture(scope="module")
def compared() -> RuleComparison:
    return compare_rules(ROWS, rules=ALL_RULES, kinds=["none", "platt"], folds=4, settings=SETTINGS)


def test_every_rule_is_there_once_after_the_best_member(compared: RuleComparison) -> None:
    names = [(one.name, one.calibration) for one in compared.judged]
    assert names[:2] == [("m0", "none"), ("mean_logit", "none")]
    assert sorted(names[1:]) == sorted((rule, kind) for rule in ALL_RULES for kind in ("none", "platt"))
    origins = {(one.name, one.calibration): one.origin for one in compared.judged}
    assert origins["m0", "none"] == "member"
    assert origins["median", "none"] == "fixed"
    assert origins["median", "platt"] == origins["weights", "none"] == "cross-fitted"


def test_figures_are_those_of_scikit_learn_on_cross_fitted_columns(compared: RuleComparison) -> None:
    merged = cross_fitted("weights", ["platt"], ROWS, folds=4, settings=SETTINGS)["platt"]
    one = next(one for one in compared.judged if (one.name, one.calibration) == ("weights", "platt"))
    assert one.metrics.auc == pytest.approx(roc_auc_score(ROWS.labels, merged), abs=1e-12)
    assert one.auc.value == pytest.approx(one.metrics.auc, abs=1e-12)
    assert one.metrics.log_loss_nats == pytest.approx(log_loss(ROWS.labels, expit(merged)), abs=1e-12)
    mean, best = ROWS.logits.astype(np.float64).mean(axis=1), ROWS.logits[:, 0].astype(np.float64)
    for difference, other in ((one.to_mean_logit, mean), (one.to_best_member, best)):
        auc = auc_difference(ROWS.labels, merged, other)
        loss = log_loss_difference(ROWS.labels, expit(merged), expit(other))
        assert (difference.auc.value, difference.auc.standard_error) == pytest.approx(
            (auc.value, auc.standard_error), abs=1e-7
        )
        assert (difference.log_loss_nats.value, difference.log_loss_nats.standard_error) == pytest.approx(
            (loss.value, loss.standard_error), abs=1e-12
        )


def test_the_table_has_a_line_each_and_says_how_it_was_judged(compared: RuleComparison) -> None:
    lines = compared.as_markdown().splitlines()
    assert len([line for line in lines if line.startswith("| ")]) == 2 + len(compared.judged)
    assert lines[2].startswith("| best member: m0 | none | ") and lines[2].endswith(" | – | – |")
    assert "4 folds of blocks of rows" in lines[-1] and "1,000 rows, label rate" in lines[-1]


def test_a_ready_rule_is_judged_as_it_is_with_its_own_members() -> None:
    rule = MergeRule(
        rule="weights", members=("m1", "m0"), weights=(0.25, 0.75), calibration=Platt(scale=0.9, shift=0.1)
    )
    compared = compare_rules(ROWS, rules=[], kinds=["none"], folds=4, settings=SETTINGS, given={"mine.toml": rule})
    assert [one.name for one in compared.judged] == ["m0", "mean_logit", "mine.toml"]
    one = compared.judged[-1]
    assert (one.origin, one.calibration) == ("given", "platt")
    wide = ROWS.logits.astype(np.float64)
    merged = 0.9 * (0.25 * wide[:, 1] + 0.75 * wide[:, 0]) + 0.1
    assert one.metrics.log_loss_nats == pytest.approx(log_loss(ROWS.labels, expit(merged)), abs=1e-12)
    assert "A merge.toml is judged as it is." in compared.as_markdown()
    with pytest.raises(ConfigError, match="needs 'other', which is not in the predictions; there are m0"):
        other = MergeRule.fixed("median", members=("other",))
        compare_rules(ROWS, rules=[], kinds=["none"], folds=4, settings=SETTINGS, given={"x": other})


def test_spaced_rows_are_told() -> None:
    few = ROWS.at_most(300)
    told = compare_rules(few, rules=["mean_logit"], kinds=["none"], folds=4, settings=SETTINGS).as_markdown()
    assert "300 rows, evenly spaced among 1,000" in told


def test_the_json_has_every_interval(compared: RuleComparison) -> None:
    body = json.loads(json.dumps(compared.as_json()))
    assert body["best_member"] == "m0" and len(body["columns"]) == len(compared.judged)
    for column in body["columns"]:
        for pair in ("minus_mean_logit", "minus_best_member"):
            for figure in column[pair].values():
                assert figure["low"] <= figure["value"] <= figure["high"]


def test_one_class_is_refused() -> None:
    with pytest.raises(DataError, match="with and without a click"):
        compare_rules(
            fit_rows(np.ones(9), np.ones((9, 2))), rules=["median"], kinds=["none"], folds=2, settings=SETTINGS
        )
