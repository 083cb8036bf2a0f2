"""Vocabularies: hashing is the same for ever, and ids keep within their tables."""

from __future__ import annotations

import pickle

import numpy as np

from trainer.data.preparing.vocabulary import HashedIds, Vocabulary, hash_sha256


def test_hashed_ids_are_pinned():
    """Models trained on hashed data depend on them."""
    values = [0, 1, 2, 0xDEADBEEF, 2**32 - 1]
    assert HashedIds("C1", 1_000_000).ids(np.array(values, np.uint32)).tolist() == [
        443927,
        726114,
        847293,
        86217,
        588138,
    ]
    wide = [*values[:4], 2**63]
    assert HashedIds("C1", 1_000_000).ids(np.array(wide, np.uint64)).tolist() == [734895, 985369, 573913, 195960, 83986]


def test_hashed_ids_use_every_row_and_no_other():
    for dtype in (np.uint32, np.uint64):
        for rows in (3, 50, 1_000):
            ids = HashedIds("C1", rows).ids(np.arange(200_000, dtype=dtype))
            assert ids.dtype == np.int32
            assert (ids.min(), ids.max(), len(np.unique(ids))) == (2, rows - 1, rows - 2)
    assert HashedIds("C1", 2**31 - 1).ids(np.arange(1_000, dtype=np.uint32)).min() >= 2


def test_features_do_not_share_their_collisions():
    values = np.arange(10_000, dtype=np.uint32)
    one, other = HashedIds("C1", 100).ids(values), HashedIds("C2", 100).ids(values)
    assert 0 < (one == other).mean() < 0.03


def test_a_vocabulary_travels():
    vocabulary = Vocabulary(features=("C1", "C2"), rows=(10, 20))
    first, second = pickle.loads(pickle.dumps(vocabulary)).open()
    assert first == HashedIds("C1", 10) and second == HashedIds("C2", 20)


def test_hashes_of_hashing():
    assert hash_sha256({"C1": 10}) == hash_sha256({"C1": 10}) != hash_sha256({"C1": 11}) != hash_sha256({"C2": 11})
