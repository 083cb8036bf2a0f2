"""The planted teacher: a function of (seed, row), learnable, not linear, and the same in files and in the stream."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.preprocessing import OneHotEncoder

from configs.errors import ConfigError
from tools import generate_criteo
from trainer.data.criteo import LogFile
from trainer.data.preparation import prepare
from trainer.data.teacher import Teacher, TeacherRows
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


def test_bad_size() -> None:
    with pytest.raises(ConfigError, match="max_table_rows: 0"):
        Teacher(1, 0)


def generate(output: Path, **more: str) -> int:
    flags = {"--days": "2", "--rows-per-day": "3000", "--max-table-rows": "300", "--seed": "5", **more}
    return generate_criteo.main(["--output", str(output), *(piece for pair in flags.items() for piece in pair)])


def test_the_generator_writes_the_teacher_s_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate_criteo, "_BLOCK_ROWS", 700)
    assert generate(tmp_path / "logs") == 0
    teacher = Teacher(5, 300)
    for day in (0, 1):
        rows = teacher.rows(np.arange(day * 3_000, (day + 1) * 3_000))
        (parsed,) = [block.parse() for block in LogFile(str(tmp_path / "logs" / f"day_{day}.tsv.gz")).blocks()]
        np.testing.assert_array_equal(parsed.labels, rows.label)
        np.testing.assert_array_equal(parsed.dense_raw, rows.dense_raw)
        np.testing.assert_array_equal(parsed.dense_missing, rows.dense_missing)
        np.testing.assert_array_equal(parsed.value_missing, rows.sparse_index < 0)
        for feature in range(26):
            wanted = teacher.hashes(feature, np.maximum(rows.sparse_index[:, feature], 0))
            there = ~parsed.value_missing[:, feature]
            np.testing.assert_array_equal(parsed.values[there, feature], wanted[there])
    ceilings = json.loads((tmp_path / "logs" / "ceiling.json").read_text())
    assert set(ceilings) == {"day_0", "day_1"}
    assert ceilings["day_1"]["auc"] == pytest.approx(teacher.ceiling(np.arange(3_000, 6_000)).auc, abs=1e-12)
    assert ceilings["day_1"]["num_rows"] == 3_000


def test_the_generator_s_bytes_are_the_same_each_time(tmp_path: Path) -> None:
    def hashes(folder: str) -> list[str]:
        assert generate(tmp_path / folder) == 0
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((tmp_path / folder).iterdir())]

    assert hashes("one") == hashes("two")


def test_prepared_logs_agree_with_the_stream(tmp_path: Path) -> None:
    assert generate(tmp_path / "logs") == 0
    inputs = [str(tmp_path / "logs" / f"day_{day}.tsv.gz") for day in (0, 1)]
    prepare(inputs=inputs, output=str(tmp_path / "data"), min_count=1)
    rows = Teacher(5, 300).rows(np.arange(3_000, 6_000))
    np.testing.assert_array_equal(np.load(tmp_path / "data" / "day_1_dense.npy"), rows.dense)
    ids = np.load(tmp_path / "data" / "day_1_sparse.npy")
    np.testing.assert_array_equal(ids == 0, rows.ids == 0)
    for feature in range(26):  # ids are others, but one to one, save for the unseen
        pairs = {(a, b) for a, b in zip(ids[:, feature], rows.ids[:, feature], strict=True) if a != 1}
        assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)


def test_the_generator_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flag, value in (("--days", "0"), ("--rows-per-day", "-1"), ("--max-table-rows", "0"), ("--seed", "-1")):
        assert generate(tmp_path / "logs", **{flag: value}) == 2
        assert value in capsys.readouterr().err
    assert not (tmp_path / "logs").exists()
