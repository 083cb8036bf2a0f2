"""S3 as folders and files: the manners of a disk, where iopath's own handler has others."""

from __future__ import annotations

import gc
import io
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.s3 import needs_s3, s3_api
from trainer import storage

pytestmark = needs_s3


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with s3_api(tmp_path_factory.mktemp("cache")) as client:
        for bucket in ("bucket", "other"):
            client.create_bucket(Bucket=bucket)
        yield client


@pytest.fixture(autouse=True)
def _empty(client: Any) -> Iterator[None]:
    yield
    for bucket in ("bucket", "other"):
        for entry in client.list_objects_v2(Bucket=bucket).get("Contents", []):
            client.delete_object(Bucket=bucket, Key=entry["Key"])


def put(client: Any, *keys: str, content: bytes = b"abc") -> None:
    for key in keys:
        client.put_object(Bucket="bucket", Key=key, Body=content)


def test_a_folder_is_there_while_something_lies_in_it(client: Any) -> None:
    put(client, "run/run.toml", "run/state/a", "run2/a")
    for folder in ("s3://bucket/run", "s3://bucket/run/", "s3://bucket"):
        assert storage.exists(folder) and not storage.is_file(folder), folder
    for nothing in ("s3://bucket/ru", "s3://bucket/run/run", "s3://nowhere/run", "s3://nowhere"):
        assert not storage.exists(nothing) and not storage.is_file(nothing), nothing
        assert storage.names(nothing) == []
    assert storage.exists("s3://bucket/run/run.toml") and storage.is_file("s3://bucket/run/run.toml")
    assert storage.names("s3://bucket/run") == storage.names("s3://bucket/run/") == ["run.toml", "state"]
    assert storage.names("s3://bucket") == ["run", "run2"]


def test_a_folder_that_a_console_made_has_no_nameless_file(client: Any) -> None:
    put(client, "run/", content=b"")
    assert storage.exists("s3://bucket/run") and storage.names("s3://bucket/run") == []
    storage.remove_tree("s3://bucket/run")
    assert not storage.exists("s3://bucket/run")


def test_making_a_folder_puts_nothing_and_wants_a_bucket(client: Any) -> None:
    storage.make_folder("s3://bucket/run/state")
    assert client.list_objects_v2(Bucket="bucket")["KeyCount"] == 0
    with pytest.raises(FileNotFoundError) as missing:
        storage.make_folder("s3://nowhere/run")
    assert missing.value.filename == "s3://nowhere/run"


def test_a_tree_goes_whole_and_alone_also_beyond_a_page(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.s3_files._KEYS_A_PAGE", 3)
    put(client, *(f"run/state/{number}" for number in range(8)), "run/a", "run2/a")
    assert storage.names("s3://bucket/run/state") == list("01234567")
    assert storage.names("s3://bucket/run") == ["a", "state"]
    storage.remove_tree("s3://bucket/run")
    assert storage.names("s3://bucket") == ["run2"]
    storage.remove_file("s3://bucket/run2/a")
    assert storage.names("s3://bucket") == []


def test_a_whole_bucket_is_not_removed(client: Any) -> None:
    put(client, "a")
    for whole in ("s3://bucket", "s3://bucket/"):
        with pytest.raises(AssertionError, match="whole bucket"):
            storage.remove_tree(whole)
    assert storage.is_file("s3://bucket/a")


def test_what_was_refused_is_not_taken_for_absent(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put(client, "run/manifest.json")
    files = storage._s3()
    from botocore.exceptions import ClientError

    def denied(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "403", "Message": "Forbidden"}}, "HeadObject")

    for call in ("head_object", "list_objects_v2"):
        monkeypatch.setattr(files._get_client("bucket"), call, denied)
    with pytest.raises(PermissionError) as refused:
        storage.is_file("s3://bucket/run/manifest.json")
    assert str(refused.value) == "[Errno 13] Forbidden (S3: 403): 's3://bucket/run/manifest.json'"
    with pytest.raises(PermissionError):
        storage.exists("s3://bucket/run")


def test_no_answer_is_an_error_with_the_path(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    storage._s3.cache_clear()
    try:
        for ask in (storage.exists, storage.is_file, storage.names, storage.sha256, storage.num_bytes):
            with pytest.raises(OSError, match="Could not connect") as silent:
                ask("s3://bucket/run")
            assert silent.value.filename == "s3://bucket/run"
    finally:
        storage._s3.cache_clear()


def test_files_come_back(client: Any) -> None:
    storage.write_text("s3://bucket/é/a.txt", "é\nb")
    assert storage.read_text("s3://bucket/é/a.txt") == "é\nb"
    storage.write_json("s3://bucket/a.json", {"rows": [1, 2]})
    assert storage.read_json("s3://bucket/a.json") == {"rows": [1, 2]}
    storage.write_bytes("s3://bucket/empty", b"")
    assert (storage.num_bytes("s3://bucket/empty"), storage.open_stream("s3://bucket/empty").read()) == (0, b"")
    storage.copy_file("s3://bucket/a.json", "s3://other/b/a.json")
    assert storage.read_json("s3://other/b/a.json") == {"rows": [1, 2]}
    assert storage.modified_ns("s3://bucket/a.json") > 1_600_000_000 * 10**9


def test_a_large_file_is_written_in_parts_and_read_in_ranges(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.s3_files._MOST_BYTES_IN_MEMORY", 1 << 20)
    content = os.urandom((20 << 20) + 5)
    with storage.open_file("s3://bucket/large", "wb") as file:
        for start in range(0, len(content), 3 << 20):
            file.write(memoryview(content)[start : start + (3 << 20)])
        assert file.tell() == len(content)
        assert not storage.is_file("s3://bucket/large")
    assert client.head_object(Bucket="bucket", Key="large")["ETag"].strip('"').endswith("-3")
    asked: list[str] = []
    get = storage._s3()._get_client("bucket").get_object
    monkeypatch.setattr(
        storage._s3()._get_client("bucket"),
        "get_object",
        lambda **words: (asked.append(words["Range"]), get(**words))[1],
    )
    with storage.open_stream("s3://bucket/large") as stream:
        stream.seek(17 << 20)
        assert stream.read(1_000) == content[17 << 20 :][:1_000]
        stream.seek(-5, io.SEEK_END)
        assert stream.read(9) == content[-5:]
        stream.seek(0)
        assert stream.read() == content
    assert len(asked) <= 4
    assert asked[0] == f"bytes={17 << 20}-{(20 << 20) + 4}"


def test_half_a_file_is_never_there(client: Any) -> None:
    put(client, "a", content=b"old")
    with pytest.raises(ValueError, match="the writer failed"), storage.open_file("s3://bucket/a", "wb") as file:
        file.write(b"half of the new")
        raise ValueError("the writer failed")
    assert storage.read_text("s3://bucket/a") == "old"
    dropped = storage.open_file("s3://bucket/a", "wb")
    dropped.write(b"never closed")
    del dropped
    gc.collect()
    assert storage.read_text("s3://bucket/a") == "old"


@pytest.mark.parametrize("mode", ["a", "ab", "w", "r+b"])
def test_what_s3_cannot_do_is_refused(client: Any, mode: str) -> None:
    with pytest.raises(OSError, match=f"S3 has no way to open a file with mode '{mode.replace('+', '.')}'"):
        storage.open_file("s3://bucket/a", mode)


def test_what_is_not_there(client: Any) -> None:
    for ask in (storage.read_text, storage.open_stream, storage.num_bytes, storage.sha256):
        with pytest.raises(FileNotFoundError) as missing:
            ask("s3://bucket/none")
        assert missing.value.filename == "s3://bucket/none"
    with pytest.raises(FileNotFoundError):
        storage.write_text("s3://nowhere/a", "x")


def test_a_file_is_fetched_once_from_its_own_bucket(client: Any) -> None:
    for bucket in ("bucket", "other"):
        client.put_object(Bucket=bucket, Key="days/day_0.npy", Body=bucket.encode())
    paths = [storage.local_path(f"s3://{bucket}/days/day_0.npy") for bucket in ("bucket", "other", "bucket")]
    assert paths[0] == paths[2] != paths[1]
    assert [open(path, "rb").read() for path in paths[:2]] == [b"bucket", b"other"]  # noqa: SIM115
