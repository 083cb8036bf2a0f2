"""Reading predictions: columns in the order of the rows, whole, by chunk and by part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from configs.errors import DataError
from tests.support.made_predictions import made_predictions
from trainer.predictions.manifest import MANIFEST_NAME, PredictionManifest
from trainer.predictions.reading import Predictions

DRAW = np.random.default_rng(5)
LABELS = DRAW.integers(0, 2, 25)
LOGITS = {name: DRAW.normal(size=25).astype(np.float32) for name in ("deep", "solo")}
PARTS = {"b": 15, "a": 10}


def made(folder: Path, **options: object) -> str:
    return made_predictions(folder, LABELS, LOGITS, parts=PARTS, range_rows=10, **options)


def test_columns_come_in_the_order_of_the_rows(tmp_path: Path) -> None:
    found = Predictions(made(tmp_path, kept={"C1": np.arange(25)}))
    assert (found.members, found.num_rows, found.has_labels) == (("deep", "solo"), 25, True)
    assert found.column("part").tolist() == ["b"] * 15 + ["a"] * 10
    assert found.column("row").tolist() == [*range(15), *range(10)]
    np.testing.assert_array_equal(found.labels(), LABELS)
    assert found.labels().dtype == np.int8
    np.testing.assert_array_equal(found.logits(), np.stack(list(LOGITS.values()), axis=1))
    assert found.column("C1").tolist() == list(range(25))
    merged = 1 / (1 + np.exp(-np.mean([values.astype(np.float64) for values in LOGITS.values()], axis=0)))
    np.testing.assert_allclose(found.merged(), merged, rtol=1e-6)


def test_chunks_are_the_files(tmp_path: Path) -> None:
    chunks = list(Predictions(made(tmp_path)).chunks(["row", "logit_solo"]))
    assert [chunk["row"].tolist() for chunk in chunks] == [[*range(10)], [*range(10, 15)], [*range(10)]]
    np.testing.assert_array_equal(np.concatenate([chunk["logit_solo"] for chunk in chunks]), LOGITS["solo"])


def test_one_part_alone(tmp_path: Path) -> None:
    found = Predictions(made(tmp_path), parts=["a"])
    assert found.num_rows == 10
    np.testing.assert_array_equal(found.column("logit_deep"), LOGITS["deep"][15:])
    with pytest.raises(DataError, match="has no part 'c'; its parts are b, a"):
        Predictions(str(tmp_path), parts=["c"])


def test_halves_are_read_as_float32(tmp_path: Path) -> None:
    found = Predictions(made(tmp_path, dtype="float16"))
    assert found.logits().dtype == np.float32
    np.testing.assert_array_equal(found.column("logit_deep"), LOGITS["deep"].astype(np.float16).astype(np.float32))


def test_probabilities_are_those_of_the_logits(tmp_path: Path) -> None:
    found = Predictions(made(tmp_path))
    columns = found.probabilities()
    assert list(columns) == ["deep", "solo", "merged"]
    np.testing.assert_allclose(columns["solo"], 1 / (1 + np.exp(-LOGITS["solo"].astype(np.float64))), rtol=1e-14)
    np.testing.assert_allclose(columns["merged"], found.merged(), rtol=1e-6)
    merged = np.mean([values.astype(np.float64) for values in LOGITS.values()], axis=0)
    np.testing.assert_array_equal(found.merged_logits(), merged.astype(np.float32))


def test_probabilities_of_huge_logits_stay_probabilities(tmp_path: Path) -> None:
    made_predictions(tmp_path, [0, 1, 1], {"deep": np.array([-800.0, 0.0, 800.0])})
    with np.errstate(all="raise", under="ignore"):
        assert Predictions(str(tmp_path)).probabilities()["deep"].tolist() == [0.0, 0.5, 1.0]


def test_rows_without_labels_are_refused_where_labels_are_needed(tmp_path: Path) -> None:
    found = Predictions(made_predictions(tmp_path, None, LOGITS))
    assert not found.has_labels
    with pytest.raises(DataError, match="has rows without a label"):
        found.labels()


def test_a_manifest_that_is_not_written_yet(tmp_path: Path) -> None:
    manifest = PredictionManifest.read(made(tmp_path))
    (tmp_path / MANIFEST_NAME).unlink()
    assert Predictions(str(tmp_path), manifest=manifest).num_rows == 25
    with pytest.raises(DataError, match="holds no finished predictions"):
        Predictions(str(tmp_path))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    found = Predictions(made(tmp_path))
    with pytest.raises(DataError, match="has no column 'logit_x'; its columns should be part, row, label, logit_deep"):
        found.column("logit_x")
    path = tmp_path / found.files[1].path
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=f"{path} cannot be read"):
        found.column("row")
    path.unlink()
    with pytest.raises(DataError, match=f"{path} cannot be read"):
        found.column("row")


def rewrite(path: Path, name: str, values: list[object]) -> None:
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.column_names.index(name), name, [values]), path)


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("logit_solo", ["1.0"] * 5, "column 'logit_solo' holds string, not floating-point numbers"),
        ("logit_merged", [1] * 5, "column 'logit_merged' holds int64, not floating-point numbers"),
        ("label", ["0"] * 5, "column 'label' holds string, not int8 numbers"),
        ("row", [0.0] * 5, "column 'row' holds double, not int64 numbers"),
        ("part", [7] * 5, "column 'part' holds int64, not texts"),
        ("logit_solo", [1.0, None, 2.0, None, 3.0], "column 'logit_solo' is empty in 2 rows"),
    ],
)
def test_a_column_of_another_type_is_named(tmp_path: Path, name: str, values: list[object], told: str) -> None:
    found = Predictions(made(tmp_path))
    path = tmp_path / found.files[1].path
    rewrite(path, name, values)
    with pytest.raises(DataError) as refused:
        found.column(name)
    assert str(refused.value) == f"{path}: {told}; tools/verify_predictions.py says what else is wrong"


def test_another_number_of_rows_is_named(tmp_path: Path) -> None:
    found = Predictions(made(tmp_path))
    path = tmp_path / found.files[1].path
    pq.write_table(pq.read_table(path).slice(0, 4), path)
    with pytest.raises(DataError, match=f"{path} has 4 rows, 5 were written; tools/verify_predictions.py says"):
        found.logits()


@pytest.mark.parametrize("damage", ["byte", "longer", "gone"])
def test_bytes_are_compared_with_the_manifest(tmp_path: Path, damage: str) -> None:
    found, advanced = Predictions(made(tmp_path)), list[int]()
    found.check_bytes(advance=advanced.append)
    assert advanced == [10, 5, 10]
    path = tmp_path / found.files[1].path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content if damage == "byte" else content + b"more")
    if damage == "gone":
        path.unlink()
    with pytest.raises(DataError, match="cannot be read" if damage == "gone" else "not those that were") as refused:
        found.check_bytes()
    assert str(refused.value).startswith(str(path))
    Predictions(str(tmp_path), parts=["a"]).check_bytes()
