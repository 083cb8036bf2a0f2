"""RunFolder: where a run writes, and how it ended."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from configs.command import TRAIN, parse_command
from configs.errors import DataError
from configs.loader import read_run
from configs.schema import RunConfig
from modules import members
from trainer.command_line import training_config
from trainer.run_folder import RunFolder
from trainer.runtime import Runtime


def config(folder: Path | str) -> RunConfig:
    return training_config(parse_command([f"--run.folder={folder}"], program=TRAIN))


def outcome(folder: Path) -> dict[str, object]:
    return json.loads((folder / "outcome.json").read_text())  # type: ignore[no-any-return]


def test_a_run_leaves_its_config_and_its_outcome(tmp_path: Path, runtime: Runtime) -> None:
    folder = tmp_path / "run"
    with RunFolder(config(folder), runtime=runtime) as opened:
        assert opened.path == str(folder)
        assert not (folder / "outcome.json").exists()
        opened.finish(exit_code=75, progress={"step": 3})
    assert outcome(folder) == {"exit_code": 75, "progress": {"step": 3}}
    text = (folder / "run.toml").read_text()
    again = read_run(
        text, source="run.toml", overrides=(), resolve_arch=members.config_class, arch_kinds=members.kinds()
    )
    assert again == config(folder)


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [(DataError("no such part"), 2, "no such part"), (ValueError("bad"), 1, "ValueError: bad")],
)
def test_a_failure_is_recorded_and_goes_on(
    tmp_path: Path, runtime: Runtime, error: Exception, code: int, sentence: str
) -> None:
    with pytest.raises(type(error)), RunFolder(config(tmp_path), runtime=runtime):
        raise error
    assert outcome(tmp_path) == {"exit_code": code, "error": sentence}


def test_a_run_without_a_folder_gets_one_of_its_own(
    tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    unnamed = config("")
    named = dataclasses.replace(unnamed, run=dataclasses.replace(unnamed.run, name="trial"))
    with RunFolder(named, runtime=runtime) as opened:
        first = opened.path
    assert Path(first).parent == Path("runs/trial")
    assert (tmp_path / first / "run.toml").is_file()
    with RunFolder(named, runtime=runtime) as opened:  # after a restart of the workers
        assert opened.path == first
