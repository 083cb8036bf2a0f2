"""Places that no file can be written to are refused by the flag that names them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from configs.errors import ConfigError
from trainer.output_files import check_output_files


def test_places_that_can_be_written_are_taken(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("")
    check_output_files({"--a": str(tmp_path / "new"), "--b": str(tmp_path / "old"), "--c": None, "--d": "here"})
    check_output_files({"--a": "s3://bucket/folder/file"})
    assert sorted(os.listdir(tmp_path)) == ["old"]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("", "--b: '' is no file"),
        ("FOLDER", "is a folder; name a file"),
        ("FOLDER/", "is a folder; name a file"),
        ("FOLDER/no/x", "no' is not there; make it"),
        ("FOLDER/file/x", "file' is not a folder"),
        ("FOLDER/same", "is the file of --a, too"),
    ],
)
def test_other_places_are_refused(path: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as refused:
        check_output_files({"--a": str(tmp_path / "same"), "--b": path.replace("FOLDER", str(tmp_path))})
    assert str(refused.value).startswith("--b: ") and told in str(refused.value)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)  # whoever runs this may be root
    with pytest.raises(ConfigError, match="--b: the folder .* cannot be written to"):
        check_output_files({"--b": str(tmp_path / "x")})
