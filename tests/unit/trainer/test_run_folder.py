"""RunFolder: where a run writes, and how it ended."""

from __future__ import annotations

import dataclasses
import errno
import json
import threading
from pathlib import Path

import pytest

from configs.command import TRAIN, parse_command
from configs.errors import ConfigError, DataError
from configs.loader import dump_run, read_run
from configs.schema import Run, RunConfig
from modules import members
from tests.unit.trainer.ranks import one_rank
from trainer import storage
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
        assert list(folder.iterdir()) == []
        opened.begin()
        assert [path.name for path in folder.iterdir()] == ["run.toml"]
        opened.finish(exit_code=75, progress={"step": 3})
    assert outcome(folder) == {"exit_code": 75, "progress": {"step": 3}}
    text = (folder / "run.toml").read_text()
    again = read_run(
        text, source="run.toml", overrides=(), resolve_arch=members.config_class, arch_kinds=members.kinds()
    )
    assert again == config(folder)


STOPPED = "stopped before anything was finished; the same command starts again"


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (DataError("no such part"), 2, "no such part"),
        (ValueError("bad"), 1, "ValueError: bad"),
        (KeyboardInterrupt(), 130, STOPPED),
        (SystemExit(130), 130, STOPPED),
    ],
)
def test_a_failure_is_recorded_and_goes_on(
    tmp_path: Path, runtime: Runtime, error: BaseException, code: int, sentence: str, begun: bool
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(type(error)) as raised, RunFolder(config(folder), runtime=runtime) as opened:
        if begun:
            opened.begin()
        raise error
    assert raised.value is error
    assert outcome(folder) == {"exit_code": code, "error": sentence}
    assert (folder / "run.toml").exists() == begun


@pytest.fixture
def earlier(tmp_path: Path, runtime: Runtime) -> Path:
    """The folder of a run that ended."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.toml").write_text("the run that was")
    (folder / "outcome.json").write_text('{"exit_code": 75}')
    return folder


def test_a_start_that_is_refused_leaves_an_earlier_run_as_it_was(earlier: Path, runtime: Runtime) -> None:
    with pytest.raises(DataError), RunFolder(config(earlier), runtime=runtime):
        raise DataError("no such part")
    assert (earlier / "run.toml").read_text() == "the run that was"
    assert outcome(earlier) == {"exit_code": 75}


def test_a_start_that_begins_takes_the_folder_over(earlier: Path, runtime: Runtime) -> None:
    with pytest.raises(DataError), RunFolder(config(earlier), runtime=runtime) as opened:
        opened.begin()
        assert [path.name for path in earlier.iterdir()] == ["run.toml"]
        assert (earlier / "run.toml").read_text() == dump_run(config(earlier))
        raise DataError("a damaged row")
    assert outcome(earlier) == {"exit_code": 2, "error": "a damaged row"}


def test_a_file_is_no_run_folder(tmp_path: Path, runtime: Runtime) -> None:
    path = tmp_path / "run"
    path.write_text("mine")
    with pytest.raises(ConfigError) as refused, RunFolder(config(path), runtime=runtime):
        pass
    assert str(refused.value) == f"run.folder: {str(path)!r} is a file; name a folder"
    assert path.read_text() == "mine"


def test_a_full_disk_does_not_hide_the_error(tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    def fail(path: str, _: object) -> None:
        tries.append(path)
        raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr("trainer.run_folder.storage.write_json", fail)
    with pytest.raises(DataError, match="a damaged row"), RunFolder(config(tmp_path), runtime=runtime) as opened:
        opened.begin()
        raise DataError("a damaged row")
    assert tries == [str(tmp_path / "outcome.json")]
    with pytest.raises(OSError, match="No space left"), RunFolder(config(tmp_path), runtime=runtime) as opened:
        opened.begin()  # ends well, but cannot say so


def test_a_run_without_a_folder_gets_one_of_its_own(
    tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    unnamed = config("")
    named = dataclasses.replace(unnamed, run=dataclasses.replace(unnamed.run, name="trial"))
    with RunFolder(named, runtime=runtime) as opened:
        first = opened.path
        opened.begin()
    assert Path(first).parent == Path("runs/trial")
    assert (tmp_path / first / "run.toml").is_file()
    with RunFolder(named, runtime=runtime) as opened:  # after a restart of the workers
        assert opened.path == first


def test_jobs_that_start_at_once_get_a_folder_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("trainer.run_folder.time.strftime", lambda _: "20300102-030405")
    folders = []
    for _ in range(3):
        with one_rank(Run(device="cpu")) as job, RunFolder(config(""), runtime=job) as opened:
            folders.append(opened.path)
    name = config("").run.name
    assert folders == [f"runs/{name}/20300102-030405{behind}" for behind in ("", "-2", "-3")]
    assert all((tmp_path / folder / "outcome.json").is_file() for folder in folders)


def test_two_runs_do_not_write_in_one_folder(
    tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trainer.run_folder._LOCK_SECONDS", 0.3)
    with RunFolder(config(tmp_path), runtime=runtime):
        with pytest.raises(ConfigError) as refused, RunFolder(config(tmp_path), runtime=runtime):
            pass
        assert str(refused.value) == (
            f"run.folder: another run writes in {str(tmp_path)!r}; wait for its end, or name another folder"
        )
    assert f"waiting for another run, which still writes in {tmp_path}" in capsys.readouterr().out
    with RunFolder(config(tmp_path), runtime=runtime):  # the first one is over
        pass


def test_a_run_waits_for_one_that_is_about_to_end(tmp_path: Path, runtime: Runtime) -> None:
    lock = storage.try_to_lock(str(tmp_path))
    assert lock is not None
    threading.Timer(0.5, storage.unlock, (lock,)).start()
    with RunFolder(config(tmp_path), runtime=runtime) as opened:
        assert opened.path == str(tmp_path)
