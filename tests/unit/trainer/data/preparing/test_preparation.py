"""Preparation: the folder against a plain reading of the logs, and everything that must not change it."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchrec.datasets.criteo import InMemoryBinaryCriteoIterDataPipe

from configs.errors import ChorusError, DataError
from tests.support.click_log import (
    plain_dense,
    plain_dictionaries,
    plain_ids,
    plain_labels,
    plain_log,
    saved_dictionaries,
    synthetic_lines,
    write_log,
)
from tests.support.preparing import (
    HASHED,
    MLPERF_RULE,
    arrays_of,
    contents,
    quarantine,
    rows_and_ids,
    settings_for,
)
from trainer import storage
from trainer.data.criteo import NUMERIC_ID_ROWS, numeric_ids
from trainer.data.manifest import DataManifest
from trainer.data.preparing import preparation as preparation_module
from trainer.data.preparing.criteo_format import CriteoFormat
from trainer.data.preparing.dictionary import IdRule
from trainer.data.preparing.preparation import prepare
from trainer.data.preparing.preparation_settings import PreparationSettings, VocabularyChoice
from trainer.data.preparing.splits import Split

SMALL = CriteoFormat(piece_bytes=9_000)  # several pieces for each of the small files
SIZES = {"day_0.tsv.gz": 130, "day_1.tsv": 90, "day_2.tsv.gz": 55}


@pytest.fixture
def days(tmp_path: Path) -> list[str]:
    return [write_log(tmp_path / "logs" / name, synthetic_lines(rows, seed=rows)) for name, rows in SIZES.items()]


def lines_of(path: str) -> list[str]:
    data = Path(path).read_bytes()
    return (gzip.decompress(data) if path.endswith(".gz") else data).decode().splitlines()


def rows_of(lines: list[str]) -> Any:
    return plain_log("".join(f"{line}\n" for line in lines).encode()).rows


def assert_part(output: Path, part: str, lines: list[str], counted: list[str], min_count: int = 2) -> None:
    arrays = arrays_of(output, part)
    assert {role: str(array.dtype) for role, array in arrays.items()} == {
        "dense": "float32",
        "sparse": "int32",
        "labels": "int32",
    }
    dictionaries = plain_dictionaries(rows_of(counted), min_count=min_count)
    assert saved_dictionaries(output) == dictionaries
    np.testing.assert_array_equal(arrays["labels"], plain_labels(rows_of(lines)))
    np.testing.assert_array_equal(arrays["dense"], plain_dense(rows_of(lines)))
    np.testing.assert_array_equal(arrays["sparse"], plain_ids(rows_of(lines), dictionaries))


@pytest.mark.parametrize("min_count", [1, 2, 4])
def test_a_part_for_each_file(days, tmp_path, min_count):
    output = tmp_path / "data"
    rule = IdRule(min_count=min_count)
    manifest = prepare(settings_for(days, output, input_format=SMALL, vocabulary=VocabularyChoice(rule=rule)))
    counted = lines_of(days[0]) + lines_of(days[1])
    for number, path in enumerate(days):
        assert_part(output, f"day_{number}", lines_of(path), counted, min_count)
    assert [(part.name, part.num_rows) for part in manifest.parts] == [("day_0", 130), ("day_1", 90), ("day_2", 55)]
    assert DataManifest.read(str(output)) == manifest
    assert [f.rows for f in manifest.id_features] == [len(ids) + 2 for ids in saved_dictionaries(output)]
    for part in manifest.parts:
        assert part.label_sum == arrays_of(output, part.name)["labels"].sum()
        for file in part.files.values():
            path = str(output / file.path)
            assert (storage.num_bytes(path), storage.sha256(path)) == (file.num_bytes, file.sha256)
    assert {path.name for path in output.iterdir() if path.suffix != ".npy"} == {"manifest.json", "dictionary"}


@pytest.mark.parametrize("counted", [None, ("valid",), ("train", "test")])
def test_split_in_time_over_all_files(days, tmp_path, counted):
    output = tmp_path / "data"
    split = Split(kind="time", names=("train", "valid", "test"), shares=("0.29", "0.6", "0.11"))
    choice = VocabularyChoice(parts=counted)
    prepare(settings_for(days, output, input_format=SMALL, split=split, vocabulary=choice))
    lines = [line for path in days for line in lines_of(path)]
    parts = {"train": lines[:79], "valid": lines[79:244], "test": lines[244:]}
    chosen = [line for name in counted or ("train", "valid") for line in parts[name]]
    for name, wanted in parts.items():
        assert_part(output, name, wanted, chosen)


def test_random_split_takes_every_row_once_and_in_order(days, tmp_path):
    lines = [line for path in days for line in lines_of(path)]
    split = Split(kind="random", names=("train", "valid"), shares=("0.7", "0.3"), seed=5)
    output = tmp_path / "data"
    prepare(settings_for(days, output, input_format=SMALL, split=split))
    part_of = split.members(0, len(lines))
    parts = {
        name: [line for line, part in zip(lines, part_of, strict=True) if part == number]
        for number, name in enumerate(split.names)
    }
    assert 150 < len(parts["train"]) < 230
    for name, wanted in parts.items():
        assert_part(output, name, wanted, parts["train"])


CHANGES = {
    "pieces": {"input_format": CriteoFormat(piece_bytes=1_500)},
    "one piece": {"input_format": CriteoFormat()},
    "reparse": {"keep_rows": False},
    "memory": {"memory_gb": 3.0},
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("vocabulary", [VocabularyChoice(rule=IdRule(max_rows=40)), HASHED], ids=["counted", "hashed"])
def test_what_must_not_matter_does_not(days, tmp_path, monkeypatch, change, vocabulary):
    one = prepare(settings_for(days, tmp_path / "one", input_format=SMALL, vocabulary=vocabulary))
    if change == "memory":  # the merge in many ranges
        monkeypatch.setattr(PreparationSettings, "merge_bytes", 1_000)
    how = {"input_format": SMALL, "vocabulary": vocabulary, **CHANGES[change]}
    other = prepare(settings_for(days, tmp_path / "other", **how))
    assert one == other
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


def test_packing_changes_nothing(days, tmp_path):
    spoil(days[0], 40, "no row")
    spoil(days[1], 3, "\t" * 39 + "é")
    plain = [write_log(tmp_path / "plain" / f"day_{n}.tsv", lines_of(path)) for n, path in enumerate(days)]
    packed = [write_log(tmp_path / "packed" / f"day_{n}.gz", lines_of(path)) for n, path in enumerate(days)]
    found = []
    for name, inputs in (("mixed", days), ("plain", plain), ("packed", packed)):
        for keep_rows in (True, False):
            output = tmp_path / f"{name}{keep_rows}"
            how = {"input_format": SMALL, "keep_rows": keep_rows, "max_bad_fraction": 0.1}
            manifest = prepare(settings_for(inputs, output, **how))
            reasons = [entry["reasons"] for entry in manifest.provenance["inputs"]]
            found.append((manifest.parts, manifest.features, manifest.dictionary_sha256, reasons))
            found[-1] += (rows_and_ids(output), [{**entry, "input": ""} for entry in quarantine(output)])
    assert all(other == found[0] for other in found)


@pytest.mark.parametrize("numerics", ["ids", "both"])
def test_discretised_numbers(days, tmp_path, numerics):
    log = CriteoFormat(numerics=numerics, piece_bytes=9_000)
    manifest = prepare(settings_for(days, tmp_path / "data", input_format=log))
    rows = rows_of(lines_of(days[0]))
    arrays = arrays_of(tmp_path / "data", "day_0")
    assert ("dense" in arrays) == (numerics == "both")
    raw = np.array([[x or 0 for x in row.numbers] for row in rows])
    gone = np.array([[x is None for x in row.numbers] for row in rows])
    np.testing.assert_array_equal(arrays["numeric_ids"], numeric_ids(raw, gone))
    features = {feature.name: feature for feature in manifest.features}
    assert features["I1_id"].rows == NUMERIC_ID_ROWS and features["I1_id"].file == "numeric_ids"


def test_integer_tokens(tmp_path):
    log = write_log(tmp_path / "day_0", synthetic_lines(80, tokens="int"))
    prepare(settings_for([log], tmp_path / "data", input_format=CriteoFormat(tokens="int", piece_bytes=5_000)))
    rows = plain_log(Path(log).read_bytes(), tokens="int").rows
    dictionaries = saved_dictionaries(tmp_path / "data")
    assert any(-(2**63) in ids and 2**63 - 1 in ids and -1 in ids for ids in dictionaries)
    np.testing.assert_array_equal(arrays_of(tmp_path / "data", "day_0")["sparse"], plain_ids(rows, dictionaries))


def test_a_new_day_with_a_saved_dictionary(days, tmp_path):
    """Labelled or not, plain or packed: the ids are those of the days before."""
    old = prepare(settings_for(days[:2], tmp_path / "old", input_format=SMALL))
    choice = VocabularyChoice(kind="saved", saved=str(tmp_path / "old"))
    dictionaries = saved_dictionaries(tmp_path / "old")
    lines = lines_of(days[2])
    labelled = prepare(settings_for(days[2:], tmp_path / "new", vocabulary=choice, input_format=SMALL))
    unlabelled_log = write_log(tmp_path / "day_3", [line[2:] for line in lines])
    without = CriteoFormat(has_labels=False, piece_bytes=3_000)
    unlabelled = prepare(
        settings_for([unlabelled_log], tmp_path / "today", vocabulary=choice, input_format=without, keep_rows=False)
    )
    ids = plain_ids(rows_of(lines), dictionaries)
    assert (ids == 1).any(), "unseen values"
    np.testing.assert_array_equal(arrays_of(tmp_path / "new", "day_2")["sparse"], ids)
    np.testing.assert_array_equal(arrays_of(tmp_path / "today", "day_3")["sparse"], ids)
    assert "labels" not in arrays_of(tmp_path / "today", "day_3") and unlabelled.parts[0].label_sum is None
    assert labelled.features == unlabelled.features == old.features
    assert labelled.dictionary_sha256 == unlabelled.dictionary_sha256 == old.dictionary_sha256
    for feature in old.id_features:
        copied = tmp_path / "new" / "dictionary" / f"{feature.name}.parquet"
        assert copied.read_bytes() == (tmp_path / "old" / "dictionary" / copied.name).read_bytes()
    # The new folder's dictionary serves as well as the old one's.
    again = VocabularyChoice(kind="saved", saved=str(tmp_path / "new"))
    assert prepare(settings_for(days[2:], tmp_path / "third", vocabulary=again)).parts == labelled.parts


def test_a_new_day_hashed_as_the_old_ones(days, tmp_path):
    old = prepare(settings_for(days, tmp_path / "old", vocabulary=HASHED))
    choice = VocabularyChoice(kind="saved", saved=str(tmp_path / "old"))
    new = prepare(settings_for(days[2:], tmp_path / "new", vocabulary=choice))
    assert new.parts[0] == old.parts[2] and new.features == old.features
    assert new.dictionary_sha256 == old.dictionary_sha256


def test_a_saved_dictionary_that_is_gone_is_named_as_such(days, tmp_path):
    prepare(settings_for(days[:2], tmp_path / "old"))
    (tmp_path / "old" / "dictionary" / "C7.parquet").unlink()
    choice = VocabularyChoice(kind="saved", saved=str(tmp_path / "old"))
    with pytest.raises(ChorusError, match="C7.parquet") as refusal:
        prepare(settings_for(days[2:], tmp_path / "new", vocabulary=choice))
    assert "cannot be written" not in str(refusal.value)


def test_torchrec_reads_the_folder(days, tmp_path):
    output = tmp_path / "data"
    prepare(settings_for(days, output))
    paths = {role: [str(output / f"day_{d}_{role}.npy") for d in (0, 1)] for role in ("dense", "sparse", "labels")}
    for mmap_mode in (False, True):
        seen = []
        for rank in (0, 1):
            pipe = InMemoryBinaryCriteoIterDataPipe(
                stage="train",
                dense_paths=paths["dense"],
                sparse_paths=paths["sparse"],
                labels_paths=paths["labels"],
                batch_size=32,
                rank=rank,
                world_size=2,
                mmap_mode=mmap_mode,
            )
            seen.append(list(pipe))
        assert sum(len(batch.labels) for batches in seen for batch in batches) == 220
        first, arrays = seen[0][0], arrays_of(output, "day_0")
        np.testing.assert_array_equal(first.dense_features.numpy(), arrays["dense"][:32])
        np.testing.assert_array_equal(first.labels.numpy(), arrays["labels"][:32, 0])
        np.testing.assert_array_equal(first.sparse_features.values().reshape(26, 32).T.numpy(), arrays["sparse"][:32])


def spoil(path: str, line: int, text: str) -> None:
    lines = lines_of(path)
    lines[line - 1] = text
    write_log(Path(path), lines)


def test_one_row_and_empty_packed_files(tmp_path):
    one = write_log(tmp_path / "one", synthetic_lines(1))
    empty = tmp_path / "none.gz"
    empty.write_bytes(gzip.compress(b""))
    manifest = prepare(settings_for([one], tmp_path / "data"))
    assert manifest.parts[0].num_rows == 1
    with pytest.raises(DataError, match="no row in any input"):
        prepare(settings_for([str(empty)], tmp_path / "other"))
    both = prepare(settings_for([str(empty), one], tmp_path / "both"))
    assert [part.num_rows for part in both.parts] == [0, 1]
    assert arrays_of(tmp_path / "both", "none")["sparse"].shape == (0, 26)


def test_several_processes_change_nothing(days, tmp_path, monkeypatch):
    monkeypatch.setattr(preparation_module, "_BYTES_WORTH_A_PROCESS", 1)
    choice = VocabularyChoice(rule=MLPERF_RULE)
    log = CriteoFormat(numerics="raw", piece_bytes=9_000)
    for number in (1, 2):
        how = {"input_format": log, "vocabulary": choice, "split": Split.last_in_halves(days)}
        prepare(settings_for(days, tmp_path / str(number), num_workers=number, **how))
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


@pytest.mark.real_data
def test_real_rows(real_data, tmp_path):
    """Nothing of a real day is lost or changed."""
    found = sorted(real_data.glob("criteo-1tb-day0-head10k/*"))
    log = next((path for path in found if path.name.endswith((".gz", ".tsv", ".txt"))), None)
    if log is None:
        pytest.skip("no head of day 0")
    data = log.read_bytes()
    plain = plain_log(gzip.decompress(data) if log.suffix == ".gz" else data)
    copy = tmp_path / ("day_0.gz" if log.suffix == ".gz" else "day_0")
    copy.write_bytes(data)
    manifest = prepare(settings_for([str(copy)], tmp_path / "data"))
    assert manifest.parts[0].num_rows == len(plain.rows) > 9_000 and not plain.bad
    dictionaries = plain_dictionaries(plain.rows, min_count=2)
    assert saved_dictionaries(tmp_path / "data") == dictionaries
    arrays = arrays_of(tmp_path / "data", "day_0")
    np.testing.assert_array_equal(arrays["sparse"], plain_ids(plain.rows, dictionaries))
    np.testing.assert_array_equal(arrays["dense"], plain_dense(plain.rows))
    np.testing.assert_array_equal(arrays["labels"], plain_labels(plain.rows))


def test_the_manifest_says_how_it_was_made(days, tmp_path):
    spoil(days[1], 4, "no row")
    manifest = prepare(settings_for(days, tmp_path / "data", max_bad_fraction=0.01))
    inputs = manifest.provenance["inputs"]
    assert [entry["num_lines"] for entry in inputs] == [130, 90, 55]
    assert [entry["num_rows"] for entry in inputs] == [130, 89, 55]
    assert inputs[1]["reasons"] == {"not 40 fields": 1}
    assert manifest.provenance["vocabulary"]["from"] == ["day_0", "day_1"]
    assert json.loads((tmp_path / "data" / "manifest.json").read_text())["provenance"] == manifest.provenance
    assert os.path.basename(inputs[0]["path"]) == "day_0.tsv.gz"
