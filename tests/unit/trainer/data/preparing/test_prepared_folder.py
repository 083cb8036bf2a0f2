"""The folder being prepared: whose files are touched, who may write, and what is continued."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ChorusError, DataError
from tests.support.click_log import synthetic_lines, write_log
from tests.support.preparing import contents, interrupt_in, settings_for
from trainer import storage
from trainer.data.manifest import DataManifest
from trainer.data.preparing.dictionary import IdRule
from trainer.data.preparing.preparation import already_prepared, prepare
from trainer.data.preparing.preparation_settings import VocabularyChoice

RARER = {"vocabulary": VocabularyChoice(rule=IdRule(min_count=3))}


@pytest.fixture
def days(tmp_path: Path) -> list[str]:
    return [write_log(tmp_path / "logs" / f"day_{day}", synthetic_lines(20, seed=day)) for day in (0, 1)]


def test_already_prepared(days, tmp_path):
    settings = settings_for(days, tmp_path / "data")
    assert already_prepared(settings) is None
    made = prepare(settings)
    times = {path: os.stat(path).st_mtime_ns for path in (tmp_path / "data").iterdir()}
    assert already_prepared(settings) == made == prepare(settings)
    assert {path: os.stat(path).st_mtime_ns for path in (tmp_path / "data").iterdir()} == times
    with pytest.raises(DataError, match="holds data prepared with vocabulary.min_count 2, not 3; give --overwrite"):
        prepare(settings_for(days, tmp_path / "data", **RARER))
    again = prepare(settings_for(days, tmp_path / "data", **RARER), overwrite=True)
    assert again != made and DataManifest.read(str(tmp_path / "data")) == again


def test_other_inputs_are_noticed(days, tmp_path):
    prepare(settings_for(days, tmp_path / "data"))
    same_name = write_log(tmp_path / "elsewhere" / "day_1", synthetic_lines(21))
    with pytest.raises(DataError, match="prepared from other input files; give --overwrite"):
        prepare(settings_for([days[0], same_name], tmp_path / "data"))
    moved = shutil.copytree(tmp_path / "logs", tmp_path / "moved")  # with their times: the same files elsewhere
    assert already_prepared(settings_for([f"{moved}/day_0", f"{moved}/day_1"], tmp_path / "data")) is not None
    os.utime(days[0], ns=(1, 1))
    with pytest.raises(DataError, match="prepared from other input files"):
        prepare(settings_for(days, tmp_path / "data"))


def test_a_file_that_is_gone_or_cut(days, tmp_path):
    prepare(settings_for(days, tmp_path / "data"))
    damaged = tmp_path / "data" / "day_1_sparse.npy"
    damaged.write_bytes(b"cut")
    with pytest.raises(DataError, match="day_1_sparse.npy: is gone or of another size than prepared; give --overwrite"):
        prepare(settings_for(days, tmp_path / "data"))
    damaged.unlink()
    with pytest.raises(DataError, match="day_1_sparse.npy: is gone"):
        prepare(settings_for(days, tmp_path / "data"))


def test_never_touches_foreign_files(days, tmp_path):
    output = tmp_path / "data"
    for name in ("thesis.txt", "day_0_dense.npy", "logs.tsv.gz", "manifest.json.bak"):
        output.mkdir()
        (output / name).write_text("mine")
        for overwrite in (False, True):
            with pytest.raises(DataError, match="choose an empty folder"):
                prepare(settings_for(days, output), overwrite=overwrite)
        assert [(path.name, path.read_text()) for path in output.iterdir()] == [(name, "mine")]
        shutil.rmtree(output)
    with pytest.raises(DataError, match="is a file; choose a folder"):
        prepare(settings_for(days, days[0]))


def test_the_old_manifest_goes_before_its_files(days, tmp_path, monkeypatch):
    output = tmp_path / "data"
    prepare(settings_for(days, output))
    removed: list[str] = []

    def remove_one_then_fail(path: str) -> None:
        if removed:
            raise OSError(5, "Input/output error")
        removed.append(path)
        os.remove(path)

    with monkeypatch.context() as broken:
        broken.setattr(storage, "remove_file", remove_one_then_fail)
        broken.setattr(storage, "remove_tree", remove_one_then_fail)
        with pytest.raises(ChorusError, match="Input/output error"):
            prepare(settings_for(days, output), overwrite=True)
    assert removed == [str(output / "manifest.json")]
    prepare(settings_for(days, output))
    prepare(settings_for(days, tmp_path / "whole"))
    assert contents(output) == contents(tmp_path / "whole")


def test_an_interrupted_preparation_is_continued_with_its_settings_alone(days, tmp_path):
    settings = settings_for(days, tmp_path / "data")
    with pytest.raises(KeyboardInterrupt):
        prepare(settings, on_progress=interrupt_in("write"))
    with pytest.raises(DataError, match="interrupted preparation with vocabulary.min_count 2, not 3; give the same"):
        prepare(settings_for(days, tmp_path / "data", **RARER))
    with pytest.raises(DataError, match="an interrupted preparation"):
        prepare(settings_for(days[:1], tmp_path / "data"))
    made = prepare(settings_for(days, tmp_path / "data", **RARER), overwrite=True)
    prepare(settings_for(days, tmp_path / "whole", **RARER))
    assert (
        contents(tmp_path / "data") == contents(tmp_path / "whole")
        and already_prepared(settings_for(days, tmp_path / "data", **RARER)) == made
    )


@pytest.mark.parametrize("stage", ["parse", "dictionary", "write", "seal"])
def test_replacing_and_being_interrupted_leaves_nothing_finished(days, tmp_path, stage):
    prepare(settings_for(days, tmp_path / "data"))
    with pytest.raises(KeyboardInterrupt):
        prepare(settings_for(days, tmp_path / "data"), overwrite=True, on_progress=interrupt_in(stage))
    assert not (tmp_path / "data" / "manifest.json").exists()
    prepare(settings_for(days, tmp_path / "data"))
    prepare(settings_for(days, tmp_path / "whole"))
    assert contents(tmp_path / "data") == contents(tmp_path / "whole")


def test_one_at_a_time(days, tmp_path):
    settings = settings_for(days, tmp_path / "data")
    refused: list[str] = []

    def try_too(now: Any) -> None:
        for overwrite in (False, True):
            with pytest.raises(DataError) as refusal:
                prepare(settings, overwrite=overwrite)
            refused.append(str(refusal.value))

    made = prepare(settings, on_progress=try_too)
    assert set(refused) == {f"{tmp_path}/data: another process prepares there right now; wait for it or end it"}
    assert prepare(settings) == made
    prepare(settings_for(days, tmp_path / "whole"))
    assert contents(tmp_path / "data") == contents(tmp_path / "whole")


def test_a_missing_input_leaves_no_folder(days, tmp_path):
    with pytest.raises(DataError, match="nowhere: no such file"):
        prepare(settings_for([*days, "nowhere"], tmp_path / "data"))
    with pytest.raises(DataError, match="logs: is not a regular file"):
        prepare(settings_for([str(tmp_path / "logs")], tmp_path / "data"))
    assert not (tmp_path / "data").exists()
