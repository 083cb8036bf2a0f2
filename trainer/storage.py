"""Every file is opened here: local paths, and s3:// through iopath."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.util
import io
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from iopath.common.file_io import PathManager

from configs.errors import ChorusError

if TYPE_CHECKING:
    from trainer.s3_files import S3Files

_HASH_BLOCK_BYTES = 1 << 20


@functools.cache
def _paths() -> PathManager:
    return PathManager()


def _for(path: str) -> PathManager:
    manager = _paths()
    if is_remote(path):
        _s3()
    return manager


@functools.cache
def _s3() -> S3Files:
    if importlib.util.find_spec("boto3") is None:
        raise ChorusError("s3:// paths need boto3, which is not installed: pip install boto3")
    from trainer.s3_files import S3Files  # boto3 is needed only where s3:// is used, and loads slowly

    files = S3Files()
    _paths().register_handler(files)
    return files


def is_remote(path: str) -> bool:
    """Whether a path is not on a disk of this machine."""
    return path.startswith("s3://")


def join(*pieces: str) -> str:
    """Path pieces put together, local or s3://."""
    return os.path.join(*pieces)


def open_file(path: str, mode: str = "r") -> IO[Any]:
    """Opens a file for reading or writing; `mode` as in the built-in `open`."""
    return _for(path).open(path, mode)


def open_stream(path: str) -> IO[bytes]:
    """Opens a file of any size for reading bytes, with `seek`; of one on S3 only what is read is fetched."""
    stream: IO[bytes] = open_file(path, "rb")
    return stream


def exists(path: str) -> bool:
    """Whether a file or folder is there."""
    return bool(_for(path).exists(path))


def is_file(path: str) -> bool:
    """Whether a file is there."""
    return bool(_for(path).isfile(path))


def names(folder: str) -> list[str]:
    """Sorted names in a folder; empty where there is no such folder."""
    if not exists(folder):
        return []
    return sorted(_for(folder).ls(folder))


def make_folder(path: str) -> None:
    """Makes a folder and its parents; no error where it exists."""
    _for(path).mkdirs(path)


def make_new_folder(path: str) -> str:
    """Makes a local folder that was not there: `path`, or with -2, -3 ... behind it; gives its path."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    for number in itertools.count(1):
        folder = path if number == 1 else f"{path}-{number}"
        try:
            os.mkdir(folder)
        except FileExistsError:
            continue
        return folder
    raise AssertionError("itertools.count() ended")


def try_to_lock(folder: str) -> int | None:
    """Takes a local folder for this process alone, until it ends or `unlock`; None where another process has it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def unlock(lock: int) -> None:
    """Gives a folder back."""
    os.close(lock)


def copy_file(source: str, target: str) -> None:
    """Copies one file's bytes, in one step as `write_bytes` does on a local disk."""
    temporary = target if is_remote(target) else f"{target}.tmp"
    with open_file(source, "rb") as old, open_file(temporary, "wb") as new:
        shutil.copyfileobj(old, new, _HASH_BLOCK_BYTES)
    if temporary != target:
        os.replace(temporary, target)


def rename(path: str, new_path: str) -> None:
    """Gives a local file another name, in one step."""
    os.replace(path, new_path)


def same_place(path: str, other: str) -> bool:
    """Whether two paths lead to the same file or folder."""
    return path == other if is_remote(path) or is_remote(other) else os.path.realpath(path) == os.path.realpath(other)


def base_name(path: str) -> str:
    """The last piece of a path."""
    return os.path.basename(path)


def remove_file(path: str) -> None:
    """Deletes one file."""
    _for(path).rm(path)


def remove_tree(folder: str) -> None:
    """Deletes a folder and all below it."""
    if is_remote(folder):
        _s3().remove_tree(folder)
    else:
        shutil.rmtree(folder)


def local_path(path: str) -> str:
    """A path on this machine's disk with the file's bytes (fetched once where it is remote)."""
    return str(_for(path).get_local_path(path))


def free_bytes(folder: str) -> int:
    """What is free where a local folder lies."""
    return shutil.disk_usage(folder).free


def room(folder: str) -> str:
    """What is free where a folder lies, for messages; nothing for s3://."""
    return "" if is_remote(folder) else f" ({free_bytes(folder):,} bytes are free there)"


def num_bytes(path: str) -> int:
    """Size of a file in bytes."""
    if is_remote(path):
        return int(_s3().head(path)["ContentLength"])
    return os.path.getsize(local_path(path))


def modified_ns(path: str) -> int:
    """When a file was last changed, in nanoseconds since 1970."""
    if is_remote(path):
        return int(_s3().head(path)["LastModified"].timestamp() * 1e9)
    return os.stat(path).st_mtime_ns


def sha256(path: str) -> str:
    """Hex sha256 of a file's bytes, read in blocks."""
    digest = hashlib.sha256()
    with open_file(path, "rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def flush(path: str) -> None:
    """Waits until a local file is on the disk, whoever wrote it."""
    with naming(path), open_file(path, "rb") as file:
        os.fsync(file.fileno())


def settle(file: IO[Any]) -> None:
    """Waits until what was written to an open file is on the disk; one of S3 is there once it is closed."""
    file.flush()
    try:
        descriptor = file.fileno()
    except (AttributeError, io.UnsupportedOperation):
        return
    os.fsync(descriptor)


def read_text(path: str) -> str:
    """A text file, whole."""
    with open_file(path) as file:
        return str(file.read())


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Names the file in an error of the disk; a full one says nothing of where."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:  # named, or a sentence of its own
            raise
        raise OSError(error.errno, error.strerror, path) from error


def write_bytes(path: str, content: bytes, *, durable: bool = True) -> None:
    """Writes a file so that a reader sees the old one or the new one, never half of it.

    `durable`: also after the machine loses its power, which costs waiting for the disk; a killed process harms neither.
    """
    if is_remote(path):
        with open_file(path, "wb") as file:
            file.write(content)
        return
    temporary = f"{path}.tmp"
    with naming(path):
        try:
            with open_file(temporary, "wb") as file:
                file.write(content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.remove(temporary)
            raise


def write_text(path: str, text: str) -> None:
    """Writes a text file in one step, as `write_bytes` does."""
    write_bytes(path, text.encode())


def read_json(path: str) -> Any:
    """A JSON file, parsed."""
    return json.loads(read_text(path))


def write_json(path: str, value: Any, *, durable: bool = True) -> None:
    """Writes a JSON file, indented, in one step as `write_bytes` does."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode(), durable=durable)
