"""The MLPerf mode against the reference's own code: the same numbers bit for bit, the same ids, the same halves."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from torchrec.datasets.criteo import BinaryCriteoUtils

from tests.support.click_log import synthetic_lines, write_log
from tests.support.preparing import MLPERF_RULE, arrays_of, settings_for
from trainer.data.manifest import DataManifest
from trainer.data.mlperf import MAX_TABLE_ROWS, MULTI_HOT_SIZES
from trainer.data.preparing.criteo_format import CriteoFormat
from trainer.data.preparing.dictionary import IdRule
from trainer.data.preparing.preparation import prepare
from trainer.data.preparing.preparation_settings import VocabularyChoice
from trainer.data.preparing.splits import Split

RAW = CriteoFormat(numerics="raw", piece_bytes=4_000)


def day_lines(day: int, num_rows: int) -> list[str]:
    """Days of other minima and, in part, of values of their own; numbers that float64 steps would round otherwise."""
    lines = [line.split("\t") for line in synthetic_lines(num_rows, seed=day)]
    for place, fields in enumerate(lines):
        fields[1] = str(-3 + 2 * day) if place == 7 else fields[1]
        fields[2] = str(2_000_000_000 - place)
        fields[14] = f"{day * 50 + place % 70:x}"
        fields[15] = "abc"
        fields[16] = "" if place % 2 else "0000"  # which the reference takes for the same
    return ["\t".join(fields) for fields in lines]


@pytest.fixture
def days(tmp_path: Path) -> list[str]:
    return [write_log(tmp_path / "logs" / f"day_{day}", day_lines(day, rows)) for day, rows in enumerate((90, 61, 75))]


def prepare_as_reference(days: list[str], output: Path, *, max_rows: int, **changed: object) -> DataManifest:
    rule = IdRule(order="first_row", min_count=1, max_rows=max_rows)
    return prepare(
        settings_for(
            days,
            output,
            input_format=RAW,
            vocabulary=VocabularyChoice(rule=rule),
            split=Split.last_in_halves(days),
            **changed,
        )
    )


def reference(days: list[str], folder: Path) -> dict[str, list[np.ndarray]]:
    """torchrec's steps: text to arrays, then consecutive ids over all days."""
    folder.mkdir()
    with contextlib.redirect_stdout(io.StringIO()):
        for day, path in enumerate(days):
            names = [str(folder / f"day_{day}_{role}.npy") for role in ("dense", "sparse", "labels")]
            BinaryCriteoUtils.tsv_to_npys(path, *names)
        BinaryCriteoUtils.sparse_to_contiguous(
            [str(folder / f"day_{day}_sparse.npy") for day in range(len(days))], str(folder), frequency_threshold=0
        )
    numbers = range(len(days))
    return {
        "dense": [np.load(folder / f"day_{day}_dense.npy") for day in numbers],
        "labels": [np.load(folder / f"day_{day}_labels.npy") for day in numbers],
        "ids": [np.load(folder / f"day_{day}_sparse_contig_freq.npy") for day in numbers],
    }


@pytest.mark.parametrize("max_rows", [40_000_000, 50])
def test_equal_to_torchrec(days, tmp_path, max_rows):
    wanted = reference(days, tmp_path / "reference")
    manifest = prepare_as_reference(days, tmp_path / "ours", max_rows=max_rows)
    table_rows = np.array([feature.rows for feature in manifest.id_features])
    num_values = np.concatenate(wanted["ids"]).max(axis=0) - 1
    np.testing.assert_array_equal(table_rows, np.minimum(num_values, max_rows))
    assert [(part.name, part.num_rows) for part in manifest.parts] == [
        ("day_0", 90),
        ("day_1", 61),
        ("day_2_val", 38),  # of 75 rows the first half, rounded up, as torchrec's stage "val" reads them
        ("day_2_test", 37),
    ]
    slices = [("day_0", 0, slice(None)), ("day_1", 1, slice(None))]
    slices += [("day_2_val", 2, slice(0, 38)), ("day_2_test", 2, slice(38, None))]
    for name, day, rows in slices:
        ours = arrays_of(tmp_path / "ours", name)
        np.testing.assert_array_equal(ours["sparse"], wanted["ids"][day][rows] % table_rows)
        np.testing.assert_array_equal(ours["labels"], wanted["labels"][day][rows])
        assert ours["dense"].dtype == np.float32
        assert ours["dense"].tobytes() == wanted["dense"][day][rows].tobytes()


def test_missing_is_value_zero_here_and_nowhere_else(tmp_path):
    fields = synthetic_lines(1)[0].split("\t")
    lines = ["\t".join([*fields[:14], token, *fields[15:]]) for token in ("", "00000000", "", "0", "7", "7")]
    log = write_log(tmp_path / "day_0", lines)
    prepare(settings_for([log], tmp_path / "ours"))
    ids = arrays_of(tmp_path / "ours", "day_0")["sparse"][:, 0].tolist()
    assert ids[0] == ids[2] == 0 and ids[1] == ids[3] >= 2 and ids[4] == ids[5] >= 2 and ids[1] != ids[4]
    choice = VocabularyChoice(rule=MLPERF_RULE)
    prepare(settings_for([log], tmp_path / "theirs", input_format=RAW, vocabulary=choice))
    ids = arrays_of(tmp_path / "theirs", "day_0")["sparse"][:, 0].tolist()
    assert len(set(ids[:4])) == 1 and ids[4] == ids[5] != ids[0]


@pytest.mark.parametrize("rounding", [False, True])
@pytest.mark.parametrize("max_rows", [10**9, 2**24 + 11])
def test_ids_above_2_to_the_24_with_and_without_the_references_rounding(
    days, tmp_path, monkeypatch, rounding, max_rows
):
    """As if 2^24 values had come before these: the reference rounds the training days alone, before its modulo."""
    wanted = reference(days, tmp_path / "reference")["ids"]
    skipped = 2**24 - 2
    true_rule = IdRule.table_rows

    def as_if(rule: IdRule, num_values: int) -> int:
        return true_rule(rule, num_values + skipped)

    monkeypatch.setattr("trainer.data.preparing.dictionary.FIRST_VALUE_ID", 2 + skipped)
    monkeypatch.setattr(IdRule, "table_rows", as_if)
    manifest = prepare_as_reference(days, tmp_path / "ours", max_rows=max_rows, mlperf_float32=rounding)
    table_rows = np.array([feature.rows for feature in manifest.id_features])
    changed = 0
    for name, day, rows in (
        ("day_0", 0, slice(None)),
        ("day_2_val", 2, slice(0, 38)),
        ("day_2_test", 2, slice(38, None)),
    ):
        exact = wanted[day][rows] + skipped
        passed = exact.astype(np.float32).astype(np.int64) if rounding and day < 2 else exact
        changed += int((passed != exact).sum())
        ours = arrays_of(tmp_path / "ours", name)["sparse"]
        assert (ours < table_rows).all(), "an id outside its table"
        np.testing.assert_array_equal(ours, passed % table_rows)
    assert (changed > 100) == rounding


def test_the_facts():
    assert MAX_TABLE_ROWS == 40_000_000
    assert len(MULTI_HOT_SIZES) == 26 and sum(MULTI_HOT_SIZES) == 214


def test_bags_are_stored_as_their_first_ids(days, tmp_path):
    manifest = prepare_as_reference(days, tmp_path / "bags", max_rows=100, bag_sizes=MULTI_HOT_SIZES)
    plain = prepare_as_reference(days, tmp_path / "plain", max_rows=100)
    assert manifest.parts == plain.parts
    assert [feature.bag_size or 1 for feature in manifest.id_features] == list(MULTI_HOT_SIZES)
    assert [feature.kind for feature in manifest.id_features][:3] == ["bag", "bag", "id"]


def test_a_number_whose_logarithm_is_none_is_refused(tmp_path):
    """x - minimum + 2 beyond 32 bits: the reference wraps it around and keeps what no model can train on."""
    lines = [line.split("\t") for line in synthetic_lines(4)]
    lines[1][1], lines[2][1] = "2147483647", "-2"
    log = write_log(tmp_path / "day_0", ["\t".join(fields) for fields in lines])
    prepared = False
    with contextlib.suppress(Exception):
        choice = VocabularyChoice(rule=MLPERF_RULE)
        prepare(settings_for([log], tmp_path / "out", input_format=RAW, vocabulary=choice))
        prepared = True
    assert not prepared or np.isfinite(arrays_of(tmp_path / "out", "day_0")["dense"]).all()
