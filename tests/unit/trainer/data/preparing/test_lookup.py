"""Lookup tables: every value has its id again, of any size, and others have none."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.data.mixing import mix, unmix
from trainer.data.preparing.lookup import Lookup, LookupFile, LookupWriter

DTYPES = {32: np.uint32, 64: np.uint64}


def table(path, values: np.ndarray, ids: np.ndarray, *, bits: int, chunks: int = 1) -> LookupFile:
    mixed = mix(values)
    order = np.argsort(mixed)
    writer = LookupWriter(str(path / "table.lookup"), num_values=len(values), value_bits=bits)
    for mixed_chunk, id_chunk in zip(
        np.array_split(mixed[order], chunks), np.array_split(ids[order], chunks), strict=True
    ):
        writer.append(mixed_chunk, id_chunk.astype(np.int32))
    return writer.close()


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("chunks", [1, 7])
def test_every_value_has_its_id_and_others_have_none(tmp_path, bits, chunks):
    draw = np.random.default_rng(0)
    values = np.unique(draw.integers(0, 2**bits - 1, 50_000, dtype=DTYPES[bits], endpoint=True))
    values = np.union1d(values, np.array([0, 2**bits - 1], DTYPES[bits]))  # an empty slot holds 0 too
    ids = draw.permutation(len(values)) + 2
    lookup = Lookup(table(tmp_path, values, ids, bits=bits, chunks=chunks))
    asked = draw.permutation(len(values))
    np.testing.assert_array_equal(lookup.ids(values[asked]), ids[asked])
    others = np.setdiff1d(draw.integers(0, 2**bits - 1, 20_000, dtype=DTYPES[bits]), values)
    assert set(lookup.ids(others).tolist()) == {1}
    assert lookup.ids(values[:0]).tolist() == []


@pytest.mark.parametrize("bits", [32, 64])
def test_ids_above_2_to_the_24_survive(tmp_path, bits):
    """float32 holds no odd number above 2^24; the public pipelines pass ids through it."""
    ids = np.array([2**24 - 1, 2**24, 2**24 + 1, 2**24 + 3, 292_775_615, 2**31 - 2])
    assert (ids.astype(np.float32).astype(np.int64) != ids).sum() == 4
    values = np.arange(len(ids), dtype=DTYPES[bits])
    assert Lookup(table(tmp_path, values, ids, bits=bits)).ids(values).tolist() == ids.tolist()


def test_value_zero_that_is_not_there_has_none(tmp_path):
    for bits, dtype in DTYPES.items():
        lookup = Lookup(table(tmp_path, np.array([5], dtype), np.array([2]), bits=bits))
        assert lookup.ids(np.array([0, 5, 2**bits - 1], dtype)).tolist() == [1, 2, 1]


def test_an_empty_table(tmp_path):
    lookup = Lookup(table(tmp_path, np.array([], np.uint32), np.array([]), bits=32))
    assert lookup.ids(np.array([0, 9], np.uint32)).tolist() == [1, 1]


@pytest.mark.parametrize("bits", [32, 64])
def test_values_crowded_at_one_end(tmp_path, bits):
    """All of them push on from the same home slots, up to the last one and behind it."""
    for start in (0, 2**bits - 3_000):
        values = unmix(np.arange(start, start + 3_000, dtype=np.uint64).astype(DTYPES[bits]))
        ids = np.arange(2, 3_002)
        lookup = Lookup(table(tmp_path, values, ids, bits=bits, chunks=3))
        np.testing.assert_array_equal(lookup.ids(values), ids)


def test_old_bytes_at_the_same_place_are_gone(tmp_path):
    """A job that was cut off and begins anew writes over its own half."""
    table(tmp_path, np.arange(1_000, dtype=np.uint32), np.arange(2, 1_002), bits=32)
    lookup = Lookup(table(tmp_path, np.array([3], np.uint32), np.array([2]), bits=32))
    assert lookup.ids(np.array([2, 3], np.uint32)).tolist() == [1, 2]
