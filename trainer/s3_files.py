"""S3File: an object of S3 read in ranges, since iopath's handler would hold the whole of it in memory."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Buffer

RANGE_BYTES = 8 << 20


def parse(path: str) -> tuple[str, str]:
    """Bucket and key of an s3:// path."""
    bucket, _, key = path.removeprefix("s3://").partition("/")
    return bucket, key


class S3File(io.RawIOBase):
    """An object, seekable, of which only what is asked for is fetched.

    Args:
        client: boto3's for s3.
        path: s3://bucket/key.
    """

    def __init__(self, client: Any, path: str) -> None:
        self._client = client
        self._bucket, self._key = parse(path)
        head = client.head_object(Bucket=self._bucket, Key=self._key)
        self.num_bytes = int(head["ContentLength"])
        self.modified_ns = int(head["LastModified"].timestamp() * 1e9)
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
        found = self._client.get_object(Bucket=self._bucket, Key=self._key, Range=f"bytes={self._at}-{stop - 1}")[
            "Body"
        ].read()
        view[: len(found)] = found
        self._at += len(found)
        return len(found)
