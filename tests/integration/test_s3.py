"""Logs on S3: read in ranges from a real S3 API on loopback, and prepared as local ones are."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.click_log import synthetic_lines, write_log
from tests.support.commands import run_python

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("boto3", "moto", "flask")),
    reason="needs an S3 API: pip install boto3 'moto[server]'",
)


@pytest.fixture(scope="module", autouse=True)
def s3() -> Iterator[None]:
    """An S3 API, and the environment that leads to it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        yield
    server.stop()


@pytest.mark.parametrize("packed", [False, True])
def test_a_log_on_s3_is_prepared_as_a_local_one(packed: bool, tmp_path: Path) -> None:
    import boto3

    name = "day_0.gz" if packed else "day_0.tsv"
    local = write_log(tmp_path / "logs" / name, synthetic_lines(3_000))
    client = boto3.client("s3")
    client.create_bucket(Bucket="clicks")
    client.upload_file(local, "clicks", f"logs/{name}")
    remote = f"s3://clicks/logs/{name}"
    for source, output in ((local, "from_disk"), (remote, "from_s3")):
        done = run_python(
            "tools/prepare_criteo.py",
            *("--input", source, "--output", str(tmp_path / output)),
        )
        assert done.returncode == 0, done.stderr
    for file in (tmp_path / "from_disk").glob("*.npy"):
        assert file.read_bytes() == (tmp_path / "from_s3" / file.name).read_bytes(), file.name


def test_an_object_that_is_not_there(tmp_path: Path) -> None:
    done = run_python(
        "tools/prepare_criteo.py",
        *("--input", "s3://nowhere/day_0.tsv", "--output", str(tmp_path / "out")),
    )
    assert done.returncode == 2, done.stderr
    assert "s3://nowhere/day_0.tsv" in done.stderr and "Traceback" not in done.stderr
