"""An S3 API on loopback, for tests; they skip where moto is not installed."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainer import storage

needs_s3 = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("boto3", "moto", "flask")),
    reason="needs an S3 API: pip install boto3 'moto[server]'",
)


@contextlib.contextmanager
def s3_api(cache: Path) -> Iterator[Any]:
    """An S3 API and the environment that leads to it, for this process and those it starts; gives boto3's client.

    Args:
        cache: Where fetched files are kept.
    """
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("FVCORE_CACHE", str(cache))
        storage._s3.cache_clear()  # it holds a client of another server
        yield boto3.client("s3")
    storage._s3.cache_clear()
    server.stop()
