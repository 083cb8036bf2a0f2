"""Storage: files that are whole or old, never half, and the small questions about paths."""

from __future__ import annotations

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
        raise OSError("no space left")

    monkeypatch.setattr(f"trainer.storage.{broken}", fail)
    with pytest.raises(OSError, match="no space left"):
        storage.write_text(str(path), "half of the new text")
    assert (path.read_text() if path.exists() else None) == old
    monkeypatch.undo()
    storage.write_text(str(path), "the new text")  # what the failure left behind is in nobody's way
    assert path.read_text() == "the new text"
    assert os.listdir(tmp_path) == ["run.toml"]


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
