"""Paired differences: their value, and whether their errors are those of rows and groups drawn anew."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t as student

from configs.benchmark_schema import Window
from tests.support.benchmarks import made_results
from trainer.analysis.intervals import auc_difference
from trainer.benchmark.columns import Results, WindowRows
from trainer.benchmark.pairing import PairedEstimate, RowShares, paired
from trainer.metrics.exact import metrics_of_logits


def difference(results: Results, member: str, other: str, **options) -> dict[str, PairedEstimate]:
    def of(name):
        return lambda group, window: results.of(["kinds"], group=group, window=window, only=[name])[0].logits_N

    return paired(results, of(member), of(other), **options)


def test_the_value_is_the_mean_over_groups_and_windows_of_what_the_figures_differ_by():
    results = made_results(windows=("a", "b"))
    found = difference(results, "deep", "dot")
    wanted = []
    for window, rows in results.rows.items():
        for group in (1, 2, 3):
            one, other = (
                metrics_of_logits(
                    rows.labels_N, results.of(["kinds"], group=group, window=window, only=[name])[0].logits_N
                )
                for name in ("deep", "dot")
            )
            wanted.append((one.auc - other.auc, one.log_loss_nats - other.log_loss_nats))
    assert [found["auc"].value, found["log_loss_nats"].value] == pytest.approx(np.mean(wanted, axis=0), abs=1e-12)


def test_of_one_group_and_window_it_is_the_plain_difference_over_rows():
    results = made_results(groups=1)
    columns = results.of(["kinds"], group=1, window="all")
    plain = auc_difference(results.rows["all"].labels_N, columns[0].logits_N, columns[2].logits_N)
    found = difference(results, "deep", "dot")["auc"]
    assert (found.value, found.standard_error) == pytest.approx((plain.value, plain.standard_error), rel=1e-9)
    assert found.degrees is None
    assert found.half_width() == pytest.approx(plain.half_width())


def test_of_equal_predictions_there_is_no_difference_and_no_error():
    found = difference(made_results(), "deep", "deep")["log_loss_nats"]
    assert (found.value, found.standard_error, found.half_width(), found.is_clear()) == (0.0, 0.0, 0.0, False)


_made = functools.cache(lambda groups, num_rows: made_results(groups=groups, num_rows=num_rows))


def drawn(seed: int, *, num_rows: int = 300, groups: int = 3, row_noise: float, group_noise: float) -> Results:
    """Labels and differences of log loss that vary with the row, and with the group as a whole."""
    results = _made(groups, num_rows)
    draw = np.random.default_rng(seed)
    labels = (np.arange(num_rows) % 2).astype(np.int8)
    signs = 2.0 * labels - 1
    by_row = row_noise * draw.normal(size=num_rows)
    columns = []
    for column in results.columns:
        base = signs * 1.0
        if column.member == "deep":
            base = base + signs * (by_row + group_noise * draw.normal())
        columns.append(replace(column, logits_N=base.astype(np.float32)))
    rows = {"all": WindowRows(labels_N=labels, tune_labels_T=labels[:0])}
    return replace(results, columns=tuple(columns), rows=rows)


@pytest.mark.parametrize(("row_noise", "group_noise"), [(0.5, 0.0), (0.1, 0.2)])
def test_the_interval_covers_what_new_rows_and_new_groups_give(row_noise, group_noise):
    # With 100 draws coverage of 95 % comes out between 0.88 and 1 in all but one of a thousand tries.
    found = [
        difference(drawn(seed, row_noise=row_noise, group_noise=group_noise), "deep", "dot")["log_loss_nats"]
        for seed in range(100)
    ]
    truth = np.mean([one.value for one in found])
    covered = np.mean([abs(one.value - truth) <= one.half_width() for one in found])
    assert 0.88 <= covered <= 1.0
    spread = np.std([one.value for one in found])
    assert spread == pytest.approx(math.sqrt(np.mean([one.standard_error**2 for one in found])), rel=0.25)


def test_rows_that_all_groups_have_in_common_stay_in_the_error_however_many_groups_there_are():
    few, many = (
        difference(drawn(1, groups=groups, row_noise=0.5, group_noise=0.0), "deep", "dot")["log_loss_nats"]
        for groups in (2, 12)
    )
    assert many.standard_error == pytest.approx(few.standard_error, rel=1e-6)


def test_where_groups_differ_most_the_interval_is_students_of_so_few():
    results = drawn(2, num_rows=20_000, row_noise=0.001, group_noise=0.5)
    found = difference(results, "deep", "dot")["log_loss_nats"]
    assert found.degrees == pytest.approx(2.0, abs=0.1)
    assert found.half_width() == pytest.approx(student.ppf(0.975, found.degrees) * found.standard_error)
    assert found.interval().high - found.value == pytest.approx(found.half_width())


def test_windows_with_rows_of_their_own_count_for_more_than_windows_that_share_rows():
    window = Window(split={"a": 0.5, "b": 0.25, "c": 0.25}, train=("a",), test=("b",))
    apart = {"one": window, "two": replace(window, test=("c",))}
    shifted = {"one": window, "two": replace(window, split={"a": 0.6, "b": 0.25, "c": 0.15})}
    mixed = {"one": window, "two": Window(train=("a",), test=("b",))}
    files = {"one": Window(train=("a",), test=("b",)), "two": Window(train=("a",), test=("c",))}
    results = made_results(windows=("one", "two"), groups=1)

    def error(windows) -> float:
        data = replace(results.benchmark.data, windows=windows)
        changed = replace(results, benchmark=replace(results.benchmark, data=data))
        return difference(changed, "deep", "dot")["auc"].standard_error

    assert error(apart) == error(files)
    assert error(shifted) == error(mixed)
    assert error(shifted) == pytest.approx(math.sqrt(2) * error(apart), rel=0.05)


def test_the_shares_of_several_predictions_are_of_one_taken_at_random():
    results = made_results(groups=1)
    labels, columns = results.rows["all"].labels_N, results.of(["kinds"], group=1, window="all")
    shares = RowShares.of(labels, [column.logits_N for column in columns])
    wanted = [metrics_of_logits(labels, column.logits_N) for column in columns]
    estimates = shares.estimates()
    assert estimates["auc"].value == pytest.approx(np.mean([one.auc for one in wanted]), abs=1e-12)
    assert estimates["log_loss_nats"].value == pytest.approx(np.mean([one.log_loss_nats for one in wanted]), abs=1e-12)


def test_the_groups_may_be_given():
    results = made_results()
    assert difference(results, "deep", "dot", groups=[2])["auc"].degrees is None
