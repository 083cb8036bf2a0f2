"""ColumnMeter and what it is made of: figures as scikit-learn's, a bracket that holds, additive to the same bits."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from configs.errors import DataError
from trainer.metrics.auc_histogram import NUM_BINS, AucHistogram, bins_of
from trainer.metrics.column_meter import ColumnMeter
from trainer.metrics.column_sums import CURVE_EDGES, ColumnSums, Kind
from trainer.metrics.exact import BinaryMetrics, exact_auc, metrics_of_logits, metrics_of_probabilities

KINDS: tuple[Kind, ...] = ("logit", "probability")


def drawn(num_rows: int, *, seed: int = 0) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    logits = random.normal(-2, 1.5, num_rows).astype(np.float32)
    labels = (random.random(num_rows) < 1 / (1 + np.exp(-logits))).astype(np.int8)
    logits[::3] = np.round(logits[::3], 1)
    return labels, logits


def as_kind(logits: NDArray[np.float32], kind: Kind) -> NDArray[np.float32]:
    return logits if kind == "logit" else (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)


def metrics(labels: NDArray, scores: NDArray, *, kind: Kind) -> BinaryMetrics:
    return metrics_of_logits(labels, scores) if kind == "logit" else metrics_of_probabilities(labels, scores)


def metered(labels: NDArray, scores: NDArray, *, kind: Kind) -> ColumnMeter:
    meter = ColumnMeter("m", kind=kind)
    meter.add(labels, scores)
    return meter


@pytest.mark.parametrize("kind", KINDS)
def test_figures_are_scikit_learns(kind: Kind) -> None:
    labels, logits = drawn(50_001)
    scores = as_kind(logits, kind)
    probabilities = 1 / (1 + np.exp(-scores.astype(np.float64))) if kind == "logit" else scores.astype(np.float64)
    meter = metered(labels, scores, kind=kind)
    found, bracket = meter.metrics(), meter.auc_bracket()
    assert found.num_rows == meter.num_rows == 50_001
    assert found.log_loss_nats == pytest.approx(log_loss(labels, probabilities), rel=1e-12)
    assert found.brier == pytest.approx(brier_score_loss(labels, probabilities), rel=1e-12)
    assert found.calibration == pytest.approx(probabilities.sum() / labels.sum(), rel=1e-12)
    assert bracket.lower <= roc_auc_score(labels, scores) <= bracket.upper
    assert bracket.lower <= found.auc <= bracket.upper
    assert math.isnan(found.auprc)
    whole = metrics(labels, scores, kind=kind)
    assert (whole.log_loss_nats, whole.brier, whole.ne) == (found.log_loss_nats, found.brier, found.ne)
    assert whole.calibration == found.calibration


@pytest.mark.parametrize("kind", KINDS)
def test_the_bracket_is_narrow_where_rows_tie_by_float32_alone(kind: Kind) -> None:
    random = np.random.default_rng(4)
    logits = random.normal(-3.4, 1, 400_000).astype(np.float32)
    labels = (random.random(len(logits)) < 1 / (1 + np.exp(-logits))).astype(np.int8)
    scores = as_kind(logits, kind)
    bracket = metered(labels, scores, kind=kind).auc_bracket()
    assert 0 < bracket.width < 1e-6
    assert bracket.lower <= exact_auc(labels, scores) <= bracket.upper


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_order_and_split_gives_the_same_bits(kind: Kind, data: st.DataObject) -> None:
    labels, logits = drawn(data.draw(st.integers(1, 300)))
    logits[: data.draw(st.integers(0, 20))] = data.draw(st.sampled_from([100.0, -100.0, 3000.0, 0.0]))
    scores = as_kind(logits, kind)
    whole = ColumnSums("m", kind=kind)
    whole.add(labels, scores)
    order = np.random.default_rng(data.draw(st.integers(0, 9))).permutation(len(labels))
    num_ranks = data.draw(st.sampled_from([1, 2, 8]))
    states = []
    merged = ColumnSums("m", kind=kind)
    for rows in np.array_split(order, num_ranks):
        sums = ColumnSums("m", kind=kind)
        sums.add(labels[rows], scores[rows])
        states.append(sums.state())
        merged.merge(sums)
    summed = {key: sum(state[key] for state in states) for key in states[0]}
    for other in (merged, ColumnSums.from_state("m", kind=kind, state=summed)):
        assert other.metrics(auc=0.5, auprc=0.5) == whole.metrics(auc=0.5, auprc=0.5)
        assert other.curve() == whole.curve()
    shuffled, plain = metrics(labels[order], scores[order], kind=kind), metrics(labels, scores, kind=kind)
    assert repr(shuffled) == repr(plain)  # NaN, too


def test_meters_add_up_as_sums_of_states_and_through_files(tmp_path: Path) -> None:
    labels, scores = drawn(5_000)
    whole = metered(labels, scores, kind="logit")
    first, second = (metered(labels[half], scores[half], kind="logit") for half in (slice(0, 999), slice(999, None)))
    summed = {key: value + second.state()[key] for key, value in first.state().items()}
    from_state = ColumnMeter.from_state("m", kind="logit", state=summed)
    first.merge(second)
    path = str(tmp_path / "meter.npz")
    from_state.write(path)
    for meter in (first, ColumnMeter.read(path)):
        assert repr(meter.metrics()) == repr(whole.metrics())
        assert meter.auc_bracket() == whole.auc_bracket()
        assert meter.curve() == whole.curve()


def test_a_file_that_holds_no_meter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "meter.npz").write_bytes(b"PK no")
    np.savez(tmp_path / "other.npz", bins=np.zeros(3))
    for name in ("meter.npz", "other.npz", "none.npz"):
        with pytest.raises(DataError, match=f"{name} does not hold a column's figures"):
            ColumnMeter.read(str(tmp_path / name))


@pytest.mark.parametrize("kind", KINDS)
def test_the_curve_is_the_rows_of_each_bin(kind: Kind) -> None:
    labels, logits = drawn(20_000)
    scores = as_kind(logits * 3, kind)
    sums = ColumnSums("m", kind=kind)
    sums.add(labels, scores)
    probabilities = 1 / (1 + np.exp(-scores.astype(np.float64))) if kind == "logit" else scores.astype(np.float64)
    assert len(CURVE_EDGES) + 1 >= 20
    edges = 1 / (1 + np.exp(-CURVE_EDGES))
    bins = (np.asarray(scores, np.float64)[:, None] >= (CURVE_EDGES if kind == "logit" else edges)).sum(axis=1)
    points = sums.curve()
    assert len(points) == len(np.unique(bins))
    assert sum(point.num_rows for point in points) == 20_000
    for point, index in zip(points, np.unique(bins), strict=True):
        rows = bins == index
        assert point.num_rows == rows.sum()
        assert point.label_rate == pytest.approx(labels[rows].mean(), rel=1e-15)
        assert point.mean_probability == pytest.approx(probabilities[rows].mean(), rel=1e-12)
        assert point.lowest - 1e-9 <= point.mean_probability <= point.highest + 1e-9


@pytest.mark.parametrize("kind", KINDS)
@given(values=st.lists(st.floats(0, 1, width=32), min_size=2, max_size=40), scale=st.sampled_from([1.0, 20.0, 1e5]))
@settings(max_examples=30, deadline=None)
def test_a_higher_score_is_never_in_a_lower_bin(kind: Kind, values: list[float], scale: float) -> None:
    scores = np.sort(np.array(values, np.float32))
    if kind == "logit":
        scores = np.sort((scores - np.float32(0.5)) * np.float32(scale))
    for column in (scores, scores.astype(np.float64)):
        bins = bins_of(column, kind=kind)
        assert (np.diff(bins) >= 0).all()
        assert bins.min() >= 0 and bins.max() < NUM_BINS
    labels = (np.arange(len(scores)) % 2).astype(np.int8)
    histogram = AucHistogram(kind=kind)
    histogram.add(labels, scores)
    used = np.unique(bins_of(scores, kind=kind), return_inverse=True)[1]
    wins = [(p > n, p >= n) for p in used[labels == 1] for n in used[labels == 0]]
    sure, possible = np.mean(wins, axis=0)
    assert sure <= exact_auc(labels, scores) <= possible
    if len(values) < 4:  # going through all bins takes a while
        bracket = histogram.bracket()
        assert (bracket.lower, bracket.upper) == pytest.approx((sure, possible), rel=1e-14)


def test_saturated_scores() -> None:
    labels = np.array([0, 1, 1, 0], np.int8)
    logits = metered(labels, np.array([100, 100, -100, -100], np.float32), kind="logit").metrics()
    assert logits.log_loss_nats == 50.0  # of two rows 100, of two 4e-44
    assert logits.brier == 0.5
    meter = metered(labels, np.array([1, 1, 0, 0], np.float32), kind="probability")
    clipped = -math.log(np.finfo(float).eps)
    assert meter.metrics().log_loss_nats == pytest.approx(clipped / 2, rel=1e-12)
    assert meter.metrics().log_loss_nats == pytest.approx(log_loss(labels, np.array([1.0, 1, 0, 0])), rel=1e-9)
    assert meter.auc_bracket().lower <= 0.5 <= meter.auc_bracket().upper
    assert [point.num_rows for point in meter.curve()] == [2, 2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", [[], [0], [1], [1, 1]])
def test_few_rows_and_one_class(kind: Kind, labels: list[int]) -> None:
    column = np.array(labels, np.int8), np.full(len(labels), 0.25, np.float32)
    found = metered(*column, kind=kind)
    assert math.isnan(found.auc_bracket().lower) and math.isnan(found.metrics().auc)
    assert found.metrics().num_rows == len(labels)
    if labels:
        assert found.metrics().log_loss_nats == metrics(*column, kind=kind).log_loss_nats
    else:
        assert all(value is None for key, value in found.metrics().as_json().items() if key != "num_rows")
        assert found.curve() == ()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_bad_scores_are_refused_by_member_part_and_row(value: float, kind: Kind) -> None:
    labels, scores = np.zeros(70_000, np.int8), np.full(70_000, 0.5, np.float32)
    scores[65_001] = value
    message = f"the {kind} of 'deep' for row 1_065_001 of part 'day_3' is {value}"
    with pytest.raises(DataError, match=message):
        ColumnMeter("deep", kind=kind).add(labels, scores, part="day_3", first_row=1_000_000)


def test_probabilities_and_labels_out_of_range_are_refused() -> None:
    sums = ColumnSums("deep", kind="probability")
    for bad in (-0.25, 1.25):
        with pytest.raises(DataError, match=f"row 1 of part 'd' is {bad}"):
            sums.add(np.zeros(2, np.int8), np.array([0.5, bad], np.float32), part="d")
    with pytest.raises(DataError, match="label of row 12 of part 'd' is 3"):
        sums.add(np.array([0, 1, 3]), np.full(3, 0.5, np.float32), part="d", first_row=10)
    assert sums.num_rows == 0
