"""Accounting: bad lines are set aside with their numbers and reasons, and too many end the preparation."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from configs.errors import DataError
from tests.support.click_log import plain_dense, plain_log, synthetic_lines, write_log
from tests.support.preparing import HASHED, arrays_of, quarantine, settings_for
from trainer.data.manifest import DataManifest
from trainer.data.preparing import piece_parsing
from trainer.data.preparing.criteo_format import CriteoFormat
from trainer.data.preparing.preparation import prepare
from trainer.data.preparing.splits import Split
from trainer.data.preparing.text_files import DAMAGED_GZIP, TextFile

SMALL = CriteoFormat(piece_bytes=2_000)


@pytest.fixture
def logs(tmp_path: Path) -> list[str]:
    """Two days of 100 and 50 lines; lines 3, 60 and 100 of the first and 50 of the second are none."""
    first, second = synthetic_lines(100), synthetic_lines(50, seed=1)
    first[2], first[59], first[99] = "1\t2", first[59].replace("\t", "\tx", 1), "\0" * 300
    second[49] = "2" + second[49][1:]
    return [write_log(tmp_path / "day_0.gz", first), write_log(tmp_path / "day_1", second)]


WANTED = [
    ("day_0", 3, "not 40 fields", "2 fields"),
    ("day_0", 60, "I1 not an integer", None),
    ("day_0", 100, "a NUL byte", "the file is damaged there"),
    ("day_1", 50, "label not 0 or 1", "'2'"),
]


@pytest.mark.parametrize("block_bytes", [1_000, 1 << 20])
@pytest.mark.parametrize("piece_bytes", [500, 2_000, 1 << 20])
def test_bad_lines_are_set_aside(logs, tmp_path, monkeypatch, piece_bytes, block_bytes):
    monkeypatch.setitem(TextFile.__init__.__kwdefaults__, "block_bytes", block_bytes)
    log = CriteoFormat(piece_bytes=piece_bytes)
    manifest = prepare(settings_for(logs, tmp_path / "out", input_format=log, max_bad_fraction=0.05))
    found = quarantine(tmp_path / "out")
    assert [(entry["part"], entry["line"], entry["reason"]) for entry in found] == [line[:3] for line in WANTED]
    for entry, (part, _, _, detail) in zip(found, WANTED, strict=True):
        assert entry["input"] == logs[int(part[-1])] and entry["found"] == detail or detail is None
        assert 0 < len(entry["text"]) <= 200
    assert found[0]["text"] == "1\t2"
    accounts = [
        {key: entry[key] for key in ("num_lines", "num_rows", "num_quarantined")}
        for entry in manifest.provenance["inputs"]
    ]
    assert accounts == [
        {"num_lines": 100, "num_rows": 97, "num_quarantined": 3},
        {"num_lines": 50, "num_rows": 49, "num_quarantined": 1},
    ]
    assert [part.num_rows for part in manifest.parts] == [97, 49]
    assert len(arrays_of(tmp_path / "out", "day_0")["labels"]) == 97


def test_where_no_file_says_the_part_none_is_named(logs, tmp_path):
    split = Split(kind="time", names=("a", "b"), shares=("0.5", "0.5"))
    prepare(settings_for(logs, tmp_path / "out", split=split, max_bad_fraction=0.05))
    assert {entry["part"] for entry in quarantine(tmp_path / "out")} == {None}


def test_too_many_bad_lines_name_the_worst_file(logs, tmp_path):
    settings = settings_for(logs, tmp_path / "out", input_format=SMALL)
    with pytest.raises(DataError) as refusal:
        prepare(settings)
    assert str(refusal.value) == (
        "4 of 150 lines are no rows, more than --max-bad-fraction 0.0001 allows; worst is"
        f" {logs[0]} with 3 of 100, first line 3 (not 40 fields: 2 fields), most often 'I1 not an integer'; see"
        f" {tmp_path}/out/quarantine.jsonl, correct the file or raise the limit, and run again"
    )
    assert len(quarantine(tmp_path / "out")) == 4
    with pytest.raises(DataError, match="did not finish"):
        DataManifest.read(str(tmp_path / "out"))
    # Raising the limit goes on from what was read.
    stages = set()
    generous = settings_for(logs, tmp_path / "out", input_format=SMALL, max_bad_fraction=4 / 150)
    prepare(generous, on_progress=lambda now: stages.add(now.stage))
    assert "parse" not in stages


def test_the_limit_is_a_share_that_may_just_be_met(logs, tmp_path):
    with pytest.raises(DataError, match="4 of 150"):
        prepare(settings_for(logs, tmp_path / "out", max_bad_fraction=3.99 / 150))
    prepare(settings_for(logs, tmp_path / "out", max_bad_fraction=4 / 150))


def test_a_corrected_file_leaves_no_quarantine(logs, tmp_path):
    with pytest.raises(DataError):
        prepare(settings_for(logs, tmp_path / "out"))
    write_log(Path(logs[0]), synthetic_lines(100))
    write_log(Path(logs[1]), synthetic_lines(50, seed=1))
    prepare(settings_for(logs, tmp_path / "out"))
    assert quarantine(tmp_path / "out") == [] and not (tmp_path / "out" / "quarantine.jsonl").exists()


def test_a_cut_off_file_is_refused_unless_allowed(tmp_path):
    lines = [line for seed in range(20) for line in synthetic_lines(400, seed=seed)]
    packed = gzip.compress(("\n".join(lines) + "\n").encode())
    log = tmp_path / "day_0.gz"
    log.write_bytes(packed[: len(packed) * 9 // 10])
    with pytest.raises(DataError, match="the gzip file is damaged or cut off here, after [0-9,]+ rows, and nobody"):
        prepare(settings_for([str(log)], tmp_path / "out", vocabulary=HASHED, max_bad_fraction=1.0))
    manifest = prepare(
        settings_for([str(log)], tmp_path / "out", vocabulary=HASHED, max_bad_fraction=1.0, allow_damaged=True)
    )
    whole = plain_log("\n".join(lines).encode()).rows
    num_rows = manifest.parts[0].num_rows
    assert 0.8 * len(whole) < num_rows < len(whole)
    arrays = arrays_of(tmp_path / "out", "day_0")
    np.testing.assert_array_equal(arrays["dense"], plain_dense(whole[:num_rows]))
    (entry,) = quarantine(tmp_path / "out")
    assert (entry["line"], entry["reason"]) == (num_rows + 1, DAMAGED_GZIP)
    assert lines[num_rows].startswith(entry["text"])  # what was left of the last line


def test_a_file_of_another_kind_ends_the_reading_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(piece_parsing, "_FEW_LINES", 50)
    log = write_log(tmp_path / "day_0", ["a,b,c"] * 200 + synthetic_lines(1))
    with pytest.raises(
        DataError, match="200 of 201 lines read are no rows.*this is not a file of the format"
    ) as refusal:
        prepare(settings_for([log], tmp_path / "out"))
    assert "line 1 of a block: not 40 fields (1 field)" in str(refusal.value)
