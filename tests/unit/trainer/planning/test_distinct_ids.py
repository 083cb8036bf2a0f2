"""How many distinct ids are expected: against the sum over all ranks, against draws, and fitted back."""

from __future__ import annotations

import time

import numpy as np
import pytest

from trainer.planning.distinct_ids import expected_distinct, fitted_zipf


def summed(table_rows: int, num_ids: float, zipf: float) -> float:
    """The definition, rank by rank."""
    shares = np.arange(1, table_rows + 1, dtype=np.float64) ** -zipf
    shares /= shares.sum()
    return float(-np.expm1(num_ids * np.log1p(-shares)).sum())


@pytest.mark.parametrize("zipf", [0.0, 0.5, 0.99, 1.0, 1.3, 2.5, 8.0])
@pytest.mark.parametrize("num_ids", [1.0, 10.5, 1_000.0, 65_536.0, 1e7])
@pytest.mark.parametrize("table_rows", [2, 4_096, 4_097, 4_200, 100_000, 700_001])
def test_it_is_the_sum_over_all_ranks(table_rows: int, num_ids: float, zipf: float) -> None:
    found = expected_distinct(table_rows=table_rows, num_ids=num_ids, zipf=zipf)
    assert found == pytest.approx(summed(table_rows, num_ids, zipf), rel=1e-5)


@pytest.mark.parametrize(("table_rows", "zipf"), [(1_000, 0.0), (50_000, 1.05), (9_000, 1.6)])
def test_draws_hold_as_many(table_rows: int, zipf: float) -> None:
    random = np.random.default_rng(3)
    shares = np.arange(1, table_rows + 1) ** -zipf
    drawn = [len(np.unique(random.choice(table_rows, 4_000, p=shares / shares.sum()))) for _ in range(30)]
    expected = expected_distinct(table_rows=table_rows, num_ids=4_000.0, zipf=zipf)
    assert abs(np.mean(drawn) - expected) < 4 * np.std(drawn) / np.sqrt(len(drawn))


def test_uniform_ids_have_a_closed_form() -> None:
    found = expected_distinct(table_rows=40_000_000, num_ids=1e6, zipf=0.0)
    assert found == pytest.approx(4e7 * -np.expm1(1e6 * np.log1p(-1 / 4e7)), rel=1e-6)


@pytest.mark.parametrize("table_rows", [1, 3, 5_000, 10**9])
def test_never_more_than_ids_or_rows(table_rows: int) -> None:
    for num_ids in (0.0, 0.3, 1.0, 7.0, 1e12):
        for zipf in (0.0, 1.0, 50.0):
            found = expected_distinct(table_rows=table_rows, num_ids=num_ids, zipf=zipf)
            assert 0 <= found <= min(num_ids, table_rows)


def test_more_ids_and_rows_give_more_distinct_ones_and_skew_fewer() -> None:
    def along(**values: list[float]) -> list[float]:
        ((key, several),) = values.items()
        base: dict[str, float] = {"table_rows": 10_000, "num_ids": 5_000.0, "zipf": 1.1}
        return [expected_distinct(**base | {key: value}) for value in several]  # type: ignore[arg-type]

    assert np.all(np.diff(along(num_ids=[10.0, 1_000.0, 1e5])) > 0)
    assert np.all(np.diff(along(table_rows=[100, 4_096, 4_097, 10**6, 10**8])) > 0)
    assert np.all(np.diff(along(zipf=[0.0, 0.5, 1.0, 1.0001, 2.0, 4.0])) < 0)


@pytest.mark.parametrize("table_rows", [50, 20_000, 40_000_000])
@pytest.mark.parametrize("zipf", [0.4, 1.0, 1.37])
def test_a_law_is_found_again(table_rows: int, zipf: float) -> None:
    distinct = expected_distinct(table_rows=table_rows, num_ids=30.0, zipf=zipf)
    assert fitted_zipf(table_rows=table_rows, num_ids=30.0, distinct=distinct) == pytest.approx(zipf, abs=0.01)


def test_what_no_law_gives_is_its_nearest() -> None:
    assert fitted_zipf(table_rows=100, num_ids=1_000.0, distinct=101.0) == 0.0
    assert fitted_zipf(table_rows=100, num_ids=1_000.0, distinct=1.0) == 32.0
    assert fitted_zipf(table_rows=100, num_ids=0.0, distinct=0.0) == 0.0
    assert fitted_zipf(table_rows=1, num_ids=50.0, distinct=1.0) == 0.0


def test_a_large_table_takes_no_longer() -> None:
    expected_distinct(table_rows=40_000_000, num_ids=1.0, zipf=1.0)  # its ranks are kept
    start = time.thread_time()
    for number in range(20):
        expected_distinct(table_rows=40_000_000, num_ids=65_536.0 + number, zipf=1.05)
    assert (time.thread_time() - start) / 20 < 0.005
