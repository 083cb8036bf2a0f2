"""Row sources: rows by number over parts, and a sentence with feature, row and file for each thing that is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from configs.errors import ConfigError, DataError
from configs.schema import Data, Synthetic
from tests.unit.trainer.data.prepared import DENSE_NAMES, TABLE_ROWS, PartArrays, part_arrays, prepared_folder
from trainer.data.batch import Rows
from trainer.data.manifest import DataManifest
from trainer.data.source import PreparedSource, SyntheticSource, open_scoring_source, open_sources
from trainer.data.teacher import Teacher

PARTS = {"day_0": part_arrays(7, seed=1), "day_1": part_arrays(0), "day_2": part_arrays(5, seed=2)}


@pytest.fixture
def root(tmp_path: Path) -> str:
    return prepared_folder(tmp_path / "data", PARTS)


def refusal(make: Callable[[], object]) -> str:
    with pytest.raises(DataError) as refused:
        make()
    return str(refused.value)


def test_rows_come_by_number_over_the_parts_in_the_order_asked_for(root: str) -> None:
    source = PreparedSource(root=root, parts=["day_0", "day_1", "day_2"])
    assert source.num_rows == 12
    wanted = np.array([11, 0, 7, 6, 7], dtype=np.int64)
    rows = source.read(wanted)
    dense = np.concatenate([PARTS["day_0"].dense, PARTS["day_2"].dense])
    sparse = np.concatenate([PARTS["day_0"].sparse, PARTS["day_2"].sparse])
    labels = np.concatenate([PARTS["day_0"].labels, PARTS["day_2"].labels])[:, 0]
    assert np.array_equal(rows.dense, dense[wanted])
    assert np.array_equal(rows.ids, sparse[wanted])
    assert np.array_equal(rows.labels, labels[wanted])
    assert rows.part.tolist() == [2, 0, 2, 0, 2]
    assert rows.row.tolist() == [4, 0, 0, 6, 0]
    assert [array.dtype for array in dataclasses.astuple(rows)] == [
        np.float32,
        np.int32,
        np.float32,
        np.int32,
        np.int64,
    ]


def test_the_order_of_the_parts_is_the_one_given(root: str) -> None:
    source = PreparedSource(root=root, parts=["day_2", "day_0"])
    assert [part.name for part in source.parts] == ["day_2", "day_0"]
    assert np.array_equal(source.read(np.array([0])).dense, PARTS["day_2"].dense[:1])


def test_no_rows_may_be_read(root: str) -> None:
    rows = PreparedSource(root=root, parts=["day_0"]).read(np.empty(0, dtype=np.int64))
    assert (rows.dense.shape, rows.ids.shape, len(rows)) == ((0, 2), (0, 3), 0)


def test_features_are_those_of_the_manifest(root: str) -> None:
    features = PreparedSource(root=root, parts=["day_0"]).features
    assert features.dense_names == DENSE_NAMES
    assert features.table_rows == TABLE_ROWS
    assert features.dictionary == "d1"


def test_columns_are_found_by_the_manifest(root: str) -> None:
    manifest = DataManifest.read(root)
    swapped = {"C1": 2, "C3": 0, "I1": 1, "I2": 0}
    features = tuple(
        dataclasses.replace(feature, column=swapped.get(feature.name, feature.column)) for feature in manifest.features
    )
    dataclasses.replace(manifest, features=features).write(root)
    source = PreparedSource(root=root, parts=["day_0"])
    source.features = dataclasses.replace(source.features, table_rows=dict.fromkeys(TABLE_ROWS, 100))
    rows = source.read(np.arange(7))
    assert np.array_equal(rows.ids, PARTS["day_0"].sparse[:, [2, 1, 0]])
    assert np.array_equal(rows.dense, PARTS["day_0"].dense[:, [1, 0]])


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("C2", {"kind": "bag"}, "is of kind 'bag', which is not implemented yet"),
        ("I2", {"kind": "weight"}, "is of kind 'weight', which is not implemented yet"),
        ("C2", {"file": "lists"}, "lies in file 'lists'; id features are read from 'sparse' alone so far"),
        ("C2", {"file": "dense"}, "lies in file 'dense'; id features are read from 'sparse' alone so far"),
        ("I2", {"file": "sparse"}, "lies in file 'sparse'; dense features are read from 'dense' alone so far"),
    ],
)
def test_features_that_are_not_read_yet_are_refused(root: str, name: str, change: dict[str, str], problem: str) -> None:
    manifest = DataManifest.read(root)
    features = tuple(
        dataclasses.replace(feature, **change) if feature.name == name else feature  # type: ignore[arg-type]
        for feature in manifest.features
    )
    dataclasses.replace(manifest, features=features).write(root)
    for make in (
        lambda: PreparedSource(root=root, parts=["day_0"]),
        lambda: open_scoring_source(Data(root=root), parts=[]),
    ):
        assert refusal(make) == f"{root}: feature {name} {problem}"


def test_a_missing_part(root: str) -> None:
    assert refusal(lambda: PreparedSource(root=root, parts=["day_9"])) == (
        "no part 'day_9' in the prepared folder, which has day_0, day_1, day_2;"
        " correct data.train, data.valid or score.parts"
    )


@pytest.mark.parametrize("role", ["dense", "sparse", "labels"])
def test_a_missing_file(root: str, role: str) -> None:
    path = Path(root) / f"day_0_{role}.npy"
    path.unlink()
    assert refusal(lambda: PreparedSource(root=root, parts=["day_0"])) == (
        f"{path}: the manifest names this file, but it is not there; prepare the folder again"
    )


@pytest.mark.parametrize("keep", [0, 40, -1])
def test_a_truncated_file(root: str, keep: int) -> None:
    path = Path(root) / "day_0_sparse.npy"
    path.write_bytes(path.read_bytes()[:keep])
    sentence = refusal(lambda: PreparedSource(root=root, parts=["day_0"]))
    assert sentence.startswith(f"{path}: not a whole npy file (")
    assert sentence.endswith("); prepare the folder again")


def test_a_file_of_other_rows(root: str) -> None:
    path = Path(root) / "day_0_labels.npy"
    np.save(path, PARTS["day_0"].labels[:6])
    assert refusal(lambda: PreparedSource(root=root, parts=["day_0"])) == (
        f"{path}: 6 rows, but the manifest says 7; prepare the folder again"
    )


@pytest.mark.parametrize(
    ("role", "array", "found"),
    [
        ("sparse", np.zeros((7, 2), np.int32), "holds int32 [7, 2], not int32 of 3 columns"),
        # Cut to 32 bits this id would be 5, a valid one.
        ("sparse", np.full((7, 3), 2**32 + 5, np.int64), "holds int64 [7, 3], not int32 of 3 columns"),
        ("sparse", np.full((7, 3), 1.7, np.float32), "holds float32 [7, 3], not int32 of 3 columns"),
        ("dense", np.zeros((7, 2), np.float64), "holds float64 [7, 2], not float32 of 2 columns"),
        ("dense", np.zeros(7, np.float32), "holds float32 [7], not float32 of 2 columns"),
        ("labels", np.zeros(7, np.int32), "holds int32 [7], not int32 of 1 columns"),
        ("labels", np.int32(3), "holds int32 [], not int32 of 1 columns"),
    ],
)
def test_a_file_of_another_shape_or_type(root: str, role: str, array: np.ndarray, found: str) -> None:
    path = Path(root) / f"day_0_{role}.npy"
    np.save(path, array)
    assert refusal(lambda: PreparedSource(root=root, parts=["day_0"])) == f"{path}: {found}; prepare the folder again"


def test_an_archive_in_place_of_a_file(root: str) -> None:
    path = Path(root) / "day_0_dense.npy"
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(7), b=np.zeros(7))
    assert refusal(lambda: PreparedSource(root=root, parts=["day_0"])) == (
        f"{path}: not a whole npy file (an archive of several arrays); prepare the folder again"
    )


def with_value(tmp_path: Path, role: str, row: int, column: int, value: float) -> str:
    arrays = PartArrays(**{name: getattr(PARTS["day_2"], name).copy() for name in ("dense", "sparse", "labels")})
    getattr(arrays, role)[row, column] = value
    return prepared_folder(tmp_path / "bad", {"day_0": PARTS["day_0"], "day_2": arrays})


@pytest.mark.parametrize(
    ("role", "column", "value", "sentence"),
    [
        ("sparse", 1, 100, "feature C2, row 3: id 100 is outside its table of 100 rows (ids run from 0 to 99)"),
        ("sparse", 0, -1, "feature C1, row 3: id -1 is outside its table of 10 rows (ids run from 0 to 9)"),
        ("sparse", 2, 4, "feature C3, row 3: id 4 is outside its table of 4 rows (ids run from 0 to 3)"),
        ("dense", 1, np.nan, "row 3: dense feature I2 is nan"),
        ("dense", 0, -np.inf, "row 3: dense feature I1 is -inf"),
        ("labels", 0, 2, "row 3: label 2 is not 0 or 1"),
        ("labels", 0, -1, "row 3: label -1 is not 0 or 1"),
    ],
)
def test_a_value_that_cannot_be_is_named(tmp_path: Path, role: str, column: int, value: float, sentence: str) -> None:
    root = with_value(tmp_path, role, 3, column, value)
    source = PreparedSource(root=root, parts=["day_0", "day_2"])
    source.read(np.array([0, 6, 7, 9]))  # rows beside it are fine
    path = Path(root) / f"day_2_{role}.npy"
    # The number is of the part, not of the source or of what was asked for.
    assert refusal(lambda: source.read(np.array([0, 11, 10]))) == f"{path}: {sentence}; prepare the folder again"


def test_the_largest_and_smallest_id_are_fine(tmp_path: Path) -> None:
    for value in (0, 99):
        source = PreparedSource(root=with_value(tmp_path, "sparse", 3, 1, value), parts=["day_2"])
        assert source.read(np.arange(5)).ids[3, 1] == value


def test_the_synthetic_stream_is_the_teachers_rows() -> None:
    teacher = Teacher(seed=3, max_table_rows=50)
    source = SyntheticSource(teacher=teacher, name="held_out", first_row=100, num_rows=20)
    assert source.num_rows == 20
    rows: Rows = source.read(np.array([5, 0], dtype=np.int64))
    made = teacher.rows(np.array([105, 100], dtype=np.int64))
    assert np.array_equal(rows.ids, made.ids) and np.array_equal(rows.dense, made.dense)
    assert rows.labels.tolist() == made.label.tolist()
    assert rows.row.tolist() == [5, 0]
    assert source.teacher_rows().tolist() == list(range(100, 120))
    assert (rows.ids < np.array(list(source.features.table_rows.values()))).all()


def test_without_a_folder_training_and_held_out_rows_follow_each_other() -> None:
    sources = open_sources(Data(synthetic=Synthetic(train_rows=30, valid_rows=12, max_table_rows=50)))
    assert isinstance(sources.train, SyntheticSource) and isinstance(sources.valid, SyntheticSource)
    assert sources.train.teacher_rows().tolist() == list(range(30))
    assert sources.valid.teacher_rows().tolist() == list(range(30, 42))
    assert sources.valid.features == sources.train.features
    scored = open_scoring_source(Data(synthetic=Synthetic(train_rows=30, valid_rows=12, max_table_rows=50)), parts=[])
    assert isinstance(scored, SyntheticSource)
    assert scored.teacher_rows().tolist() == list(range(30, 42))


def test_a_folders_parts_are_opened_as_named(root: str) -> None:
    sources = open_sources(Data(root=root, train=("day_2",), valid=("day_0", "day_1")))
    assert sources.train.num_rows == 5
    assert sources.valid is not None and sources.valid.num_rows == 7
    assert open_sources(Data(root=root, train=("day_2",))).valid is None


def test_training_needs_a_folder_and_its_parts(root: str) -> None:
    no_parts = "data.train: empty; name at least one part of data.root to train on"
    no_folder = "data.root: empty, but data.train or data.valid name parts; give the prepared folder"
    for data, sentence in (
        (Data(root=root), no_parts),
        (Data(root=root, valid=("day_0",)), no_parts),
        (Data(train=("day_0",)), no_folder),
        (Data(valid=("day_0",)), no_folder),
    ):
        with pytest.raises(ConfigError) as refused:
            open_sources(data)
        assert str(refused.value) == sentence


def test_a_folder_is_scored_although_nothing_was_trained_on_it(root: str) -> None:
    assert open_scoring_source(Data(root=root), parts=["day_2"]).num_rows == 5


def test_the_stream_has_no_parts_to_score() -> None:
    with pytest.raises(ConfigError) as refused:
        open_scoring_source(Data(), parts=["day_1", "day_2"])
    assert str(refused.value) == ("score.parts: the synthetic stream has no part 'day_1'; give data.root or no parts")


def test_parts_without_rows_are_refused(root: str) -> None:
    assert refusal(lambda: open_sources(Data(root=root, train=("day_1",)))) == (
        "data.train: its parts hold no rows; name parts that do"
    )
    assert refusal(lambda: open_sources(Data(root=root, train=("day_0",), valid=("day_1",)))) == (
        "data.valid: its parts hold no rows; name parts that do"
    )
    assert refusal(lambda: open_scoring_source(Data(root=root, train=("day_0",)), parts=["day_1"])) == (
        f"{root}: its parts day_1 hold no rows; name parts in score.parts that do"
    )


def test_scoring_takes_every_part_unless_some_are_named(root: str) -> None:
    data = Data(root=root, train=("day_0",))
    assert [part.name for part in open_scoring_source(data, parts=[]).parts] == ["day_0", "day_1", "day_2"]
    assert [part.name for part in open_scoring_source(data, parts=["day_2"]).parts] == ["day_2"]
