"""ArrayFile: an array of a prepared folder, an npy file or a member of an npz archive, mapped into memory."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import io
import math
import mmap
import os
import sys
import zipfile
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from configs.errors import DataError
from trainer import storage
from trainer.data.manifest import PartFile

_NPY_SUFFIX = ".npy"
_ZIP_HEADER_BYTES = 30  # of a local file header, before the name and the extra field
_ZIP_NAME_LENGTH_AT = 26
_MOST_HEADER_BYTES = 1 << 16
_SCRATCH_BYTES = 1 << 20
_POPULATE_READ = 22  # linux/mman.h, from Linux 5.14 on


class _Descriptor:
    """An open file; closed when nobody holds it any more."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self.number)


@dataclass(frozen=True)
class ArrayFile:
    """A mapped array; reading it reads the file."""

    path: str  # for messages
    array: NDArray  # read-only
    num_bytes: int  # of the file
    mtime_ns: int
    _descriptor: _Descriptor
    _begin: int  # of the array's data in the file

    @property
    def row_bytes(self) -> int:
        """Bytes from one row to the next."""
        return self.array.strides[0]

    def fetch(self, first_row: int, last_row: int) -> None:
        """Reads rows [first_row, last_row) from the disk into the system's cache, where `array` finds them."""
        begin = self._begin + first_row * self.row_bytes
        end = min(self._begin + last_row * self.row_bytes, self.num_bytes)
        if end <= begin or self._populate(begin, end):
            return
        scratch = bytearray(min(_SCRATCH_BYTES, end - begin))
        for start in range(begin, end, _SCRATCH_BYTES):
            os.preadv(self._descriptor.number, [scratch], start)

    def _populate(self, begin: int, end: int) -> bool:
        """Fills the mapping as plain reading does, with the system's own read-ahead; not where the system cannot.

        Page faults one by one reach a fraction of the disk's rate, and MADV_WILLNEED reads no more than a few hundred
        kB of what it is asked for. ctypes lets other threads go on meanwhile, which Python's mmap.madvise does not.
        """
        begin -= begin % mmap.PAGESIZE
        address = self.array.ctypes.data - self._begin + begin
        libc = _libc()
        return bool(libc and libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(end - begin), _POPULATE_READ) == 0)


@functools.cache
def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, kw_only=True)
class ArrayShape:
    """What an array has to be."""

    dtype: (
        type[np.generic] | np.dtype[Any]
    )  # other types would be cast on reading, and an id cut to 32 bits is another id
    num_rows: int | None = None  # None: any
    num_columns: int | None = None  # None: an array of one dimension
    more_columns: Literal["fine", "refused"] = "fine"

    def check(self, array: NDArray, *, named: str) -> None:
        """Refuses another array.

        Raises:
            DataError: names the file and what it holds.
        """
        if self.num_columns is None:
            fits, wanted = array.ndim == 1, "of one dimension"
        else:
            fits = array.ndim == 2 and array.shape[1] >= self.num_columns
            fits = fits and (self.more_columns == "fine" or array.shape[1] == self.num_columns)
            wanted = f"of {self.num_columns} columns"
        if array.dtype != self.dtype or not fits:
            raise DataError(
                f"{named}: holds {array.dtype} {list(array.shape)}, not {np.dtype(self.dtype)} {wanted};"
                " prepare the folder again"
            )
        if self.num_rows is not None and len(array) != self.num_rows:
            raise DataError(
                f"{named}: {len(array)} rows, but the manifest says {self.num_rows}; prepare the folder again"
            )


def open_part_file(root: str, file: PartFile, *, shape: ArrayShape) -> ArrayFile:
    """Maps a part's file, or of a file that several parts share the rows of this one.

    Raises:
        DataError: no such file, not whole, or not of that shape.
    """
    path = storage.join(root, file.path)
    if file.file_rows is None:
        return open_array(path, member=file.member, shape=shape)
    assert shape.num_rows is not None, "a shared file has a row for every row"
    whole = open_array(path, member=file.member, shape=dataclasses.replace(shape, num_rows=file.file_rows))
    return dataclasses.replace(
        whole,
        array=whole.array[file.first_row : file.first_row + shape.num_rows],
        _begin=whole._begin + file.first_row * whole.row_bytes,
    )


def open_array(path: str, *, member: str | None, shape: ArrayShape) -> ArrayFile:
    """Maps an array: an npy file, or with `member` (without .npy) one of an uncompressed npz archive.

    Raises:
        DataError: no such file, not whole, or not of that shape.
    """
    if not storage.is_file(path):
        raise DataError(f"{path}: the manifest names this file, but it is not there; prepare the folder again")
    named = path if member is None else f"{path}[{member}]"
    try:
        with open(storage.local_path(path), "rb") as file:
            status = os.fstat(file.fileno())
            if not status.st_size:
                raise ValueError("it is empty")  # and cannot be mapped
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            begin = 0 if member is None else _begin_of_member(file, mapped, member)
        mapped.madvise(mmap.MADV_SEQUENTIAL)  # also where a window is permuted, its blocks are fetched in a row
        array, begin = _array_at(mapped, begin)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{named}: not a whole npy file ({error}); prepare the folder again") from error
    shape.check(array, named=named)
    return ArrayFile(named, array, status.st_size, status.st_mtime_ns, _Descriptor(storage.local_path(path)), begin)


def _begin_of_member(file: io.BufferedReader, mapped: mmap.mmap, member: str) -> int:
    """Where the npy file of a member begins in its archive."""
    with zipfile.ZipFile(file) as archive:
        try:
            found = archive.getinfo(member + _NPY_SUFFIX)
        except KeyError:
            raise ValueError(f"the archive has no member {member!r}") from None
    if found.compress_type != zipfile.ZIP_STORED:
        raise ValueError("the archive is compressed; save it with numpy.savez")
    lengths = np.frombuffer(mapped, dtype="<u2", count=2, offset=found.header_offset + _ZIP_NAME_LENGTH_AT)
    return found.header_offset + _ZIP_HEADER_BYTES + int(lengths.sum())


def _array_at(mapped: mmap.mmap, begin: int) -> tuple[NDArray, int]:
    """The array whose npy file begins there, and where its data begin."""
    header = io.BytesIO(mapped[begin : begin + _MOST_HEADER_BYTES])
    if header.getvalue()[:4] == b"PK\x03\x04":
        raise ValueError("an archive of several arrays")
    version = npy.read_magic(header)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, in_fortran_order, dtype = read(header)
    if dtype.hasobject:
        raise ValueError("an array of Python objects")
    if in_fortran_order and len(shape) > 1:
        raise ValueError("in Fortran order; save it in C order")
    start, count = begin + header.tell(), math.prod(shape)
    if start + count * dtype.itemsize > len(mapped):
        raise ValueError(f"{len(mapped) - start} bytes of data in place of {count * dtype.itemsize}")
    flat = np.frombuffer(mapped, dtype=dtype, count=count, offset=start) if count else np.empty(0, dtype=dtype)
    return flat.reshape(shape), start
