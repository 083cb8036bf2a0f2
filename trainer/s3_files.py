"""S3Files: objects of S3 as files and folders: iopath's handler for s3://, mended where it has other manners."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import tempfile
import types
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError
from iopath.common.s3 import S3PathHandler

if TYPE_CHECKING:
    from typing_extensions import Buffer

RANGE_BYTES = 8 << 20
_MOST_BYTES_IN_MEMORY = 64 << 20
_KEYS_A_PAGE = 1_000  # as many as S3 lists at once, and deletes at once
_ERRNO_OF_CODE = dict.fromkeys(("404", "NoSuchKey", "NoSuchBucket", "NotFound"), errno.ENOENT)
_ERRNO_OF_CODE |= dict.fromkeys(
    ("401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"), errno.EACCES
)


@contextlib.contextmanager
def as_disk_errors(path: str) -> Iterator[None]:
    """What S3 refuses, as the OSError that a disk would give, with the path."""
    try:
        yield
    except ClientError as error:
        code, said = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        raise OSError(_ERRNO_OF_CODE.get(code, errno.EIO), f"{said or 'refused'} (S3: {code})", path) from error
    except (BotoCoreError, Boto3Error) as error:  # no credentials, no connection
        raise OSError(errno.EIO, " ".join(str(error).split()), path) from error


class S3Files(S3PathHandler):
    """The s3:// of `PathManager`. A folder is there while an object lies below it.

    iopath's own handler (0.1.10) is kept for its client and its download cache. Left to itself it

    - takes all that S3 refuses for "not there", denied access too, and a run would begin anew over its checkpoints;
    - finds a folder only where somebody put an object of its name, with a slash behind it;
    - lists keys, not names, and without that slash the neighbours that begin alike;
    - puts such objects when it makes a folder;
    - holds the whole of a file in memory to read a byte of it, and to write it;
    - uploads the half of a file whose writer failed;
    - has one cache for all buckets, and takes another bucket's file of the same key from it.
    """

    def __init__(self) -> None:
        # Without a profile the usual order of credentials holds: environment, ~/.aws, the machine's role.
        super().__init__(profile=None)

    def _client_and_place(self, path: str) -> tuple[Any, str, str]:
        bucket, key = self._parse_uri(path)
        return self._get_client(bucket), bucket, key

    def _head_object(self, path: str) -> dict[str, Any] | None:
        try:
            return self.head(path)
        except FileNotFoundError:
            return None

    def head(self, path: str) -> dict[str, Any]:
        """What S3 tells of one object.

        Raises:
            OSError: not there, not allowed, no answer.
        """
        with as_disk_errors(path):
            client, bucket, key = self._client_and_place(path)
            return dict(client.head_object(Bucket=bucket, Key=key))

    def _local_cache_path(self, path: str) -> str:
        bucket, key = self._parse_uri(path)
        return os.path.join(os.path.dirname(super()._local_cache_path("s3://bucket/file")), bucket, key)

    def _get_local_path(self, path: str, force: bool = False, **_: Any) -> str:
        with as_disk_errors(path):
            return str(super()._get_local_path(path))

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **_: Any) -> IO[Any]:
        stream: IO[bytes]
        if mode in ("r", "rb"):
            stream = io.BufferedReader(S3File(self, path), RANGE_BYTES)
            return stream if mode == "rb" else io.TextIOWrapper(stream, encoding="utf-8")
        if mode == "wb":
            return S3Upload(self, path)  # type: ignore[return-value]
        raise OSError(errno.ENOTSUP, f"S3 has no way to open a file with mode {mode!r}", path)

    def read_range(self, path: str, first: int, last: int) -> bytes:
        """Bytes [first, last] of an object."""
        with as_disk_errors(path):
            client, bucket, key = self._client_and_place(path)
            return bytes(client.get_object(Bucket=bucket, Key=key, Range=f"bytes={first}-{last}")["Body"].read())

    def upload(self, content: IO[bytes], path: str) -> None:
        """Makes an object of a stream's bytes; large ones in parts, several at a time."""
        with as_disk_errors(path):
            client, bucket, key = self._client_and_place(path)
            client.upload_fileobj(content, bucket, key, Config=self.transfer_config)

    def _pages(self, folder: str, **options: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        """The folder's prefix, and what lies below it."""
        client, bucket, key = self._client_and_place(folder)
        prefix = f"{key.rstrip('/')}/" if key.strip("/") else ""
        options = {"PaginationConfig": {"PageSize": _KEYS_A_PAGE}} | options
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, **options):
            yield prefix, page

    def _exists(self, path: str, **_: Any) -> bool:
        return self._isfile(path) or self._isdir(path)

    def _isfile(self, path: str, **_: Any) -> bool:
        _bucket, key = self._parse_uri(path)
        return bool(key) and not key.endswith("/") and self._head_object(path) is not None

    def _isdir(self, path: str, **_: Any) -> bool:
        one = {"MaxItems": 1, "PageSize": 1}
        try:
            with as_disk_errors(path):
                return any(page.get("Contents") for _, page in self._pages(path, PaginationConfig=one))
        except FileNotFoundError:  # no such bucket
            return False

    def _ls(self, path: str, **_: Any) -> list[str]:
        """Names in a folder, as of a local one."""
        found = []
        with as_disk_errors(path):
            for prefix, page in self._pages(path, Delimiter="/"):
                below = [entry["Key"] for entry in page.get("Contents", [])]
                below += [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
                found += [key.removeprefix(prefix).rstrip("/") for key in below]
        return [name for name in found if name]  # a console puts an object of the folder's own name

    def _mkdirs(self, path: str, **_: Any) -> None:
        """S3 needs no folders made, but the bucket must be there."""
        with as_disk_errors(path):
            client, bucket, _key = self._client_and_place(path)
            client.head_bucket(Bucket=bucket)

    def _rm(self, path: str, **_: Any) -> None:
        with as_disk_errors(path):
            client, bucket, key = self._client_and_place(path)
            client.delete_object(Bucket=bucket, Key=key)

    def remove_tree(self, folder: str) -> None:
        """Deletes all objects below a folder.

        Raises:
            OSError: some could not be deleted; names one.
        """
        client, bucket, key = self._client_and_place(folder)
        assert key.strip("/"), f"{folder} is a whole bucket"
        with as_disk_errors(folder):
            for _, page in self._pages(folder):
                keys = [{"Key": entry["Key"]} for entry in page.get("Contents", [])]
                if not keys:
                    continue
                left = client.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True}).get("Errors", [])
                if left:  # a request that S3 answers with success all the same
                    raise OSError(errno.EACCES, f"{left[0].get('Message')} (S3)", f"s3://{bucket}/{left[0]['Key']}")


class S3File(io.RawIOBase):
    """An object, seekable, of which only what is asked for is fetched.

    Args:
        files: Where it is.
        path: s3://bucket/key.
    """

    def __init__(self, files: S3Files, path: str) -> None:
        self._files = files
        self.name = path
        self.num_bytes = int(files.head(path)["ContentLength"])
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to a byte; gives where it is."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.num_bytes}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def tell(self) -> int:
        """Where it is."""
        return self._at

    def readinto(self, buffer: Buffer) -> int:
        """Fetches the next bytes, as many as there is room for."""
        view = memoryview(buffer)
        stop = min(self._at + len(view), self.num_bytes)
        if stop <= self._at:
            return 0
        found = self._files.read_range(self.name, self._at, stop - 1)
        view[: len(found)] = found
        self._at += len(found)
        return len(found)

    def readall(self) -> bytes:
        """The rest; io's own would ask for 8 KiB at a time."""
        if self._at >= self.num_bytes:
            return b""
        found = self._files.read_range(self.name, self._at, self.num_bytes - 1)
        self._at += len(found)
        return found


class S3Upload(io.BufferedIOBase):
    """An object being written: it is gathered on this machine's temporary disk and there at once when it is closed.

    Where the block that writes it fails, nothing is uploaded, so that half a file never looks like one.

    Args:
        files: Where it goes.
        path: s3://bucket/key.
    """

    def __init__(self, files: S3Files, path: str) -> None:
        self._files = files
        self.name = path
        self._gathered = tempfile.SpooledTemporaryFile(max_size=_MOST_BYTES_IN_MEMORY)  # noqa: SIM115

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, content: Buffer) -> int:
        """Adds bytes."""
        return self._gathered.write(content)

    def tell(self) -> int:
        """Bytes so far."""
        return self._gathered.tell()

    def close(self) -> None:
        """Uploads it.

        Raises:
            OSError: S3 did not take it.
        """
        if self.closed:
            return
        try:
            self._gathered.seek(0)
            self._files.upload(self._gathered, self.name)
        finally:
            self._drop()

    def _drop(self) -> None:
        self._gathered.close()
        super().close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._drop()

    def __del__(self) -> None:  # io's own would close it, and so upload what nobody finished
        self._gathered.close()
