"""Ranking: AUC and average precision as scikit-learn's, in memory or by intervals, in any order of rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from configs.errors import DataError
from trainer.metrics import ranking
from trainer.metrics.ranking import LEAST_MEMORY_BYTES, Ranking, Source, num_passes, ordered_keys, rank

scores_of = {
    "tied": st.sampled_from([-3.0, -0.5, 0.0, -0.0, 0.25, 100.0, -100.0]),
    "any": st.floats(-50, 50, width=32),
    "wild": st.floats(width=32, allow_nan=False),
}


@st.composite
def columns(draw: st.DrawFn) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    size = draw(st.integers(1, 50))
    scores = draw(st.lists(draw(st.sampled_from(list(scores_of.values()))), min_size=size, max_size=size))
    labels = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
    return np.array(labels, np.int8), np.array(scores, np.float32)


def source_of(labels: NDArray, scores: NDArray, *, chunk_rows: int = 7) -> Source:
    def chunks() -> Iterator[tuple[NDArray, NDArray]]:
        for first in range(0, len(labels), chunk_rows):
            yield labels[first : first + chunk_rows], scores[first : first + chunk_rows]

    return chunks


def external(monkeypatch: pytest.MonkeyPatch, *, most_rows: int) -> None:
    """Lets no more rows than this be held."""
    monkeypatch.setattr(ranking, "_most_rows", lambda _dtype, **_options: most_rows)


def drawn(num_rows: int, *, seed: int = 0) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    scores = random.normal(-3, 1.5, num_rows).astype(np.float32)
    labels = (random.random(num_rows) < 1 / (1 + np.exp(-scores))).astype(np.int8)
    scores[::3] = np.round(scores[::3], 1)
    return labels, scores


@given(column=columns(), dtype=st.sampled_from([np.float32, np.float64]), most_rows=st.sampled_from([1, 3, 1_000]))
@settings(max_examples=120, deadline=None)
def test_figures_are_scikit_learns(
    column: tuple[NDArray[np.int8], NDArray[np.float32]], dtype: type, most_rows: int
) -> None:
    labels, scores = column[0], column[1].astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        external(patch, most_rows=most_rows)
        found = rank(source_of(labels, scores), num_rows=len(labels))
    wins = sum(2 * int(p > n) + int(p == n) for p in scores[labels == 1] for n in scores[labels == 0])
    assert (found.num_positives, found.num_negatives) == (labels.sum(), len(labels) - labels.sum())
    assert found.twice_wins == wins
    if 0 < labels.sum() < len(labels):
        ranks = np.unique(scores, return_inverse=True)[1]  # scikit-learn refuses infinite ones
        assert found.auc == pytest.approx(roc_auc_score(labels, ranks), rel=1e-12)
        assert found.auprc == pytest.approx(average_precision_score(labels, ranks), rel=1e-12)


@pytest.mark.parametrize("most_rows", [40, 700, 4_000, 100_000])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_any_order_split_and_memory_gives_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, most_rows: int, dtype: type
) -> None:
    labels, scores = drawn(6_000)
    scores = scores.astype(dtype)
    whole = rank(source_of(labels, scores, chunk_rows=6_000), num_rows=6_000)
    assert whole.auc == pytest.approx(roc_auc_score(labels, scores), rel=1e-12)
    assert whole.auprc == pytest.approx(average_precision_score(labels, scores), rel=1e-12)
    external(monkeypatch, most_rows=most_rows)
    order = np.random.default_rng(1).permutation(len(labels))
    assert rank(source_of(labels[order], scores[order], chunk_rows=501)) == whole


def test_blocks_of_thresholds_end_where_ties_do(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, scores = drawn(3_000)
    whole = rank(source_of(labels, scores), num_rows=3_000)
    monkeypatch.setattr(ranking, "_BLOCK_POSITIVES", 2)
    assert rank(source_of(labels, scores), num_rows=3_000) == whole


def test_all_ties() -> None:
    labels = np.array([0, 1, 1, 0, 0], np.int8)
    found = rank(source_of(labels, np.full(5, 0.25, np.float32)))
    assert found.auc == 0.5
    assert found.auprc == pytest.approx(0.4, rel=1e-15) == average_precision_score(labels, np.zeros(5))


def test_all_ties_of_more_rows_than_fit_are_counted_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    external(monkeypatch, most_rows=2)
    labels = np.array([0, 1] * 50, np.int8)
    assert rank(source_of(labels, np.full(100, -7.0, np.float32))).auc == 0.5
    assert rank(source_of(labels, np.full(100, -7.0))).auc == 0.5


@pytest.mark.parametrize(("label", "auprc"), [(0, math.nan), (1, 1.0)])
def test_one_class_has_no_auc(label: int, auprc: float) -> None:
    found = rank(source_of(np.full(9, label, np.int8), np.arange(9, dtype=np.float32)))
    assert math.isnan(found.auc)
    assert found.auprc == pytest.approx(auprc, nan_ok=True)


def test_no_rows_and_one_row() -> None:
    assert rank(lambda: iter([])) == Ranking()
    assert math.isnan(rank(lambda: iter([])).auc)
    assert math.isnan(rank(lambda: iter([])).auprc)
    empty = (np.empty(0, np.int8), np.empty(0, np.float32))
    assert rank(lambda: iter([empty])) == rank(lambda: iter([empty]), num_rows=0) == Ranking()
    assert rank(lambda: iter([(np.array([1]), np.array([0.5]))])).auprc == 1.0


def test_pairs_beyond_int64_are_counted() -> None:
    many = np.array([3_000_000_000, 5], np.int64)
    assert ranking._dot(many, 2 * many) == 2 * (3_000_000_000**2 + 25)
    tied = ranking._Interval(first=0, last=0, positives=4 << 30, negatives=4 << 30)
    whole = Ranking(num_positives=4 << 30, num_negatives=4 << 30)
    found = ranking._all_tied(tied, column=whole, below=Ranking())
    assert (found.auc, found.auprc) == (0.5, 0.5)
    assert found.twice_wins == 1 << 64


@given(values=st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=30))
@settings(max_examples=60, deadline=None)
def test_keys_compare_as_scores_do(values: list[float]) -> None:
    for dtype in (np.float32, np.float64):
        scores = np.array(values, dtype)
        keys = ordered_keys(scores)
        assert ((keys[:, None] < keys) == (scores[:, None] < scores)).all()
        assert ((keys[:, None] == keys) == (scores[:, None] == scores)).all()


def test_precisions_of_ties_are_exact_fractions() -> None:
    labels = np.array([1, 0, 1, 1, 0, 0, 1], np.int8)
    scores = np.array([3, 3, 2, 2, 2, 1, 1], np.float32)
    expected = (Fraction(1, 2) + 2 * Fraction(3, 5) + Fraction(4, 7)) / 4
    assert rank(source_of(labels, scores)).auprc == pytest.approx(float(expected), rel=1e-16)


def test_bad_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    good = np.array([0, 1], np.int8)
    with pytest.raises(DataError, match="NaN"):
        rank(source_of(good, np.array([0.0, np.nan], np.float32)))
    with pytest.raises(DataError, match="neither 0 nor 1"):
        rank(source_of(np.array([0, 2]), np.zeros(2, np.float32)))
    with pytest.raises(DataError, match=f"give {LEAST_MEMORY_BYTES}"):
        rank(source_of(good, np.zeros(2, np.float32)), memory_bytes=1_000)
    with pytest.raises(DataError, match="not the same"):
        rank(source_of(good, np.zeros(2, np.float32)), num_rows=3)
    with pytest.raises(DataError, match="not the same"):
        rank(source_of(good, np.zeros(2, np.float32)), num_rows=1)


def test_a_source_that_changes_between_passes_is_refused() -> None:
    calls = []

    def source() -> Iterator[tuple[NDArray, NDArray]]:
        calls.append(1)
        yield np.array([0, 1, len(calls) % 2], np.int8), np.zeros(3, np.float32)

    with pytest.raises(DataError, match="not the same"):
        rank(source)


def test_work_is_told_and_passes_are_as_many_as_said(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, scores = drawn(5_000)
    told: list[str] = []
    reads = []

    def source() -> Iterator[tuple[NDArray, NDArray]]:
        reads.append(1)
        yield labels, scores

    rank(source, num_rows=5_000, beat=told.append)
    assert {"reading scores", "sorting scores", "ranking scores"} <= set(told)
    assert len(reads) == 1 + num_passes(5_000, memory_bytes=LEAST_MEMORY_BYTES)  # the first looks at the type alone
    external(monkeypatch, most_rows=2_000)
    reads.clear()
    rank(source, num_rows=5_000)
    assert 1 + num_passes(5_000, memory_bytes=0) <= len(reads) <= 2 + num_passes(5_000, memory_bytes=0)
