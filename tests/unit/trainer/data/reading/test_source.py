"""Row sources: rows by number over parts, and a sentence with feature, row and file for each thing that is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from configs.errors import DataError
from tests.unit.trainer.data.prepared import (
    DENSE_NAMES,
    MIXED_FEATURES,
    TABLE_ROWS,
    folder_of,
    mixed_arrays,
    mixed_folder,
    part_arrays,
    prepared_folder,
)
from trainer.data.manifest import DataManifest
from trainer.data.reading.bags import BagExpander
from trainer.data.reading.batch import Rows
from trainer.data.reading.source import PreparedSource

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
    arrays = (rows.dense, rows.values, rows.labels, rows.part, rows.row)
    assert [array.dtype for array in arrays] == [np.float32, np.int32, np.float32, np.int32, np.int64]
    assert rows.lengths.tolist() == [1, 1, 1]


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


def bags_of(rows: Rows) -> dict[str, list[list[int]]]:
    """Feature -> the bag of each row, spelled out."""
    names = [feature.name for feature in MIXED_FEATURES if feature.kind in ("id", "bag")]
    lengths = rows.lengths
    if lengths.ndim == 1:
        lengths = np.repeat(lengths[:, None], len(rows), axis=1)
    ends = np.cumsum(lengths.reshape(-1))
    bags = [bag.tolist() for bag in np.split(rows.values, ends[:-1])]
    return {name: bags[place * len(rows) : (place + 1) * len(rows)] for place, name in enumerate(names)}


def expected_bags(arrays: Mapping[str, np.ndarray], row: int) -> dict[str, list[int]]:
    begin, end = arrays["genres_offsets"][row : row + 2]
    expanded = np.empty((1, 4), dtype=np.int32)
    BagExpander(feature="E1", bag_size=4, table_rows=1_000).expand(arrays["sparse"][row : row + 1, 0], expanded)
    return {
        "C1": [arrays["sparse"][row, 1]],
        "genres": arrays["genres_values"][begin:end].tolist(),
        "E1": expanded[0].tolist(),
        "N1": [arrays["numeric_ids"][row, 0]],
        "M1": arrays["M1"][row].tolist(),
    }


MIXED = {"a": mixed_arrays(11, seed=1), "none": mixed_arrays(0, seed=2), "b": mixed_arrays(8, seed=3)}


@pytest.mark.parametrize(
    "asked",
    [range(19), range(3, 9), range(10, 13), range(5, 5), [18, 0, 11, 10, 3, 3], [4], [], [12, 11], list(range(19))],
    ids=str,
)
@pytest.mark.parametrize("parts", [["a", "none", "b"], ["a"]], ids=str)
def test_every_kind_of_feature_is_read(tmp_path: Path, parts: list[str], asked: Sequence[int]) -> None:
    source = PreparedSource(root=mixed_folder(tmp_path / "data", MIXED), parts=parts)
    whole = [(name, row) for name in parts for row in range(len(MIXED[name]["labels"]))]
    asked = range(min(asked.stop, len(whole))) if isinstance(asked, range) and len(parts) == 1 else asked
    asked = asked if isinstance(asked, range) else [row % len(whole) for row in asked]
    rows = source.read(asked if isinstance(asked, range) else np.array(asked, dtype=np.int64))
    assert len(rows) == len(asked)
    found = bags_of(rows)
    assert list(source.features.table_rows.items()) == [
        ("C1", 20),
        ("genres", 50),
        ("E1", 1_000),
        ("N1", 9),
        ("M1", 30),
    ]
    for place, number in enumerate(asked):
        name, row = whole[number]
        arrays = MIXED[name]
        assert {feature: bags[place] for feature, bags in found.items()} == expected_bags(arrays, row)
        assert rows.dense[place].tolist() == arrays["dense"][row].tolist()
        assert rows.labels[place] == arrays["labels"][row, 0]
        assert rows.weights is not None and rows.weights[place] == arrays["weights"][row, 0]
        assert (rows.part[place], rows.row[place]) == (parts.index(name), row)
    for array in (rows.dense, rows.values, rows.labels, rows.weights, rows.part):
        assert array is not None and array.flags.writeable, "torch warns of memory that must not be written"


def test_a_folder_without_dense_features(tmp_path: Path) -> None:
    arrays = {role: MIXED["a"][role] for role in ("sparse", "labels")}
    features = [feature for feature in MIXED_FEATURES if feature.name == "C1"]
    source = PreparedSource(root=folder_of(tmp_path / "data", {"a": arrays}, features=features), parts=["a"])
    rows = source.read(range(4))
    assert rows.dense.shape == (4, 0)
    assert rows.weights is None
    assert rows.ids[:, 0].tolist() == arrays["sparse"][:4, 1].tolist()


def test_rows_can_be_fetched_whatever_they_hold(tmp_path: Path) -> None:
    source = PreparedSource(root=mixed_folder(tmp_path / "data", MIXED), parts=list(MIXED))
    for rows in (range(19), range(5, 5), range(10, 12), range(19, 30)):
        source.fetch(rows)


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("C2", {"kind": "bag"}, "of kind 'bag' lies in file 'sparse', which holds no bags"),
        (
            "C2",
            {"kind": "bag", "file": "labels", "bag_size": 2},
            "of kind 'bag' lies in file 'labels', which holds no bags",
        ),
        ("I2", {"kind": "weight"}, "of kind 'weight' lies in file 'dense', but it is read from 'weights' alone"),
        (
            "C2",
            {"file": "lists"},
            "of kind 'id' lies in file 'lists', but it is read from 'sparse' or 'numeric_ids' alone",
        ),
        ("I2", {"file": "sparse"}, "of kind 'dense' lies in file 'sparse', but it is read from 'dense' alone"),
        ("C2", {"rows": None}, "of kind 'id': its table has None rows in the manifest"),
        ("C2", {"kind": "bag", "bag_size": 0}, "of kind 'bag': bag_size is 0 in the manifest"),
    ],
)
def test_features_that_lie_where_they_cannot(root: str, name: str, change: dict[str, str], problem: str) -> None:
    manifest = DataManifest.read(root)
    features = tuple(
        dataclasses.replace(feature, **change) if feature.name == name else feature  # type: ignore[arg-type]
        for feature in manifest.features
    )
    dataclasses.replace(manifest, features=features).write(root)
    assert refusal(lambda: PreparedSource(root=root, parts=["day_0"])) == (
        f"{root}: feature {name} {problem}; prepare the folder again"
    )


def changed(tmp_path: Path, role: str, array: np.ndarray | None) -> str:
    arrays = dict(MIXED["a"])
    if array is None:
        del arrays[role]
    else:
        arrays[role] = array
    return mixed_folder(tmp_path / "data", {"a": arrays})


def test_a_role_that_a_part_does_not_have(tmp_path: Path) -> None:
    root = changed(tmp_path, "numeric_ids", None)
    assert refusal(lambda: PreparedSource(root=root, parts=["a"])) == (
        f"{root}: part a has no file 'numeric_ids' in the manifest; prepare the folder again"
    )


def test_a_stored_bag_of_another_size_would_lose_ids(tmp_path: Path) -> None:
    root = changed(tmp_path, "M1", np.zeros((11, 4), dtype=np.int32))
    assert refusal(lambda: PreparedSource(root=root, parts=["a"])) == (
        f"{root}/a_M1.npz[0]: holds int32 [11, 4], not int32 of 3 columns; prepare the folder again"
    )


def test_offsets_and_values_belong_together(tmp_path: Path) -> None:
    values = MIXED["a"]["genres_values"]
    root = changed(tmp_path, "genres_values", values[:-1])
    assert refusal(lambda: PreparedSource(root=root, parts=["a"])) == (
        f"{root}/a_genres_offsets.npy: runs from 0 to {len(values)}, but {root}/a_genres_values.npy holds"
        f" {len(values) - 1} ids; prepare the folder again"
    )
