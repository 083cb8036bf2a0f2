"""Rows of a study: all of a small folder, blocks at even distances of a large one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from configs.errors import ConfigError, DataError
from tests.support.made_predictions import made_predictions
from trainer.analysis.worth.study_rows import read_study_rows
from trainer.predictions.reading import Predictions

NUM_ROWS = 5_000


def folder(path: Path, *, labels: bool | None = None, **options: object) -> Predictions:
    draw = np.random.default_rng(0)
    rows = np.arange(NUM_ROWS)
    marks = (
        (draw.random(NUM_ROWS) < 0.3).astype(np.int8) if labels is None else (np.zeros(NUM_ROWS) if labels else None)
    )
    logits = {"a": rows / 1_000.0, "b": -rows / 1_000.0}
    parts = {"day_0": 3_100, "day_1": 1_900}
    return Predictions(made_predictions(path, marks, logits, parts=parts, kept={"C1": rows % 7}, **options))  # type: ignore[arg-type]


def test_a_small_folder_is_read_whole_and_in_order(tmp_path: Path) -> None:
    predictions = folder(tmp_path)
    rows = read_study_rows(predictions, max_rows=NUM_ROWS, columns=["C1"])
    assert not rows.is_sample and rows.num_rows == NUM_ROWS
    assert np.array_equal(rows.labels, predictions.labels())
    assert np.array_equal(rows.logits, predictions.logits()) and rows.logits.flags.f_contiguous
    assert np.array_equal(rows.merged_logits, predictions.merged_logits())
    assert np.array_equal(rows.columns["C1"], np.arange(NUM_ROWS) % 7)
    assert np.array_equal(rows.part, np.repeat([0, 1], [3_100, 1_900]))
    assert rows.block_rows == 25 and len(rows.block_starts) == 200


def test_a_sample_is_blocks_of_neighbours_at_even_distances(tmp_path: Path) -> None:
    rows = read_study_rows(folder(tmp_path), max_rows=1_000, columns=["C1"])
    at = np.rint(rows.logits[:, 0].astype(np.float64) * 1_000).astype(int)  # which row of the folder it is
    assert rows.is_sample and rows.num_rows == 1_000 and rows.num_rows_total == NUM_ROWS
    assert np.array_equal(at[rows.block_starts], np.arange(200) * 25)
    assert (at.reshape(200, 5) - at[rows.block_starts][:, None] == np.arange(5)).all()
    assert np.array_equal(rows.columns["C1"], at % 7)
    assert np.array_equal(rows.part, at >= 3_100)


def test_sums_by_block_and_stretches_agree(tmp_path: Path) -> None:
    rows = read_study_rows(folder(tmp_path), max_rows=999)
    values = np.arange(rows.num_rows) ** 2.0
    blocks = rows.block_of_rows()
    wanted = [values[blocks == block].sum() for block in range(len(rows.block_starts))]
    assert np.array_equal(rows.by_block(values), wanted)
    stretches = list(rows.stretches(most_rows=17))
    assert np.array_equal(
        np.concatenate([np.arange(one.start, one.stop) for one, _ in stretches]), np.arange(rows.num_rows)
    )
    for stretch, of in stretches:
        assert set(blocks[stretch]) == set(range(of.start, of.stop))


@pytest.mark.parametrize(
    ("labels", "more", "error", "told"),
    [
        (None, {"max_rows": 5}, ConfigError, "--max-rows: 5 is too few"),
        (False, {}, DataError, "rows without a label"),
        (True, {}, DataError, "0 of the 5000 rows studied are positive"),
        (None, {"columns": ["C9"]}, DataError, "kept no column 'C9' \\(kept: C1\\)"),
    ],
)
def test_refused(labels: bool | None, more: dict, error: type, told: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=told):
        read_study_rows(folder(tmp_path, labels=labels), **{"max_rows": NUM_ROWS} | more)


def test_a_logit_that_is_no_number_is_refused(tmp_path: Path) -> None:
    broken = np.where(np.arange(300) == 205, np.nan, 0.0)
    logits = {"a": np.zeros(300), "b": broken}
    made = made_predictions(tmp_path, np.arange(300) % 2, logits, figures=False)
    with pytest.raises(DataError, match="b holds values that are not finite"):
        read_study_rows(Predictions(made), max_rows=300)


def test_members_that_are_the_same_bit_for_bit_are_found(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    one, other = draw.normal(size=(2, 300))
    near = one.copy()
    near[7] += 1e-3
    logits = {"a": one, "b": other, "c": one, "d": near, "e": other, "f": one}
    made = made_predictions(tmp_path, draw.integers(0, 2, 300), logits)
    rows = read_study_rows(Predictions(made), max_rows=300)
    assert rows.same_members() == [["a", "c", "f"], ["b", "e"]]


def test_only_integers_and_texts_can_be_sliced(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    price = draw.normal(size=300)
    count = np.where(price > 0, np.nan, 7.0)  # whole numbers, some missing
    kept = {"price": price, "count": count}
    made = made_predictions(tmp_path, draw.integers(0, 2, 300), {"a": draw.normal(size=300)}, kept=kept)
    with pytest.raises(DataError, match="column 'price'.*only integers or texts can be sliced or grouped"):
        read_study_rows(Predictions(made), max_rows=300, columns=["price"])
    found = read_study_rows(Predictions(made), max_rows=300, columns=["count"]).columns["count"]
    assert set(found) == {"7", None} and np.array_equal(found == "7", price <= 0)
