"""Measures of diversity and gains of merged columns, against figures taken row by row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from configs.benchmark_schema import Pool
from tests.support.benchmarks import KINDS, made_results
from trainer.benchmark.columns import Results
from trainer.benchmark.diversity import GAINS, MEASURES, POOLED, DiversityStudy, diversity_study
from trainer.benchmark.points import merged_logits
from trainer.metrics.exact import metrics_of_logits

NOISES = {name: 0.6 + 0.15 * place for place, name in enumerate("abcdefgh")}
STRATEGIES = {
    "single": replace(KINDS, sizes=(1,)),
    "kinds": replace(KINDS, sizes=(1, 2, 3, 8)),
    "chances": replace(KINDS, sizes=(2,), rule="mean_probability"),
}


@pytest.fixture(scope="module")
def results() -> Results:
    return made_results(noises=NOISES, groups=2, strategies=STRATEGIES, diversity=("kinds", "chances"))


@pytest.fixture(scope="module")
def studies(results: Results) -> list[DiversityStudy]:
    return diversity_study(results)


def study(studies: list[DiversityStudy], strategy: str, size: int | None) -> DiversityStudy:
    (found,) = [one for one in studies if (one.strategy, one.size) == (strategy, size)]
    return found


def test_sizes_without_enough_subsets_are_left_out(studies: list[DiversityStudy]) -> None:
    assert [(one.strategy, one.size, one.num_subsets) for one in studies] == [
        ("kinds", 2, 28),
        ("kinds", 3, 56),
        ("kinds", None, 84),
        ("chances", 2, 28),
        (POOLED, 2, 56),
    ]
    assert all(len(one.rows) == len(MEASURES) * len(GAINS) for one in studies)
    assert len(study(studies, "kinds", 2).points) == 28 * 2


@pytest.mark.parametrize("strategy", ["kinds", "chances"])
def test_measures_and_gains_are_those_of_the_rows(
    strategy: str, results: Results, studies: list[DiversityStudy]
) -> None:
    point = study(studies, strategy, 2).points[-1]
    columns = {(one.pool, one.member, one.replicate): one for one in results.columns if one.group == point.group}
    labels_N = results.rows["all"].labels_N
    logits_NK = np.stack([columns[key].logits_N.astype(np.float64) for key in point.columns], axis=1)
    p_NK = 1 / (1 + np.exp(-logits_NK))
    mean_N = p_NK.mean(axis=1, keepdims=True)
    q_N = 1 / (1 + np.exp(-logits_NK.mean(axis=1, keepdims=True)))
    own = [metrics_of_logits(labels_N, logits_N) for logits_N in logits_NK.T]
    merged = metrics_of_logits(labels_N, merged_logits(list(logits_NK.T), rule=STRATEGIES[strategy].rule))
    divergences_NK = q_N * np.log(q_N / p_NK) + (1 - q_N) * np.log((1 - q_N) / (1 - p_NK))
    aucs, losses = [one.auc for one in own], [one.log_loss_nats for one in own]
    assert point.measures == pytest.approx(
        {
            "logit_correlation": np.asarray(np.corrcoef(logits_NK.T))[0, 1],
            "residual_correlation": np.asarray(np.corrcoef((labels_N[:, None] - p_NK).T))[0, 1],
            "disagreement": np.abs(p_NK[:, 0] - p_NK[:, 1]).mean(),
            "log_loss_ambiguity": divergences_NK.mean(),
            "squared_error_ambiguity": ((p_NK - mean_N) ** 2).mean(),
            "log_loss_spread": np.std(losses),
            "auc_spread": np.std(aucs),
            "mean_log_loss": np.mean(losses),
            "mean_auc": np.mean(aucs),
        },
        rel=1e-5,
    )
    assert point.gains == pytest.approx(
        {
            "auc_over_mean": merged.auc - np.mean(aucs),
            "auc_over_best": merged.auc - max(aucs),
            "log_loss_over_mean": np.mean(losses) - merged.log_loss_nats,
            "log_loss_over_best": min(losses) - merged.log_loss_nats,
        },
        abs=1e-9,
    )
    assert set(point.measures) == set(MEASURES) and set(point.gains) == set(GAINS)


def test_the_identity_of_the_mean_logit_is_marked_and_told_apart(studies: list[DiversityStudy]) -> None:
    for one in studies:
        marked = [(row.measure, row.gain) for row in one.rows if row.by_identity]
        if one.strategy == "kinds":
            assert marked == [("log_loss_ambiguity", "log_loss_over_mean")]
            (row,) = [row for row in one.rows if row.by_identity]
            assert row.correlation.value == pytest.approx(1.0)
            assert "log_loss_ambiguity" not in [other.measure for other in one.of("log_loss_over_mean")]
        else:
            assert marked == []


def test_the_strongest_measure_is_first_and_its_interval_holds_it(studies: list[DiversityStudy]) -> None:
    found = study(studies, "kinds", 2).of("auc_over_best")
    strengths = [abs(row.correlation.value) for row in found]
    assert strengths == sorted(strengths, reverse=True)
    assert all(-1 <= row.correlation.low <= row.correlation.value <= row.correlation.high <= 1 for row in found)
    # Noise of different sizes: where one member has much less than the other, it gains the least from it.
    assert {row.measure for row in found[:2]} <= {"log_loss_spread", "auc_spread"} and found[0].correlation.high < 0


def test_the_mean_over_sizes_never_mixes_them(studies: list[DiversityStudy]) -> None:
    two, three, mean = (study(studies, "kinds", size) for size in (2, 3, None))
    for a, b, both in zip(two.rows, three.rows, mean.rows, strict=True):
        assert both.correlation.value == pytest.approx((a.correlation.value + b.correlation.value) / 2)
    assert set(mean.as_json()) == {"strategy", "size", "num_subsets", "rows"}


def test_trainings_of_one_member_are_left_out_one_by_one() -> None:
    results = made_results(
        noises={"a": 1.0},
        groups=2,
        pools={"kinds": Pool(members=("a",), seeds=6)},
        strategies={"single": STRATEGIES["single"], "kinds": replace(KINDS, sizes=(2,), subsets="any")},
        diversity=("kinds",),
    )
    (found,) = diversity_study(results)
    assert found.num_subsets == 15
    assert all(row.correlation.low < row.correlation.high for row in found.rows if not row.by_identity)
