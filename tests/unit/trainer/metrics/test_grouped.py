"""Figures of groups: as scikit-learn's group by group, in any order of rows and with any memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from configs.errors import DataError
from trainer.metrics import grouped
from trainer.metrics.exact import metrics_of_logits
from trainer.metrics.grouped import MISSING, GroupedSource, ValueCounts, grouped_auc, slices


def source_of(labels: NDArray, scores: NDArray, values: NDArray, *, chunk_rows: int = 997) -> GroupedSource:
    def chunks() -> Iterator[tuple[NDArray, NDArray, NDArray]]:
        for first in range(0, len(labels), chunk_rows):
            rows = slice(first, first + chunk_rows)
            yield labels[rows], scores[rows], values[rows]

    return chunks


def drawn(num_rows: int = 8_000) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.int64]]:
    random = np.random.default_rng(5)
    scores = random.normal(-1, 1.5, num_rows).astype(np.float32)
    labels = (random.random(num_rows) < 1 / (1 + np.exp(-scores))).astype(np.int8)
    scores[::2] = np.round(scores[::2], 1)
    users = (num_rows // 4 * random.random(num_rows) ** 3).astype(np.int64) * 7 - 50  # some with many rows, some few
    return labels, scores, users


def of_groups(labels: NDArray, scores: NDArray, values: NDArray) -> tuple[list[float], list[int], int]:
    """AUCs and rows of the groups with both classes, and the rows of the others."""
    aucs, rows, left_out = [], [], 0
    for value in np.unique(values):
        inside = values == value
        if 0 < labels[inside].sum() < inside.sum():
            aucs.append(roc_auc_score(labels[inside], scores[inside]))
            rows.append(int(inside.sum()))
        else:
            left_out += int(inside.sum())
    return aucs, rows, left_out


def test_gauc_is_the_mean_of_the_groups_aucs() -> None:
    labels, scores, users = drawn()
    aucs, rows, left_out = of_groups(labels, scores, users)
    found = grouped_auc(source_of(labels, scores, users))
    assert found.weighted == pytest.approx(np.average(aucs, weights=rows), rel=1e-12)
    assert found.unweighted == pytest.approx(np.mean(aucs), rel=1e-12)
    assert found.weighted != pytest.approx(found.unweighted, rel=1e-3)
    assert (found.num_groups, found.num_rows_left_out) == (len(aucs), left_out)
    assert found.num_groups + found.num_groups_left_out == len(np.unique(users))
    assert found.num_groups_left_out > 0


@pytest.mark.parametrize(("most_rows", "block_rows"), [(10_000, 64), (700, 64), (100, 32), (3, 2)])
def test_any_order_names_and_memory_give_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, most_rows: int, block_rows: int
) -> None:
    labels, scores, users = drawn(2_000)
    whole = grouped_auc(source_of(labels, scores, users))
    memory_bytes = grouped._WORKING_BYTES + grouped._BYTES_A_ROW * most_rows
    monkeypatch.setattr(grouped, "_BLOCK_ROWS", block_rows)
    monkeypatch.setattr(grouped, "LEAST_MEMORY_BYTES", 1 << 24)
    order = np.random.default_rng(1).permutation(len(labels))
    shuffled = labels[order], scores[order], users[order]
    assert grouped_auc(source_of(*shuffled), memory_bytes=memory_bytes) == whole
    names = np.array([f"user {user}" for user in shuffled[2]], dtype=object)
    assert grouped_auc(source_of(*shuffled[:2], names), memory_bytes=memory_bytes) == whole
    assert grouped_auc(source_of(*shuffled[:2], names.astype(str)), memory_bytes=memory_bytes) == whole


def test_groups_that_have_no_auc() -> None:
    labels, scores = np.array([1, 1, 0, 0], np.int8), np.arange(4, dtype=np.float32)
    found = grouped_auc(source_of(labels, scores, labels))
    assert math.isnan(found.weighted) and math.isnan(found.unweighted)
    assert (found.num_groups, found.num_groups_left_out, found.num_rows_left_out) == (0, 2, 4)
    assert grouped_auc(lambda: iter([])).num_groups == 0
    assert grouped_auc(source_of(labels, np.zeros(4, np.float32), np.zeros(4, np.int32))).weighted == 0.5


def test_slices_are_the_figures_of_each_values_rows() -> None:
    labels, scores, users = drawn()
    values, counts = np.unique(users, return_counts=True)
    order = np.lexsort((values, -counts))
    found = slices(source_of(labels, scores, users), kind="logit", largest=3)
    assert [one.value for one in found] == [*values[order[:3]].tolist(), None]
    for one in found:
        inside = users == one.value if one.value is not None else ~np.isin(users, values[order[:3]])
        assert one.metrics == metrics_of_logits(labels[inside], scores[inside])
    assert found[-1].num_values == len(values) - 3
    assert sum(one.metrics.num_rows for one in found) == len(labels)
    assert found[0].as_json()["auc"] == found[0].metrics.auc


def test_slices_by_day() -> None:
    labels, scores, _ = drawn(900)
    days = np.repeat(np.array(["day_1", "day_0", "day_2"], dtype=object), [200, 300, 400])
    found = slices(source_of(labels, scores, days), kind="logit", largest=10)
    assert [(one.value, one.metrics.num_rows) for one in found] == [("day_2", 400), ("day_0", 300), ("day_1", 200)]
    assert slices(lambda: iter([]), kind="logit", largest=10) == ()


def test_values_are_merged_chunk_by_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouped, "_MOST_UNMERGED", 3)
    labels, scores, users = drawn()
    counts = ValueCounts.of(source_of(labels, scores, users, chunk_rows=100))
    values, rows = np.unique(users, return_counts=True)
    assert (counts.values == values).all() and (counts.num_rows == rows).all()
    assert (values[counts.codes(users)] == users).all()


def test_missing_strings_are_a_group() -> None:
    values = np.array(["b", None, "a", None], dtype=object)
    counts = ValueCounts.of(source_of(np.zeros(4), np.zeros(4), values, chunk_rows=2))
    assert counts.values.tolist() == [MISSING, "a", "b"]
    assert counts.num_rows.tolist() == [2, 1, 1]


def test_what_cannot_be_grouped_is_refused() -> None:
    labels, scores, users = drawn(50)
    with pytest.raises(DataError, match="float32"):
        grouped_auc(source_of(labels, scores.astype(float), users))
    with pytest.raises(DataError, match="not by float32"):
        grouped_auc(source_of(labels, scores, scores))
    with pytest.raises(DataError, match="too little to group"):
        grouped_auc(source_of(labels, scores, users), memory_bytes=1)
    with pytest.raises(DataError, match="is nan"):
        slices(source_of(labels, scores * np.float32(np.nan), users), kind="logit", largest=1)
    mixed = [(labels, scores, users), (labels, scores, users.astype(str))]
    with pytest.raises(DataError, match="strings in another"):
        grouped_auc(lambda: iter(mixed))
    with pytest.raises(DataError, match="not the same"):
        ValueCounts.of(source_of(labels, scores, users)).codes(np.array([1 << 40]))
