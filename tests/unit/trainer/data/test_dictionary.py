"""Dictionaries: a function of the counted values alone, and the same after writing and reading."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from configs.errors import DataError
from trainer.data import dictionary as dictionary_module
from trainer.data.dictionary import Dictionary, ValueCounter, dictionary_sha256


def count(blocks: list[np.ndarray], *, min_count: int) -> Dictionary:
    counter = ValueCounter()
    for block in blocks:
        counter.add(block.astype(np.uint32))
    return counter.dictionary(min_count=min_count)


def skewed(num_rows: int) -> np.ndarray:
    draw = np.random.default_rng(3)
    return (draw.zipf(1.3, num_rows) * 2_654_435_761 % 2**32).astype(np.uint32)


@pytest.mark.parametrize("pending", [10, 1 << 19])
@pytest.mark.parametrize("min_count", [1, 2, 7])
def test_counts_and_order(monkeypatch: pytest.MonkeyPatch, pending: int, min_count: int) -> None:
    monkeypatch.setattr(dictionary_module, "_PENDING_VALUES", pending)
    values = skewed(5_000)
    made = count(np.array_split(values, 13), min_count=min_count)
    counts = {value: number for value, number in Counter(values.tolist()).items() if number >= min_count}
    wanted = sorted(counts, key=lambda value: (-counts[value], value))
    assert made.values.tolist() == wanted
    assert made.counts.tolist() == [counts[value] for value in wanted]
    assert made.rows == len(wanted) + 2


def test_order_of_rows_does_not_matter() -> None:
    values = skewed(5_000)
    one = count([values], min_count=2)
    other = count(np.array_split(np.random.default_rng(0).permutation(values), 7), min_count=2)
    assert dictionary_sha256({"C1": one}) == dictionary_sha256({"C1": other})
    np.testing.assert_array_equal(one.values, other.values)


def test_ids() -> None:
    made = count([np.array([9, 9, 9, 0, 0, 2**32 - 1, 2**32 - 1, 4])], min_count=2)
    ids = made.ids_of(
        np.array([9, 0, 2**32 - 1, 4, 77, 9], np.uint32), np.array([False, False, False, False, False, True])
    )
    assert ids.dtype == np.int32
    assert ids.tolist() == [2, 3, 4, 1, 1, 0]


def test_hash_zero_is_not_missing() -> None:
    made = count([np.array([0, 0])], min_count=1)
    assert made.ids_of(np.array([0, 0], np.uint32), np.array([False, True])).tolist() == [2, 0]


def test_nothing_kept() -> None:
    for blocks in ([], [np.array([5])], [np.array([])]):
        made = count(blocks, min_count=2)
        assert made.rows == 2
        assert made.ids_of(np.array([5, 5], np.uint32), np.array([False, True])).tolist() == [1, 0]


def test_round_trip(tmp_path: Path) -> None:
    made = count([skewed(1_000)], min_count=1)
    path = str(tmp_path / "C1.parquet")
    made.write(path)
    read = Dictionary.read(path)
    np.testing.assert_array_equal(read.values, made.values)
    np.testing.assert_array_equal(read.counts, made.counts)
    assert dictionary_sha256({"C1": read}) == dictionary_sha256({"C1": made})


def test_sha256_tells_values_order_and_features_apart() -> None:
    one, two = np.array([1], np.uint32), np.array([1], np.int64)
    pair = Dictionary(values=np.array([1, 2], np.uint32), counts=np.array([3, 3]))
    swapped = Dictionary(values=np.array([2, 1], np.uint32), counts=np.array([3, 3]))
    single = Dictionary(values=one, counts=two)
    hashes = [
        dictionary_sha256({"C1": pair}),
        dictionary_sha256({"C1": swapped}),
        dictionary_sha256({"C2": pair}),
        dictionary_sha256({"C1": single, "C2": single}),
        dictionary_sha256({"C2": single, "C1": single}),
    ]
    assert len(set(hashes)) == len(hashes)


def test_refuses_what_is_no_dictionary(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a readable dictionary"):
        Dictionary.read(str(tmp_path / "none.parquet"))
    path = tmp_path / "C1.parquet"
    path.write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="not a readable dictionary"):
        Dictionary.read(str(path))
