"""Preparations that were interrupted, changed under their feet or out of room: the same folder in the end."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ChorusError, DataError
from tests.support.click_log import (
    synthetic_lines,
    write_log,
)
from tests.support.preparing import (
    HASHED,
    contents,
    interrupt_in,
    settings_for,
)
from trainer import storage
from trainer.data.manifest import DataManifest
from trainer.data.preparing.criteo_format import CriteoFormat
from trainer.data.preparing.part_writing import OutputFile
from trainer.data.preparing.pieces import PieceWriter
from trainer.data.preparing.preparation import already_prepared, prepare
from trainer.data.preparing.preparation_settings import VocabularyChoice
from trainer.data.preparing.splits import Split

SMALL = CriteoFormat(piece_bytes=9_000)  # several pieces for each of the small files
SIZES = {"day_0.tsv.gz": 130, "day_1.tsv": 90, "day_2.tsv.gz": 55}


@pytest.fixture
def days(tmp_path: Path) -> list[str]:
    return [write_log(tmp_path / "logs" / name, synthetic_lines(rows, seed=rows)) for name, rows in SIZES.items()]


def lines_of(path: str) -> list[str]:
    data = Path(path).read_bytes()
    return (gzip.decompress(data) if path.endswith(".gz") else data).decode().splitlines()


def spoil(path: str, line: int, text: str) -> None:
    lines = lines_of(path)
    lines[line - 1] = text
    write_log(Path(path), lines)


STAGES = [("parse", 9), ("dictionary", 20), ("write", 1), ("write", 3), ("write", 9), ("seal", 4)]


@pytest.mark.parametrize(("stage", "after_calls"), STAGES)
@pytest.mark.parametrize(("first_keeps", "then_keeps"), [(True, True), (True, False), (False, True), (False, False)])
def test_interrupted_anywhere_then_continued(days, tmp_path, stage, after_calls, first_keeps, then_keeps):
    """Also with the other way of reading: --reparse is no setting of what comes out."""
    for vocabulary in (VocabularyChoice(), HASHED):
        how = {"input_format": SMALL, "vocabulary": vocabulary}
        name = vocabulary.kind
        prepare(settings_for(days, tmp_path / f"whole_{name}", **how))
        cut = settings_for(days, tmp_path / f"cut_{name}", keep_rows=first_keeps, **how)
        if stage == "dictionary" and vocabulary is HASHED:
            continue
        with pytest.raises(KeyboardInterrupt):
            prepare(cut, on_progress=interrupt_in(stage, after_calls=after_calls))
        assert already_prepared(cut) is None
        prepare(settings_for(days, tmp_path / f"cut_{name}", keep_rows=then_keeps, **how))
        assert contents(tmp_path / f"cut_{name}") == contents(tmp_path / f"whole_{name}")


def test_what_is_done_is_not_done_again(days, tmp_path):
    told: list[tuple[str, int]] = []
    settings = settings_for(days, tmp_path / "data", input_format=SMALL)
    with pytest.raises(KeyboardInterrupt):
        prepare(settings, on_progress=interrupt_in("write", after_calls=1))
    prepare(settings, on_progress=lambda now: told.append((now.stage, now.num_rows)))
    assert {stage for stage, _ in told} == {"write", "seal"}


@pytest.mark.parametrize("split", ["time", "random"])
def test_interrupted_splits(days, tmp_path, split):
    how: dict[str, Any] = {
        "input_format": SMALL,
        "split": Split(kind=split, names=("a", "b"), shares=("0.5", "0.5")),  # type: ignore[arg-type]
    }
    prepare(settings_for(days, tmp_path / "whole", **how))
    for stage in ("count", "dictionary", "write"):
        with pytest.raises(KeyboardInterrupt):
            prepare(settings_for(days, tmp_path / "cut", **how), on_progress=interrupt_in(stage, after_calls=3))
    prepare(settings_for(days, tmp_path / "cut", **how))
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_file_that_changed_meanwhile_is_done_again(days, tmp_path):
    """Before its rows are in the parts only its own pieces, after that all."""
    for stage in ("parse", "dictionary", "write"):
        shutil.rmtree(tmp_path / "cut", ignore_errors=True)
        shutil.rmtree(tmp_path / "whole", ignore_errors=True)
        write_log(Path(days[1]), synthetic_lines(90, seed=90))
        with pytest.raises(KeyboardInterrupt):
            after = interrupt_in(stage, after_calls=12)
            prepare(settings_for(days, tmp_path / "cut", input_format=SMALL), on_progress=after)
        spoil(days[1], 5, synthetic_lines(1, seed=77)[0])
        prepare(settings_for(days, tmp_path / "cut", input_format=SMALL))
        prepare(settings_for(days, tmp_path / "whole", input_format=SMALL))
        assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_input_that_changes_while_it_is_read(days, tmp_path):
    def grow(now: Any) -> None:
        if now.stage == "dictionary":
            write_log(Path(days[1]), synthetic_lines(91, seed=90))

    with pytest.raises(DataError, match="day_1.tsv: its lines changed while they were read"):
        prepare(settings_for(days, tmp_path / "data", keep_rows=False), on_progress=grow)
    assert not (tmp_path / "data" / "manifest.json").exists()


def test_scratch_files_that_a_kill_left_behind_go(days, tmp_path, monkeypatch):
    """A kill between the manifest and the end of tidying up: the next start takes the rest away."""
    settings = settings_for(days, tmp_path / "data")
    monkeypatch.setattr(storage, "remove_tree", lambda folder: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        prepare(settings)
    monkeypatch.undo()
    prepare(settings)
    assert not (tmp_path / "data" / "unfinished").exists()


@pytest.mark.parametrize("where", [(PieceWriter, "finish"), (OutputFile, "put"), (DataManifest, "write")])
def test_disk_full(days, tmp_path, monkeypatch, where):
    real = getattr(*where)
    calls: list[int] = []

    def full(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) > 2 or where[1] == "write":
            raise OSError(28, "No space left on device")
        return real(*arguments, **named)

    settings = settings_for(days, tmp_path / "data", input_format=SMALL)
    with monkeypatch.context() as broken:
        broken.setattr(*where, full)
        with pytest.raises(ChorusError, match="No space left on device .* make room") as refusal:
            prepare(settings)
    assert refusal.value.exit_code == 1 and "goes on from what is done" in str(refusal.value)
    assert not (tmp_path / "data" / "manifest.json").exists()
    prepare(settings)
    prepare(settings_for(days, tmp_path / "whole", input_format=SMALL))
    assert contents(tmp_path / "data") == contents(tmp_path / "whole")
