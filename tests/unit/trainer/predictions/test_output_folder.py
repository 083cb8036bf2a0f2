"""The output folder: taken alone, goes on where a start with the same plan stopped, and the manifest comes last."""

from __future__ import annotations

import dataclasses
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs.errors import EXIT_REFUSED, ChorusError, DataError
from modules.merge import MergeRule
from tests.unit.trainer.ranks import OneOfMany
from trainer import storage
from trainer.data.reading.source import SourcePart
from trainer.predictions.completeness import WholePart
from trainer.predictions.manifest import PredictionFile, PredictionManifest, ScoredCheckpoint
from trainer.predictions.output_folder import OutputFolder
from trainer.predictions.range_files import RangeFiles, RangeFormat, ScoredRange
from trainer.predictions.row_ranges import RowRange, cut_ranges

PARTS = [SourcePart(name="day_1", num_rows=25, files={}), SourcePart(name="day_0", num_rows=8, files={})]
RANGES = cut_ranges(PARTS, range_rows=10)
WHOLE = {part.name: WholePart(num_rows=part.num_rows, label_sum=part.num_rows) for part in PARTS}
PLAN = {"data": {"parts": {"day_1": {"num_rows": 25}}}, "settings": {"range_rows": 10}, "members": ("deep",)}
FORM = RangeFormat(members=("deep",), merge=MergeRule.fixed("median", members=["deep"]))


def opened(path: Path, runtime: OneOfMany | None = None) -> OutputFolder:
    return OutputFolder(str(path), runtime=runtime or OneOfMany())  # type: ignore[arg-type]


def write(path: Path, *ranges: RowRange) -> None:
    for rows in ranges:
        numbers = np.arange(rows.first_row, rows.first_row + rows.num_rows)
        logits = torch.from_numpy(np.sin(numbers)[:, None].astype(np.float32))
        ones = np.ones(rows.num_rows, dtype=np.float32)
        RangeFiles(str(path), form=FORM).write(ScoredRange(rows=rows, row_N=numbers, labels_N=ones, logits_NM=logits))


def manifest_of(files: tuple[PredictionFile, ...], _beat: Callable[[str], None]) -> PredictionManifest:
    return PredictionManifest(
        members=FORM.members,
        parts={part.name: part.num_rows for part in PARTS},
        files=files,
        merge=FORM.merge.as_json(),
        checkpoints=(ScoredCheckpoint(label="", folder="runs/a", step=7),),
        data={"dictionary": "d1"},
    )


def start(path: Path, *ranges: RowRange, plan: dict[str, Any] = PLAN) -> frozenset[str]:
    """A start that is killed once these ranges are there; gives what it found."""
    with opened(path) as folder:
        done = folder.begin(plan, ranges=RANGES)
        write(path, *ranges)
    return done


def finish(path: Path) -> PredictionManifest:
    with opened(path) as folder:
        folder.begin(PLAN, ranges=RANGES)
        return folder.finish(RANGES, parts=WHOLE, manifest=manifest_of)


def names(path: Path) -> list[str]:
    return sorted(one.relative_to(path).as_posix() for one in path.rglob("*") if one.is_file())


def test_a_new_folder_is_made_and_marked(tmp_path: Path) -> None:
    assert start(tmp_path / "a" / "b") == frozenset()
    assert names(tmp_path / "a" / "b") == ["unfinished/plan.json"]


def test_each_start_finds_what_the_ones_before_have_done(tmp_path: Path) -> None:
    assert start(tmp_path, RANGES[0], RANGES[3]) == frozenset()
    assert start(tmp_path, RANGES[1]) == {RANGES[0].name, RANGES[3].name}
    runtime = OneOfMany()
    with opened(tmp_path, runtime) as folder:
        assert len(folder.begin(json.loads(json.dumps(PLAN)), ranges=RANGES)) == 3
    assert runtime.said == [f"3 of 4 ranges are there already: {tmp_path}"]


def test_a_finished_folder_holds_files_and_manifest_alone(tmp_path: Path) -> None:
    start(tmp_path, *RANGES)
    finish(tmp_path)
    files = PredictionManifest.read(str(tmp_path)).files
    assert [(file.part, file.first_row, file.num_rows) for file in files] == [
        ("day_1", 0, 10),
        ("day_1", 10, 10),
        ("day_1", 20, 5),
        ("day_0", 0, 8),
    ]
    assert names(tmp_path) == sorted([*(file.path for file in files), "manifest.json"])


def test_the_manifest_comes_last(tmp_path: Path) -> None:
    start(tmp_path, *RANGES)

    def fail(files: tuple[PredictionFile, ...], _beat: Callable[[str], None]) -> PredictionManifest:
        assert not (tmp_path / "manifest.json").exists()
        raise ValueError("no figures")

    with pytest.raises(ValueError, match="no figures"), opened(tmp_path) as folder:
        folder.finish(RANGES, parts=WHOLE, manifest=fail)
    assert len(names(tmp_path)) == 2 * len(RANGES) + 1
    assert len(start(tmp_path)) == len(RANGES), "nothing was lost"


@pytest.mark.parametrize("missing", range(4))
def test_missing_rows_leave_the_folder_unfinished(tmp_path: Path, missing: int) -> None:
    start(tmp_path, *(rows for rows in RANGES if rows != RANGES[missing]))
    with pytest.raises(DataError, match=f"of {RANGES[missing].part} are missing; score into another folder"):
        finish(tmp_path)
    assert not (tmp_path / "manifest.json").exists()


def test_labels_that_are_not_the_datas_leave_the_folder_unfinished(tmp_path: Path) -> None:
    start(tmp_path, *RANGES)
    wrong = {**WHOLE, "day_0": dataclasses.replace(WHOLE["day_0"], label_sum=7)}
    with pytest.raises(DataError, match="labels of day_0 add up to 8, in the data to 7"), opened(tmp_path) as folder:
        folder.finish(RANGES, parts=wrong, manifest=manifest_of)


@pytest.mark.parametrize("damage", ["gone", "cut", "byte", "zeros", "record", "of another range"])
def test_a_record_that_does_not_hold_is_taken_away(tmp_path: Path, damage: str) -> None:
    start(tmp_path, *RANGES)
    file = tmp_path / f"{RANGES[1].name}.parquet"
    record = tmp_path / "unfinished" / f"{RANGES[1].name}.json"
    if damage == "gone":
        file.unlink()
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    if damage == "byte":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    if damage == "zeros":
        file.write_bytes(bytes(file.stat().st_size))
    if damage == "record":
        record.write_text("{")
    if damage == "of another range":
        record.write_text((tmp_path / "unfinished" / f"{RANGES[0].name}.json").read_text())
    runtime = OneOfMany()
    with opened(tmp_path, runtime) as folder:
        assert folder.begin(PLAN, ranges=RANGES) == {rows.name for rows in RANGES} - {RANGES[1].name}
    assert runtime.said == [
        f"1 of 4 ranges are damaged and scored again: {tmp_path}",
        f"3 of 4 ranges are there already: {tmp_path}",
    ]
    assert not record.exists(), "else it would speak for a file that is written again"
    start(tmp_path, RANGES[1])
    finish(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"row_hash": "0" * 16},
        {"label_sum": 9},
        {"label_sum": None},
        {"sha256": "0" * 64},
        {"num_bytes": "abc"},
        {"first_row": 0},
    ],
)
def test_a_record_is_compared_with_its_range_and_file(tmp_path: Path, change: dict[str, Any]) -> None:
    start(tmp_path, *RANGES)
    record = tmp_path / "unfinished" / f"{RANGES[1].name}.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), **change}))
    assert start(tmp_path) == {rows.name for rows in RANGES} - {RANGES[1].name}


def test_a_long_look_at_what_is_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(tmp_path, *RANGES)
    monkeypatch.setattr("trainer.predictions.output_folder._SAY_SECONDS", 0.0)
    runtime = OneOfMany()
    with opened(tmp_path, runtime) as folder:
        folder.begin(PLAN, ranges=RANGES)
    assert "looked at 2 of 4 ranges that are there" in runtime.said


@pytest.mark.parametrize("text", ["[]", "{", "7", '"plan"', "null", ""])
def test_a_damaged_plan_is_a_sentence(tmp_path: Path, text: str) -> None:
    start(tmp_path, RANGES[0])
    (tmp_path / "unfinished" / "plan.json").write_text(text)
    with pytest.raises(DataError) as refused:
        start(tmp_path)
    assert str(refused.value) == (
        f"--output: {str(tmp_path)!r} holds an unfinished job whose unfinished/plan.json is damaged; give another"
        " folder, or delete it"
    )


def test_a_plan_with_an_empty_key_is_told_by_a_name(tmp_path: Path) -> None:
    start(tmp_path, RANGES[0])
    (tmp_path / "unfinished" / "plan.json").write_text(json.dumps({**PLAN, "": 7}))
    with pytest.raises(DataError, match=r"an unfinished job with plan\.json 7, not nothing; give what"):
        start(tmp_path)


def test_what_was_half_written_is_taken_away(tmp_path: Path) -> None:
    start(tmp_path, RANGES[0])
    for name in (f"{RANGES[1].name}.parquet.tmp", "manifest.json.tmp", f"unfinished/{RANGES[1].name}.json.tmp"):
        (tmp_path / name).write_bytes(b"half")
    start(tmp_path)
    assert not [name for name in names(tmp_path) if name.endswith(".tmp")]


def test_records_without_a_plan_prove_nothing(tmp_path: Path) -> None:
    start(tmp_path, *RANGES)
    (tmp_path / "unfinished" / "plan.json").unlink()
    assert start(tmp_path) == frozenset()
    assert names(tmp_path / "unfinished") == ["plan.json"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"settings": {"range_rows": 20}}, "settings.range_rows 10, not 20"),
        ({"data": {"parts": {"day_1": {"num_rows": 26}}}}, "data.parts.day_1.num_rows 25, not 26"),
        ({"data": {"parts": {}}}, "data.parts.day_1 {'num_rows': 25}, not nothing"),
        ({"members": ("deep", "solo")}, "members ['deep'], not ['deep', 'solo']"),
    ],
)
def test_another_plan_is_refused_and_changes_nothing(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    start(tmp_path, RANGES[0])
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    with pytest.raises(DataError) as refused:
        start(tmp_path, plan={**PLAN, **change})
    assert str(refused.value) == (
        f"--output: {str(tmp_path)!r} holds an unfinished job with {told}; give what it was started with to go on, or"
        " another folder, or delete it"
    )
    assert refused.value.exit_code == EXIT_REFUSED
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before


def test_a_finished_folder_is_refused_and_untouched(tmp_path: Path) -> None:
    start(tmp_path, *RANGES)
    finish(tmp_path)
    before = names(tmp_path)
    (tmp_path / "unfinished").mkdir()  # as a kill behind the manifest leaves it
    (tmp_path / "unfinished" / "plan.json").write_text("{}")
    with pytest.raises(DataError) as refused:
        start(tmp_path)
    assert str(refused.value) == (
        f"--output: {str(tmp_path)!r} holds finished predictions; give another folder, or delete it"
    )
    assert names(tmp_path) == before


@pytest.mark.parametrize(
    "name",
    ["manifest.json.tmp.bak", "x-manifest.json.tmp", "notes.txt", "day_0.parquet", "day_1-000000000020.parquet.bak"],
)
def test_a_folder_with_other_files_is_refused_and_untouched(tmp_path: Path, name: str) -> None:
    start(tmp_path, *RANGES)
    (tmp_path / name).write_text("mine")
    before = names(tmp_path)
    with pytest.raises(DataError) as refused:
        start(tmp_path)
    assert str(refused.value) == (
        f"--output: {str(tmp_path)!r} holds {name!r}, which is no prediction file; give an empty folder"
    )
    assert names(tmp_path) == before


def test_ranges_that_nobody_accounts_for_are_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "day_1-000000000000.parquet").write_bytes(b"of whom?")
    with pytest.raises(DataError, match="nothing that says which job left it there; give an empty folder"):
        start(tmp_path)
    assert names(tmp_path) == ["day_1-000000000000.parquet"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "predictions"
    path.write_text("mine")
    with pytest.raises(DataError, match="is a file; name a folder"):
        start(path)
    assert path.read_text() == "mine"


def test_two_jobs_do_not_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.predictions.output_folder._LOCK_SECONDS", 0.1)
    runtime = OneOfMany()
    with opened(tmp_path), pytest.raises(DataError, match="another job writes in .* right now"):
        opened(tmp_path, runtime).__enter__()
    assert runtime.said == [f"waiting for another job, which still writes in {tmp_path}"]
    assert start(tmp_path) == frozenset(), "the lock is given back"


def test_a_job_that_is_ending_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = storage.try_to_lock(str(tmp_path))
    assert lock is not None
    monkeypatch.setattr("trainer.predictions.output_folder.time.sleep", lambda _seconds: storage.unlock(lock))
    assert start(tmp_path) == frozenset()


def test_a_full_disk_is_a_sentence_with_a_remedy(tmp_path: Path) -> None:
    def end(error: BaseException) -> BaseException:
        with pytest.raises(BaseException) as ended, opened(tmp_path):  # noqa: PT011
            raise error
        return ended.value

    told = end(OSError(errno.ENOSPC, "No space left on device", f"{tmp_path}/x.parquet"))
    assert type(told) is ChorusError and str(told) == (
        f"--output: {str(tmp_path)!r}: No space left on device; make room, the same command goes on from the ranges"
        " that are finished"
    )
    assert "correct it, the same" in str(end(PermissionError(errno.EACCES, "Permission denied", f"{tmp_path}/x")))
    elsewhere = OSError(errno.ENOENT, "No such file", "/data/day_0.npy")
    assert end(elsewhere) is elsewhere
    stopped = end(KeyboardInterrupt())
    assert isinstance(stopped, KeyboardInterrupt)
    assert str(stopped).startswith(f"stopped; {tmp_path} is not finished, the same command goes on")
