"""Folders of TorchRec's and MLPerf's tools, adopted by writing a manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torchrec.datasets.criteo import BinaryCriteoUtils, InMemoryBinaryCriteoIterDataPipe

from configs.errors import DataError
from tests.support.click_log import synthetic_lines, write_log
from trainer.data.manifest import DataManifest
from trainer.data.mlperf import MAX_TABLE_ROWS, TABLE_ROWS
from trainer.data.preparing.adoption import adopt, num_rows_to_look_at
from trainer.data.reading.source import PreparedSource


@pytest.fixture
def torchrec_folder(tmp_path: Path) -> Path:
    """Two days, 60 and 41 rows, as TorchRec's own scripts write them: ids of 64 bits."""
    raw, folder = tmp_path / "raw", tmp_path / "npy"
    folder.mkdir()
    raw.mkdir()
    for day, num_rows in enumerate((60, 41)):
        log = write_log(tmp_path / f"day_{day}.tsv", synthetic_lines(num_rows, seed=day))
        BinaryCriteoUtils.tsv_to_npys(
            log,
            str(folder / f"day_{day}_dense.npy"),
            str(raw / f"day_{day}_sparse.npy"),
            str(folder / f"day_{day}_labels.npy"),
        )
    sparse = [str(raw / f"day_{day}_sparse.npy") for day in range(2)]
    BinaryCriteoUtils.sparse_to_contiguous(
        sparse, str(folder), frequency_threshold=0, output_file_suffix="_contig_freq.npy"
    )
    return folder


def rows_of(root: Path, part: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Dense, ids [N, F] and labels of a part, through the loader."""
    source = PreparedSource(root=str(root), parts=[part])
    rows = source.read(range(source.num_rows))
    return rows.dense, rows.values.reshape(-1, source.num_rows).T, rows.labels


def test_a_folder_of_torchrec_is_read_as_it_is(torchrec_folder: Path) -> None:
    looked_at: list[int] = []
    manifest = adopt(str(torchrec_folder), tell=looked_at.append)
    assert sum(looked_at) == 101
    assert [(part.name, part.num_rows) for part in manifest.parts] == [("day_0", 60), ("day_1", 41)]
    assert DataManifest.read(str(torchrec_folder)) == manifest
    wide = np.load(torchrec_folder / "day_1_sparse_contig_freq.npy")
    assert wide.dtype == np.int64  # what the tools of today write; the loader's copy has 32 bits
    dense, ids, labels = rows_of(torchrec_folder, "day_1")
    np.testing.assert_array_equal(ids, wide)
    np.testing.assert_array_equal(dense, np.load(torchrec_folder / "day_1_dense.npy"))
    np.testing.assert_array_equal(labels, np.load(torchrec_folder / "day_1_labels.npy")[:, 0])
    both = np.concatenate([wide, np.load(torchrec_folder / "day_0_sparse_contig_freq.npy")])
    assert [feature.rows for feature in manifest.id_features] == (both.max(axis=0) + 1).tolist()
    with pytest.raises(DataError, match="already"):
        adopt(str(torchrec_folder))


def test_the_last_day_is_cut_where_torchrec_cuts_it(torchrec_folder: Path) -> None:
    manifest = adopt(str(torchrec_folder), last_in_halves=True)
    assert [(part.name, part.num_rows) for part in manifest.parts] == [
        ("day_0", 60),
        ("day_1_val", 21),
        ("day_1_test", 20),
    ]
    paths = [str(torchrec_folder / f"day_1_{role}.npy") for role in ("dense", "sparse_contig_freq_int32", "labels")]
    for stage in ("val", "test"):
        theirs = InMemoryBinaryCriteoIterDataPipe(
            stage, [paths[0]], [paths[1]], [paths[2]], batch_size=1, rank=0, world_size=1
        )
        dense, ids, labels = rows_of(torchrec_folder, f"day_1_{stage}")
        np.testing.assert_array_equal(ids, theirs.sparse_arrs[0])
        np.testing.assert_array_equal(dense, theirs.dense_arrs[0])
        np.testing.assert_array_equal(labels, theirs.labels_arrs[0][:, 0])
        assert manifest.part(f"day_1_{stage}").label_sum == int(labels.sum())


def write_bags(
    folder: Path, name: str, *, num_rows: int, sizes: tuple[int, ...], packed: bool = False
) -> list[np.ndarray]:
    """A day as MLPerf's materialising script leaves it."""
    folder.mkdir(exist_ok=True)
    draw = np.random.default_rng(num_rows)
    bags = [draw.integers(0, 50, (num_rows, size), dtype=np.int32) for size in sizes]
    save = np.savez_compressed if packed else np.savez
    save(folder / f"{name}_sparse_multi_hot.npz", **{str(number): bag for number, bag in enumerate(bags)})
    np.save(folder / f"{name}_dense.npy", draw.random((num_rows, 13), dtype=np.float32))
    np.save(folder / f"{name}_labels.npy", draw.integers(0, 2, (num_rows, 1), dtype=np.int32))
    return bags


def test_materialised_bags_of_mlperf(tmp_path: Path) -> None:
    sizes = (3, 1, 5)
    bags = write_bags(tmp_path / "bags", "day_23", num_rows=11, sizes=sizes)
    assert num_rows_to_look_at(str(tmp_path / "bags")) == 33
    manifest = adopt(str(tmp_path / "bags"), table_rows=(50, 60, 70))
    assert [(feature.kind, feature.bag_size, feature.rows) for feature in manifest.id_features] == [
        ("bag", 3, 50),
        ("bag", 1, 60),
        ("bag", 5, 70),
    ]
    source = PreparedSource(root=str(tmp_path / "bags"), parts=["day_23"])
    rows = source.read(np.array([4, 0, 10]))
    np.testing.assert_array_equal(rows.values, np.concatenate([bag[[4, 0, 10]].reshape(-1) for bag in bags]))
    np.testing.assert_array_equal(rows.lengths, sizes)


def test_days_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for day in (10, 2, 0):
        write_bags(tmp_path / "bags", f"day_{day}", num_rows=3, sizes=(2,))
    assert [part.name for part in adopt(str(tmp_path / "bags")).parts] == ["day_0", "day_2", "day_10"]


def test_a_test_set_of_filler_labels_has_no_labels(tmp_path: Path) -> None:
    write_bags(tmp_path / "bags", "test", num_rows=4, sizes=(2,))
    np.save(tmp_path / "bags" / "test_labels.npy", np.full((4, 1), -1, np.int32))
    (part,) = adopt(str(tmp_path / "bags")).parts
    assert part.label_sum is None and "labels" not in part.files


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: (folder / "day_0_labels.npy").unlink(), "part day_0 has no labels file"),
        (lambda folder: (folder / "day_0_sparse_multi_hot.npz").write_bytes(b"PK"), "not a whole npz archive"),
        (lambda folder: write_bags(folder, "day_1", num_rows=3, sizes=(2, 2)), "in folders of their own"),
        (lambda folder: write_bags(folder, "day_0", num_rows=3, sizes=(2, 3), packed=True), "compressed"),
        (lambda folder: np.save(folder / "day_0_sparse.npy", np.zeros((3, 2), np.int32)), "both the sparse file"),
        (lambda folder: np.savez(folder / "day_0_sparse_multi_hot.npz", a=np.zeros((3, 2), np.int32)), "'0' to '0'"),
    ],
)
def test_what_cannot_be_adopted_is_named(spoil: object, sentence: str, tmp_path: Path) -> None:
    write_bags(tmp_path / "bags", "day_0", num_rows=3, sizes=(2, 3))
    spoil(tmp_path / "bags")  # type: ignore[operator]
    with pytest.raises(DataError, match=sentence):
        adopt(str(tmp_path / "bags"))
    assert not (tmp_path / "bags" / "manifest.json").exists()


def test_ids_outside_the_given_tables(tmp_path: Path) -> None:
    write_bags(tmp_path / "bags", "day_0", num_rows=30, sizes=(2, 3))
    with pytest.raises(DataError, match="outside its table of 40 rows"):
        adopt(str(tmp_path / "bags"), table_rows=(50, 40))
    with pytest.raises(DataError, match="3 numbers for 2 features"):
        adopt(str(tmp_path / "bags"), table_rows=(50, 50, 50))
    with pytest.raises(DataError, match="no PART_dense.npy"):
        adopt(str(tmp_path))


def test_the_sizes_of_mlperf() -> None:
    assert len(TABLE_ROWS) == 26 and sum(TABLE_ROWS) == 204_184_588 and max(TABLE_ROWS) == MAX_TABLE_ROWS
