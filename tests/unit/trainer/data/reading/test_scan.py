"""The scan: each value that cannot be is named, at once or on another rank, and unchanged files are scanned once."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.errors import DataError
from tests.unit.trainer.data.prepared import PartArrays, mixed_arrays, mixed_folder, part_arrays, prepared_folder
from trainer.data.manifest import DataManifest
from trainer.data.reading import scan
from trainer.data.reading.opening import Alone
from trainer.data.reading.scan import CACHE_NAME, Check, check_values
from trainer.data.reading.source import PreparedSource

PARTS = {"day_0": part_arrays(7, seed=1), "day_1": part_arrays(0), "day_2": part_arrays(5, seed=2)}


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are looked at."""
    names: list[str] = []
    run = Check.run

    def noted(self: Check, first_row: int, last_row: int) -> Any:
        names.append(Path(self.file.path).name)
        return run(self, first_row, last_row)

    monkeypatch.setattr(Check, "run", noted)
    return names


def check(root: str, parts: Sequence[str] = ("day_0", "day_2")) -> None:
    check_values([PreparedSource(root=root, parts=parts)], ranks=Alone())


def refusal(make: Callable[[], object]) -> str:
    with pytest.raises(DataError) as refused:
        make()
    return str(refused.value)


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
    path = Path(root) / f"day_2_{role}.npy"
    for _ in range(2):  # a failed check is not kept
        assert refusal(lambda: check(root)) == f"{path}: {sentence}; prepare the folder again"
    check(root, ["day_0"])


@pytest.mark.parametrize("value", [0, 99])
def test_the_largest_and_smallest_id_are_fine(tmp_path: Path, value: int) -> None:
    check(with_value(tmp_path, "sparse", 3, 1, value), ["day_2"])


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 1_000])
@pytest.mark.parametrize("block_bytes", [1, 700, 1 << 20])
def test_a_bad_value_is_found_wherever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, block_bytes: int
) -> None:
    monkeypatch.setattr(scan, "_BLOCK_BYTES", block_bytes)
    for row in {0, rows // 2, rows - 1}:
        arrays = part_arrays(rows)
        arrays.sparse[row, 2] = 2**31 - 1
        root = prepared_folder(tmp_path / "data", {"day": arrays})
        assert f"feature C3, row {row}: id 2147483647 is outside" in refusal(lambda root=root: check(root, ["day"]))


def mixed(tmp_path: Path, **changes: np.ndarray) -> tuple[str, dict[str, np.ndarray]]:
    arrays = {**mixed_arrays(40, seed=5), **changes}
    return mixed_folder(tmp_path / "data", {"a": arrays}), arrays


def test_values_of_bags_are_named_by_their_row(tmp_path: Path) -> None:
    arrays = mixed_arrays(40, seed=5)
    values, offsets = arrays["genres_values"].copy(), arrays["genres_offsets"]
    row = int(np.flatnonzero(np.diff(offsets) > 1)[3])
    values[offsets[row + 1] - 1] = 50
    root, _ = mixed(tmp_path, genres_values=values)
    assert refusal(lambda: check(root, ["a"])) == (
        f"{root}/a_genres_values.npy: feature genres, row {row}: id 50 is outside its table of 50 rows (ids run from 0"
        " to 49); prepare the folder again"
    )


@pytest.mark.parametrize(
    ("role", "place", "value", "sentence"),
    [
        ("M1", (7, 2), 30, "feature M1, row 7: id 30 is outside its table of 30 rows (ids run from 0 to 29)"),
        ("numeric_ids", (7, 0), -5, "feature N1, row 7: id -5 is outside its table of 9 rows (ids run from 0 to 8)"),
        (
            "sparse",
            (7, 0),
            1_000,
            "feature E1, row 7: id 1000 is outside its table of 1000 rows (ids run from 0 to 999)",
        ),
        ("weights", (7, 0), -0.5, "row 7: weight -0.5 is not a finite number of at least 0"),
        ("weights", (7, 0), np.inf, "row 7: weight inf is not a finite number of at least 0"),
    ],
)
def test_every_kind_of_file_is_looked_at(
    tmp_path: Path, role: str, place: tuple[int, int], value: float, sentence: str
) -> None:
    array = mixed_arrays(40, seed=5)[role].copy()
    array[place] = value
    root, _ = mixed(tmp_path, **{role: array})
    path = f"{root}/a_{role}.npz[0]" if role == "M1" else f"{root}/a_{role}.npy"
    assert refusal(lambda: check(root, ["a"])) == f"{path}: {sentence}; prepare the folder again"


@pytest.mark.parametrize("block_bytes", [8, 1 << 20])
def test_offsets_that_go_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    monkeypatch.setattr(scan, "_BLOCK_BYTES", block_bytes)
    offsets = mixed_arrays(40, seed=5)["genres_offsets"].copy()
    offsets[20] = offsets[21] + 3
    root, _ = mixed(tmp_path, genres_offsets=offsets)
    assert refusal(lambda: check(root, ["a"])) == (
        f"{root}/a_genres_offsets.npy: row 20: its ids end at {offsets[21]}, before they begin at {offsets[20]};"
        " prepare the folder again"
    )


def test_files_are_scanned_once_while_they_stay(tmp_path: Path, scanned: list[str]) -> None:
    root = prepared_folder(tmp_path / "data", PARTS)
    check(root, ["day_0"])
    assert sorted(scanned) == ["day_0_dense.npy", "day_0_labels.npy", "day_0_sparse.npy"]
    check(root, ["day_0"])
    assert len(scanned) == 3
    check(root, ["day_0", "day_2"])  # only what is new
    assert sorted(scanned[3:]) == ["day_2_dense.npy", "day_2_labels.npy", "day_2_sparse.npy"]
    moved = tmp_path / "moved"
    Path(root).rename(moved)
    check(str(moved), ["day_0", "day_2"])
    assert len(scanned) == 6


def test_a_file_written_again_is_scanned_again(tmp_path: Path, scanned: list[str]) -> None:
    root = prepared_folder(tmp_path / "data", PARTS)
    check(root)
    scanned.clear()
    path = Path(root) / "day_2_sparse.npy"
    ids = PARTS["day_2"].sparse.copy()
    ids[0, 0] = 10
    before = path.stat()
    np.save(path, ids)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert "feature C1, row 0: id 10" in refusal(lambda: check(root))
    assert scanned == ["day_2_sparse.npy"]


def test_a_smaller_table_needs_another_scan(tmp_path: Path) -> None:
    root = prepared_folder(tmp_path / "data", PARTS)
    check(root)
    manifest = DataManifest.read(root)
    largest = int(PARTS["day_0"].sparse[:, 1].max())
    features = tuple(dataclasses.replace(f, rows=largest) if f.name == "C2" else f for f in manifest.features)
    dataclasses.replace(manifest, features=features).write(root)
    assert f"id {largest} is outside its table of {largest} rows" in refusal(lambda: check(root))


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"/day_0_dense.npy": 3}'])
def test_a_damaged_cache_costs_a_scan_and_nothing_else(tmp_path: Path, scanned: list[str], content: str) -> None:
    root = prepared_folder(tmp_path / "data", PARTS)
    (Path(root) / CACHE_NAME).write_text(content)
    check(root, ["day_0"])
    assert len(scanned) == 3
    check(root, ["day_0"])
    assert len(scanned) == 3


def no_writing_in(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write = scan.storage.write_text

    def refused(path: str, text: str) -> None:
        if path.startswith(root):
            raise PermissionError(13, "Read-only", path)
        write(path, text)

    monkeypatch.setattr(scan.storage, "write_text", refused)


def test_a_read_only_folder_is_remembered_elsewhere(
    tmp_path: Path, cache_home: Path, scanned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = prepared_folder(tmp_path / "data", PARTS)
    no_writing_in(root, monkeypatch)
    for _ in range(2):
        check(root, ["day_0"])
    assert len(scanned) == 3
    assert len(list((cache_home / "chorus").iterdir())) == 1
    assert not (Path(root) / CACHE_NAME).exists()


def test_where_nothing_can_be_written_nothing_is_remembered(
    tmp_path: Path, scanned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = prepared_folder(tmp_path / "data", PARTS)
    no_writing_in(str(tmp_path), monkeypatch)
    for _ in range(2):
        check(root, ["day_0"])
    assert len(scanned) == 6


class Team:
    """Ranks in threads, with what the scan needs of a Runtime."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self.barrier = threading.Barrier(world_size, timeout=20)
        self.box: list[Any] = [None] * world_size

    def member(self, rank: int) -> Member:
        return Member(self, rank)


class Member:
    def __init__(self, team: Team, rank: int) -> None:
        self.team, self.rank, self.world_size = team, rank, team.world_size
        self.said: list[str] = []

    def together(self, do: Callable[[], Any]) -> Any:
        self.team.box[self.rank] = None
        try:
            do()
        except DataError as error:
            self.team.box[self.rank] = error
        self.team.barrier.wait()
        found = next((error for error in self.team.box if error is not None), None)
        self.team.barrier.wait()
        if found is not None:
            raise found

    def from_main(self, make: Callable[[], Any]) -> Any:
        if self.rank == 0:
            self.team.box[0] = make()
        self.team.barrier.wait()
        made = self.team.box[0]
        self.team.barrier.wait()
        return made

    def say(self, text: str) -> None:
        self.said.append(text)


def check_as_a_team(root: str, world_size: int) -> list[DataError | None]:
    team = Team(world_size)
    found: list[DataError | None] = [None] * world_size

    def work(rank: int) -> None:
        try:
            check_values([PreparedSource(root=root, parts=["day"])], ranks=team.member(rank))
        except DataError as error:
            found[rank] = error

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_the_rows_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world_size: int) -> None:
    root = prepared_folder(tmp_path / "data", {"day": part_arrays(100)})
    seen: list[tuple[str, int, int]] = []
    run = Check.run

    def noted(self: Check, first_row: int, last_row: int) -> Any:
        seen.append((self.what, first_row, last_row))
        return run(self, first_row, last_row)

    monkeypatch.setattr(Check, "run", noted)
    assert check_as_a_team(root, world_size) == [None] * world_size
    for what in ("ids", "dense", "labels"):
        rows = [row for of, first, last in seen if of == what for row in range(first, last)]
        assert sorted(rows) == list(range(100)), "each row by one rank"
    assert check_as_a_team(root, world_size) == [None] * world_size
    assert len(seen) == 3 * world_size


@pytest.mark.parametrize("row", [0, 40, 99])
def test_what_one_rank_finds_every_rank_tells(tmp_path: Path, row: int) -> None:
    arrays = part_arrays(100)
    arrays.sparse[row, 0] = -7
    root = prepared_folder(tmp_path / "data", {"day": arrays})
    found = check_as_a_team(root, 3)
    assert {str(error) for error in found} == {
        f"{root}/day_sparse.npy: feature C1, row {row}: id -7 is outside its table of 10 rows (ids run from 0 to 9);"
        " prepare the folder again"
    }
    assert not (Path(root) / CACHE_NAME).exists()


def test_a_long_scan_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = prepared_folder(tmp_path / "data", {"day": part_arrays(50)})
    monkeypatch.setattr(scan, "_BLOCK_BYTES", 100)
    now = iter(range(10_000))
    monkeypatch.setattr(scan.time, "monotonic", lambda: float(next(now)))
    alone = Team(1).member(0)
    check_values([PreparedSource(root=root, parts=["day"])], ranks=alone)
    assert alone.said and all("ids outside their tables" in line and "ETA 0:" in line for line in alone.said)
    assert len(alone.said) < 12
