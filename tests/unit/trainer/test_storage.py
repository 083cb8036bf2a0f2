"""Storage: files that are whole or old, never half, and the small questions about paths."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from trainer import storage


def test_text_and_json_come_back(tmp_path: Path) -> None:
    path = str(tmp_path / "a.json")
    storage.write_json(path, {"name": "ensemble é", "rows": [1, 2]})
    assert storage.read_json(path) == {"name": "ensemble é", "rows": [1, 2]}
    assert storage.read_text(path).endswith("}\n")
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("broken", ["os.fsync", "os.replace"])
@pytest.mark.parametrize("old", [None, "the old text"])
def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, old: str | None
) -> None:
    path = tmp_path / "run.toml"
    if old is not None:
        path.write_text(old)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"trainer.storage.{broken}", fail)
    with pytest.raises(OSError) as full:
        storage.write_text(str(path), "half of the new text")
    assert (full.value.errno, full.value.strerror) == (errno.ENOSPC, "No space left on device")
    assert full.value.filename == str(path)
    assert (path.read_text() if path.exists() else None) == old
    monkeypatch.undo()
    storage.write_text(str(path), "the new text")  # what the failure left behind is in nobody's way
    assert path.read_text() == "the new text"
    assert os.listdir(tmp_path) == ["run.toml"]


def test_a_write_into_no_folder_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "a"
    with pytest.raises(FileNotFoundError) as refused:
        storage.write_bytes(str(path), b"x")
    assert refused.value.filename == f"{path}.tmp"


def test_an_error_gets_the_name_of_the_file_it_says_nothing_of() -> None:
    with pytest.raises(OSError) as full, storage.naming("runs/a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(full.value) == "[Errno 28] No space left on device: 'runs/a'"
    kept = [
        FileNotFoundError(errno.ENOENT, "No such file or directory", "runs/b"),
        OSError("a sentence of its own"),
        ValueError("not of the disk"),
    ]
    for error in kept:
        with pytest.raises(type(error)) as found, storage.naming("runs/a"):
            raise error
        assert found.value is error


def test_a_new_folder_is_nobody_elses(tmp_path: Path) -> None:
    path = str(tmp_path / "runs" / "a")
    assert [storage.make_new_folder(path) for _ in range(3)] == [path, f"{path}-2", f"{path}-3"]
    assert storage.names(str(tmp_path / "runs")) == ["a", "a-2", "a-3"]
    (tmp_path / "runs" / "a-4").write_text("a file")
    assert storage.make_new_folder(path) == f"{path}-5"


def test_a_new_folder_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.make_new_folder("a") == "a"
    assert (tmp_path / "a").is_dir()


def test_the_file_is_on_disk_before_it_takes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr("trainer.storage.os.fsync", lambda number: (steps.append("sync"), fsync(number)))
    monkeypatch.setattr("trainer.storage.os.replace", lambda *paths: (steps.append("name"), replace(*paths)))
    storage.write_bytes(str(tmp_path / "a"), b"x")
    assert steps == ["sync", "name"]


def test_questions_about_paths(tmp_path: Path) -> None:
    folder = str(tmp_path / "a" / "b")
    assert not storage.exists(folder)
    assert storage.names(folder) == []
    storage.make_folder(folder)
    storage.make_folder(folder)
    for name in ("z", "y"):
        storage.write_bytes(storage.join(folder, name), name.encode())
    assert storage.names(folder) == ["y", "z"]
    assert storage.exists(folder) and not storage.is_file(folder)
    assert storage.is_file(storage.join(folder, "y"))
    assert storage.num_bytes(storage.join(folder, "y")) == 1
    storage.remove_file(storage.join(folder, "y"))
    assert storage.names(folder) == ["z"]
    storage.remove_tree(str(tmp_path / "a"))
    assert not storage.exists(folder)


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, (1 << 20) + 7])
def test_hashes_are_of_all_bytes(tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    path = tmp_path / "a"
    path.write_bytes(content[:size])
    assert storage.sha256(str(path)) == hashlib.sha256(content[:size]).hexdigest()
