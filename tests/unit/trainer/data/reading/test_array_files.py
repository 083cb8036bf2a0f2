"""Array files: npy files and archive members are mapped as numpy reads them, damaged ones are refused."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from configs.errors import DataError
from trainer.data.reading.array_files import ArrayFile, ArrayShape, open_array

ARRAY = np.arange(60, dtype=np.int32).reshape(20, 3)
WIDE = ArrayShape(dtype=np.int32, num_columns=3)
SHAPE = ArrayShape(dtype=np.int32, num_rows=20, num_columns=3)


def opened(path: Path, member: str | None = None, shape: ArrayShape = SHAPE) -> ArrayFile:
    return open_array(str(path), member=member, shape=shape)


def refusal(make: Callable[[], object]) -> str:
    with pytest.raises(DataError) as refused:
        make()
    return str(refused.value)


def saved(tmp_path: Path, array: np.ndarray = ARRAY, name: str = "a.npy") -> Path:
    np.save(tmp_path / name, array)
    return tmp_path / name


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_a_file_is_what_numpy_wrote(tmp_path: Path, version: tuple[int, int]) -> None:
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        np.lib.format.write_array(file, ARRAY, version=version)
    file = opened(path)
    assert np.array_equal(file.array, ARRAY)
    assert not file.array.flags.writeable
    assert (file.path, file.num_bytes, file.mtime_ns) == (str(path), path.stat().st_size, path.stat().st_mtime_ns)
    assert file.row_bytes == 12


def test_members_of_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "bags.npz"
    np.savez(path, **{"0": ARRAY, "1": ARRAY[::-1], "lengthy_name": ARRAY * 2})
    for member, expected in (("0", ARRAY), ("1", ARRAY[::-1]), ("lengthy_name", ARRAY * 2)):
        file = opened(path, member)
        assert np.array_equal(file.array, expected)
        assert file.path == f"{path}[{member}]"
        file.fetch(3, 20)


def test_archives_that_cannot_be_mapped(tmp_path: Path) -> None:
    path = tmp_path / "bags.npz"
    np.savez_compressed(path, **{"0": ARRAY})
    again = "prepare the folder again"
    assert refusal(lambda: opened(path, "0")) == (
        f"{path}[0]: not a whole npy file (the archive is compressed; save it with numpy.savez); {again}"
    )
    np.savez(path, **{"0": ARRAY})
    assert refusal(lambda: opened(path, "7")) == (
        f"{path}[7]: not a whole npy file (the archive has no member '7'); {again}"
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert refusal(lambda: opened(path, "0")).startswith(f"{path}[0]: not a whole npy file (")
    assert refusal(lambda: opened(saved(tmp_path), "0")).startswith(f"{tmp_path}/a.npy[0]: not a whole npy file (")


@pytest.mark.parametrize("keep", [0, 3, 9, 60, -1])
def test_a_file_cut_off(tmp_path: Path, keep: int) -> None:
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    sentence = refusal(lambda: opened(path))
    assert sentence.startswith(f"{path}: not a whole npy file (") and sentence.endswith("prepare the folder again")


def test_arrays_that_would_be_read_wrongly(tmp_path: Path) -> None:
    assert "(in Fortran order; save it in C order)" in refusal(
        lambda: opened(saved(tmp_path, np.asfortranarray(ARRAY)))
    )
    assert "(an array of Python objects)" in refusal(lambda: opened(saved(tmp_path, ARRAY.astype(object))))


def test_empty_arrays(tmp_path: Path) -> None:
    file = opened(saved(tmp_path, ARRAY[:0]), shape=ArrayShape(dtype=np.int32, num_rows=0, num_columns=3))
    assert file.array.shape == (0, 3)
    file.fetch(0, 0)


class Libc:
    """A kernel that cannot fill mappings ahead."""

    def madvise(self, *_arguments: object) -> int:
        return -1


@pytest.mark.parametrize("libc", ["this machine's", None, Libc()], ids=["this machine", "none", "old"])
@pytest.mark.parametrize(("first", "last"), [(0, 400_000), (5, 6), (399_999, 400_000), (7, 7), (0, 10**9)])
def test_rows_can_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, libc: object, first: int, last: int
) -> None:
    if libc != "this machine's":
        monkeypatch.setattr("trainer.data.reading.array_files._libc", lambda: libc)
    file = opened(saved(tmp_path, np.arange(1_200_000, dtype=np.int32).reshape(-1, 3)), shape=WIDE)
    file.fetch(first, last)
    assert file.array[first : first + 1].tolist() == [[3 * first, 3 * first + 1, 3 * first + 2]]


@pytest.mark.parametrize("libc", ["this machine's", None], ids=["this machine", "none"])
def test_fetching_reads_what_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, libc: object) -> None:
    """Dropped from the system's cache, rows are in it again after fetching, and all others are not."""
    if libc is None:
        monkeypatch.setattr("trainer.data.reading.array_files._libc", lambda: libc)
    path = saved(tmp_path, np.zeros((5_000_000, 3), dtype=np.int32))
    file = opened(path, shape=WIDE)
    for _ in range(50):  # pages that are being written back stay for a while
        drop(path)
        if cached(file, 0, 5_000_000) < 0.1:
            break
        time.sleep(0.05)
    else:
        pytest.skip("this file system keeps what it is told to drop")
    file.fetch(1_000_000, 2_000_000)
    assert cached(file, 1_000_000, 2_000_000) == 1.0
    assert cached(file, 0, 5_000_000) < 0.7


def drop(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def cached(file: ArrayFile, first: int, last: int) -> float:
    """Share of the rows' pages that are in the system's cache."""
    page = mmap.PAGESIZE
    begin = -(-file.array[first:].ctypes.data // page) * page
    count = (file.array[last - 1 :].ctypes.data - begin) // page
    states = (ctypes.c_ubyte * count)()
    assert ctypes.CDLL(None).mincore(ctypes.c_void_p(begin), ctypes.c_size_t(count * page), states) == 0
    return sum(state & 1 for state in states) / count


def test_a_shape_says_what_it_takes(tmp_path: Path) -> None:
    path = saved(tmp_path)
    opened(path, shape=ArrayShape(dtype=np.int32, num_columns=2))
    for shape, sentence in (
        (
            ArrayShape(dtype=np.int32, num_columns=2, more_columns="refused"),
            "holds int32 [20, 3], not int32 of 2 columns",
        ),
        (ArrayShape(dtype=np.int32), "holds int32 [20, 3], not int32 of one dimension"),
        (ArrayShape(dtype=np.float32, num_columns=3), "holds int32 [20, 3], not float32 of 3 columns"),
        (ArrayShape(dtype=np.int32, num_columns=3, num_rows=19), "20 rows, but the manifest says 19"),
    ):
        assert refusal(lambda shape=shape: opened(path, shape=shape)) == f"{path}: {sentence}; prepare the folder again"
