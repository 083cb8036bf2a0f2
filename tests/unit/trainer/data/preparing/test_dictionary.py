"""Dictionaries: a function of the counted values alone, capped as the rule says, and the same when read again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import DataError
from tests.unit.trainer.data.preparing.test_value_counts import DTYPES, counted, runs_of, skewed
from trainer.data.mixing import mix
from trainer.data.preparing import dictionary as dictionary_module
from trainer.data.preparing import ranking
from trainer.data.preparing.dictionary import Dictionary, DictionaryJob, IdRule, SavedDictionaryJob, combined_sha256
from trainer.data.preparing.lookup import Lookup


def make(folder: Path, pieces: list[np.ndarray], *, rule: IdRule, bits: int = 32, **changed: Any) -> Dictionary:
    folder.mkdir(exist_ok=True)
    by_first_row = rule.order == "first_row"
    counts = [counted([piece], bits, with_places=by_first_row) for piece in pieces]
    usual: dict[str, Any] = {
        "name": "C1",
        "runs": tuple(runs_of(folder, counts, bits)),
        "rule": rule,
        "value_bits": bits,
        "folder": str(folder),
        "output": str(folder / "C1.parquet"),
        "memory_bytes": 1 << 30,
    }
    return DictionaryJob(**{**usual, **changed}).run(lambda num_bytes, num_rows: None)


def saved(folder: Path) -> dict[int, tuple[int, int]]:
    """Value -> (id, count), in the order of the file."""
    table = pq.read_table(folder / "C1.parquet").to_pydict()
    return {v: (i, n) for v, i, n in zip(table["value"], table["id"], table["count"], strict=True)}


@pytest.mark.parametrize("chunk", [101, 1 << 20])
@pytest.mark.parametrize("min_count", [1, 2, 7])
@pytest.mark.parametrize("memory_bytes", [1_000, 1 << 30])
def test_ids_by_descending_count(tmp_path, monkeypatch, chunk, min_count, memory_bytes):
    for module in (dictionary_module, ranking):
        monkeypatch.setattr(module, "CHUNK", chunk)
    values = skewed(2_000, 32)
    made = make(tmp_path, np.array_split(values, 3), rule=IdRule(min_count=min_count), memory_bytes=memory_bytes)
    counts = {value: number for value, number in Counter(values.tolist()).items() if number >= min_count}
    order = sorted(counts, key=lambda value: (-counts[value], value))
    assert saved(tmp_path) == {value: (place + 2, counts[value]) for place, value in enumerate(order)}
    assert list(saved(tmp_path)) == order
    assert (made.num_values, made.rows) == (len(order), len(order) + 2)
    wanted = [saved(tmp_path)[value][0] if value in counts else 1 for value in values.tolist()]
    assert Lookup(made.lookup).ids(values.astype(np.uint32)).tolist() == wanted
    left = {path.name for path in tmp_path.iterdir()} - {"0.counts", "1.counts", "2.counts"}
    assert left == {"C1.parquet", "C1.lookup"}  # nothing else stays on the disk


def test_order_of_rows_pieces_and_memory_do_not_matter(tmp_path):
    values = skewed(3_000, 32)
    one = make(tmp_path / "one", [values], rule=IdRule())
    shuffled = np.random.default_rng(0).permutation(values)
    other = make(tmp_path / "other", np.array_split(shuffled, 7), rule=IdRule(), memory_bytes=500)
    assert one.sha256 == other.sha256
    assert (tmp_path / "one" / "C1.parquet").read_bytes() == (tmp_path / "other" / "C1.parquet").read_bytes()
    assert (tmp_path / "one" / "C1.lookup").read_bytes() == (tmp_path / "other" / "C1.lookup").read_bytes()


@pytest.mark.parametrize("chunk", [5, 1 << 20])
@pytest.mark.parametrize("max_rows", [None, 10_000, 97])
def test_ids_by_first_row(tmp_path, monkeypatch, chunk, max_rows):
    for module in (dictionary_module, ranking):
        monkeypatch.setattr(module, "CHUNK", chunk)
    values = skewed(2_000, 32)
    rule = IdRule(order="first_row", min_count=1, max_rows=max_rows)
    made = make(tmp_path, np.array_split(values, 5), rule=rule, memory_bytes=2_000)
    order = list(dict.fromkeys(values.tolist()))
    rows = min(len(order), max_rows or len(order))
    assert made.rows == rows
    assert {value: number for value, (number, _) in saved(tmp_path).items()} == {
        value: (place + 2) % rows for place, value in enumerate(order)
    }
    assert list(saved(tmp_path)) == order


@pytest.mark.parametrize("bits", [32, 64])
def test_a_cap_leaves_the_head_and_hashes_the_tail(tmp_path, bits):
    values = skewed(5_000, bits)
    free = make(tmp_path / "free", [values], rule=IdRule(min_count=1), bits=bits)
    capped = make(tmp_path / "capped", [values], rule=IdRule(min_count=1, max_rows=102), bits=bits)
    assert free.num_values == capped.num_values > 300 and capped.rows == 102
    head_rows = 102 - 100 // 4
    before, after = saved(tmp_path / "free"), saved(tmp_path / "capped")
    for value, (number, count) in before.items():
        if number < head_rows:
            assert after[value] == (number, count)
        else:
            assert head_rows <= after[value][0] < 102 and after[value][1] == count
    tail = [number for number, _ in after.values() if number >= head_rows]
    assert len(set(tail)) == 25  # spread over all of its rows
    asked = np.array(list(after), np.int64).view(np.uint64).astype(DTYPES[bits])
    assert Lookup(capped.lookup).ids(asked).tolist() == [number for number, _ in after.values()]


def test_a_cap_that_just_fits_changes_nothing():
    ranks, mixed = np.arange(50), mix(np.arange(50, dtype=np.uint32))
    for max_rows in (52, 53, None):
        ids = IdRule(min_count=1, max_rows=max_rows).ids(ranks, mixed, num_values=50)
        assert ids.tolist() == list(range(2, 52))
    assert IdRule(min_count=1, max_rows=51).ids(ranks, mixed, num_values=50).tolist()[:37] == list(range(2, 39))
    assert IdRule(min_count=1, max_rows=4).ids(ranks, mixed, num_values=50).tolist() == [2] + [3] * 49


def test_ids_above_2_to_the_24_survive():
    """The rule works in whole numbers: a table of 292 million rows has all its ids."""
    ranks = np.array([2**24 - 1, 2**24, 2**24 + 1, 292_775_613])
    mixed = mix(np.arange(4, dtype=np.uint32))
    for order in ("count", "first_row"):
        ids = IdRule(order=order, min_count=1).ids(ranks, mixed, num_values=300_000_000)
        assert ids.tolist() == [2**24 + 1, 2**24 + 2, 2**24 + 3, 292_775_615]
    modulo = IdRule(order="first_row", min_count=1, max_rows=40_000_000)
    assert modulo.ids(ranks, mixed, num_values=300_000_000).tolist()[-1] == 292_775_615 % 40_000_000


def test_hash_zero_is_a_value(tmp_path):
    made = make(tmp_path, [np.array([0, 0])], rule=IdRule())
    assert saved(tmp_path) == {0: (2, 2)}
    assert Lookup(made.lookup).ids(np.array([0, 1], np.uint32)).tolist() == [2, 1]


@pytest.mark.parametrize("order", ["count", "first_row"])
def test_nothing_kept(tmp_path, order):
    for pieces in ([], [np.array([])], [np.array([5])]):
        rule = IdRule(order=order, min_count=2)
        made = make(tmp_path, pieces, rule=rule)
        assert made.num_values == 0 and saved(tmp_path) == {}
        ids = Lookup(made.lookup).ids(np.array([5], np.uint32))
        assert ids.tolist() == [1] and made.rows >= 2, "id 1 must be in the table"


def test_64_bit_values_are_saved_as_signed_numbers(tmp_path):
    values = np.array([-1, -1, -(2**63), -(2**63), 2**63 - 1, 2**63 - 1]).view(np.uint64)
    make(tmp_path, [values], rule=IdRule(), bits=64)
    assert sorted(saved(tmp_path)) == [-(2**63), -1, 2**63 - 1]


def test_texts_are_saved_beside_their_values(tmp_path):
    pq.write_table(pa.table({"value": np.array([3, -7]), "text": ["three", "minus"]}), tmp_path / "texts")
    values = np.array([3, 3, -7, -7, -7]).view(np.uint64)
    make(tmp_path, [values], rule=IdRule(), bits=64, texts=(str(tmp_path / "texts"),))
    table = pq.read_table(tmp_path / "C1.parquet").to_pydict()
    assert table["value"] == [-7, 3] and table["text"] == ["minus", "three"]


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("memory_bytes", [3_000, 1 << 30])
def test_a_saved_dictionary_gives_the_same_ids(tmp_path, bits, memory_bytes):
    values = skewed(3_000, bits)
    made = make(tmp_path / "old", [values], rule=IdRule(max_rows=60), bits=bits)
    (tmp_path / "new").mkdir()
    job = saved_job(tmp_path / "old" / "C1.parquet", tmp_path / "new", bits=bits, rows=made.rows)
    read = job(memory_bytes)
    asked = np.concatenate([values, skewed(3_000, bits, seed=9)]).astype(DTYPES[bits])
    np.testing.assert_array_equal(Lookup(read.lookup).ids(asked), Lookup(made.lookup).ids(asked))
    assert (read.num_values, read.sha256) == (made.num_values, made.sha256)


def saved_job(path: Path, folder: Path, *, bits: int = 32, rows: int = 100) -> Any:
    return lambda memory_bytes=1 << 20: SavedDictionaryJob(
        name="C1",
        saved=str(path),
        rows=rows,
        value_bits=bits,
        folder=str(folder),
        memory_bytes=memory_bytes,
    ).run(lambda num_bytes, num_rows: None)


def test_refuses_what_is_no_dictionary(tmp_path):
    path = tmp_path / "C1.parquet"
    with pytest.raises(DataError, match="not a readable dictionary"):
        saved_job(path, tmp_path)()
    path.write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="not a readable dictionary"):
        saved_job(path, tmp_path)()
    pq.write_table(pa.table({"other": [1]}), path)
    with pytest.raises(DataError, match="not a readable dictionary"):
        saved_job(path, tmp_path)()
    for number in (100, -1):
        pq.write_table(pa.table({"value": pa.array([1], pa.int64()), "id": pa.array([number], pa.int32())}), path)
        with pytest.raises(DataError, match="an id is outside its table of 100 rows; prepare its data again"):
            saved_job(path, tmp_path)()


def test_sha256_tells_values_ids_and_features_apart(tmp_path):
    rule, values = IdRule(min_count=1), np.array([1, 1, 2])
    plain = make(tmp_path, [values], rule=rule).sha256
    hashes = {
        plain,
        make(tmp_path, [np.array([2, 2, 1])], rule=rule).sha256,
        make(tmp_path, [values], rule=rule, name="C2").sha256,
        make(tmp_path, [np.array([1, 1, 3])], rule=rule).sha256,
        make(tmp_path, [values], rule=IdRule(min_count=2)).sha256,
    }
    assert len(hashes) == 5
    assert make(tmp_path, [np.array([1, 2, 1, 1])], rule=rule).sha256 == plain  # counts are no ids
    assert combined_sha256(["a", "b"]) != combined_sha256(["b", "a"])


def test_too_many_values_for_int32(tmp_path, monkeypatch):
    monkeypatch.setattr(dictionary_module, "_MAX_ROWS", 10)
    with pytest.raises(DataError, match="C1: 9 values are over int32 ids; raise --min-count or set --max-rows"):
        make(tmp_path, [np.arange(9)], rule=IdRule(min_count=1))
