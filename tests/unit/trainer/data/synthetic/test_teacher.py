"""The planted teacher: a function of (seed, row), learnable, not linear, and renewed day by day."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.preprocessing import OneHotEncoder

from configs.errors import ConfigError
from trainer.data.synthetic.teacher import Teacher, TeacherRows
from trainer.data.synthetic.teacher_tables import TeacherTables, terabyte_tables
from trainer.metrics.exact import metrics_of_logits

FIELDS = ("dense_raw", "dense_missing", "sparse_index", "logit", "label")


def assert_equal(one: TeacherRows, other: TeacherRows, pick: np.ndarray | slice) -> None:
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field)[pick], err_msg=field)


def test_a_row_depends_on_seed_and_row_alone() -> None:
    teacher = Teacher(3, 500)
    whole = teacher.rows(np.arange(20_000))
    pick = np.random.default_rng(0).permutation(20_000)[:3_000]
    assert_equal(teacher.rows(pick), whole, pick)
    assert_equal(Teacher(3, 500).rows(np.arange(17_000, 17_010)), whole, slice(17_000, 17_010))
    assert (Teacher(4, 500).rows(np.arange(2_000)).sparse_index != whole.sparse_index[:2_000]).mean() > 0.3


def test_no_rows() -> None:
    rows = Teacher(3, 500).rows(np.arange(0))
    assert rows.dense.shape == (0, 13) and rows.ids.shape == (0, 26) and rows.label.shape == (0,)


@pytest.mark.parametrize("max_table_rows", [1, 3, 100, 20_000, 40_000_000])
def test_ranges_and_types(max_table_rows: int) -> None:
    teacher = Teacher(1, max_table_rows)
    rows = teacher.rows(np.arange(20_000))
    assert [str(getattr(rows, field).dtype) for field in FIELDS] == ["int64", "bool", "int32", "float64", "int32"]
    assert max(teacher.cardinalities) == max_table_rows and len(teacher.cardinalities) == 26
    assert (rows.sparse_index < np.array(teacher.cardinalities)).all() and (rows.sparse_index >= -1).all()
    assert rows.ids.dtype == np.int32 and rows.ids.min() >= 0 and (rows.ids < np.array(teacher.table_rows)).all()
    np.testing.assert_array_equal(rows.ids == 0, rows.sparse_index == -1)
    assert rows.dense.dtype == np.float32 and np.isfinite(rows.dense).all()
    assert (rows.dense_raw[rows.dense_missing] == 0).all() and rows.dense_raw.min() == -1
    assert set(np.unique(rows.label)) == {0, 1}
    assert 3 not in teacher.cardinalities or max_table_rows >= 3


def test_skew_and_missing_values() -> None:
    teacher = Teacher(7, 20_000)
    rows = teacher.rows(np.arange(50_000))
    missing = np.concatenate([rows.dense_missing.mean(axis=0), (rows.sparse_index < 0).mean(axis=0)])
    assert (missing == 0).any() and (missing > 0.15).any() and missing.max() < 0.45 and len(set(missing)) > 20
    for feature, size in enumerate(teacher.cardinalities):
        counts = np.bincount(rows.sparse_index[:, feature] + 1, minlength=size + 1)[1:]
        assert counts[0] > 1.3 * counts[min(2, size - 1)] > 0
        if size > 2_000:
            assert counts[0] > 20 * counts.mean() and (counts == 0).any()
    assert np.percentile(rows.dense_raw, 99) > 20 * np.percentile(rows.dense_raw, 50)


@pytest.mark.parametrize("seed", [1, 7])
@pytest.mark.parametrize("max_table_rows", [50, 20_000])
def test_base_rate_and_ceiling(seed: int, max_table_rows: int) -> None:
    ceiling = Teacher(seed, max_table_rows).ceiling(np.arange(60_000))
    assert ceiling.num_rows == 60_000
    assert 0.24 < ceiling.label_rate < 0.26
    assert 0.80 < ceiling.auc < 0.84


def test_labels_are_coins_of_the_true_probability() -> None:
    rows = Teacher(7, 1_000).rows(np.arange(100_000))
    probability = expit(rows.logit)
    for group in np.array_split(np.argsort(probability), 20):
        error = np.sqrt((probability[group] * (1 - probability[group])).sum())
        assert abs(rows.label[group].sum() - probability[group].sum()) < 4 * error


def test_ceiling_is_what_scikit_learn_computes() -> None:
    draw = np.random.default_rng(0)
    logit = np.round(draw.normal(size=4_000), 1)  # with many ties
    label = (draw.random(4_000) < expit(logit)).astype(np.int32)
    ceiling = metrics_of_logits(label, logit)
    assert ceiling.auc == pytest.approx(roc_auc_score(label, logit), abs=1e-12)
    assert ceiling.log_loss_nats == pytest.approx(log_loss(label, expit(logit)), abs=1e-12)
    assert np.isnan(metrics_of_logits(np.zeros(4_000, np.int32), logit).auc)


def test_hashes_never_collide() -> None:
    teacher = Teacher(7, 200_000)
    values = teacher.hashes(2, np.arange(200_000))
    assert values.dtype == np.uint32 and len(np.unique(values)) == 200_000
    assert values.max() > 2**31  # the whole range is used
    assert (teacher.hashes(3, np.arange(1_000)) != values[:1_000]).all()
    assert (Teacher(8, 200_000).hashes(2, np.arange(1_000)) != values[:1_000]).all()


def test_learnable_but_not_linear() -> None:
    teacher = Teacher(7, 5_000)
    train, test = teacher.rows(np.arange(40_000)), teacher.rows(np.arange(200_000, 230_000))
    encoder = OneHotEncoder(max_categories=100, handle_unknown="infrequent_if_exist").fit(train.ids)
    model = LogisticRegression(C=0.05, max_iter=40).fit(encoder.transform(train.ids), train.label)
    linear = roc_auc_score(test.label, model.decision_function(encoder.transform(test.ids)))
    ceiling = metrics_of_logits(test.label, test.logit)
    assert 0.6 < linear < ceiling.auc - 0.05


def test_the_rows_that_published_figures_rest_on_stay_the_same() -> None:
    rows = Teacher(7, 20_000).rows(np.arange(1_000, 5_000))
    sums = [
        int(rows.dense_raw.sum()),
        int(rows.sparse_index.sum()),
        int(rows.label.sum()),
        int(rows.dense_missing.sum()),
    ]
    assert sums == [980_135, 31_373_924, 950, 4_414]
    assert float(rows.logit.sum()) == pytest.approx(-6421.090385411243, abs=1e-6)


@pytest.mark.parametrize("label_rate", [0.033, 0.6])
def test_the_label_rate_is_the_one_asked_for(label_rate: float) -> None:
    tables = terabyte_tables(scale=0.001, num_days=4, rows_per_day=20_000, renewed=0.1)
    ceiling = Teacher(3, 1_000, tables, label_rate).ceiling(np.arange(80_000))
    assert ceiling.label_rate == pytest.approx(label_rate, rel=0.12)
    assert ceiling.calibration == pytest.approx(1.0, abs=0.05)
    assert ceiling.auc > 0.8


def test_each_day_brings_new_values() -> None:
    tables = terabyte_tables(scale=0.0001, num_days=4, rows_per_day=30_000, renewed=0.1, skew=1.05)
    teacher = Teacher(3, 1_000, tables)
    days = [teacher.rows(np.arange(day * 30_000, (day + 1) * 30_000)) for day in range(4)]
    feature = 19
    large = [day.sparse_index[:, feature] for day in days]
    # A value's slot is its number modulo the slots: where the first day has seen a slot, the value in it may be new.
    size = tables.sizes[feature]
    seen = np.unique(large[0])
    for number, day in enumerate(large[1:], start=1):
        known_slot = day[np.isin(day % size, seen % size) & (day >= 0)]
        assert np.mean(~np.isin(known_slot, seen)) == pytest.approx(0.1 * number, abs=0.06)
    assert (np.unique(large[3]) < teacher.cardinalities[feature]).all()
    small = [np.unique(day.sparse_index[:, 13]) for day in days]
    assert len(np.setdiff1d(small[3], small[0])) < 0.1 * len(small[0])
    assert_equal(teacher.rows(np.arange(59_990, 60_000)), days[1], slice(29_990, None))


def test_sizes_follow_the_scale_and_small_features_keep_theirs() -> None:
    whole, tenth = terabyte_tables(scale=1.0), terabyte_tables(scale=0.1)
    assert sum(whole.sizes) == 882_774_559
    for one, other in zip(whole.sizes, tenth.sizes, strict=True):
        assert other == one if one <= 1_000 else other == max(round(one / 10), 1_000)
    renewed = terabyte_tables(scale=1.0, num_days=24, rows_per_day=10, renewed=0.05)
    for feature, size in enumerate(whole.sizes):
        shown = renewed.sizes[feature] * (1 + 0.05 * 23 * (size > 2_000))
        assert shown == pytest.approx(size, rel=0.001)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scale": 0.0}, "scale: 0.0"),
        ({"scale": 8.0}, "scale: 8.0"),
        ({"skew": 1.0}, "skew: 1.0"),
        ({"skew": -1.0}, "skew: -1.0"),
        ({"renewed": 1.5}, "new-values: 1.5"),
        ({"renewed": -0.5}, "new-values: -0.5"),
    ],
)
def test_bad_tables(changed: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        terabyte_tables(**{"scale": 1.0, "num_days": 3, "rows_per_day": 10, **changed})


def test_too_many_values() -> None:
    with pytest.raises(ConfigError, match="ids end at 2,147,483,645"):
        TeacherTables(sizes=(2**31,), pairs=())


def test_bad_size() -> None:
    with pytest.raises(ConfigError, match="max_table_rows: 0"):
        Teacher(1, 0)
    with pytest.raises(ConfigError, match="label_rate: 1.0"):
        Teacher(1, 10, label_rate=1.0)
