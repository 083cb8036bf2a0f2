"""Batches: bags by feature, padding that counts for nothing, and the move to a device."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from trainer.data.reading.batch import Batch, Rows, make_batch

KEYS = ("C1", "C2", "C3")


def rows(count: int) -> Rows:
    return Rows.of_single_ids(
        np.arange(count * 3, dtype=np.int32).reshape(count, 3),
        dense=np.arange(count * 2, dtype=np.float32).reshape(count, 2),
        labels=np.ones(count, dtype=np.float32),
        part=np.full(count, 4, dtype=np.int32),
        row=np.arange(100, 100 + count, dtype=np.int64),
    )


def test_a_row_is_a_bag_of_one_id_per_feature() -> None:
    batch = make_batch(rows(3), keys=KEYS, num_rows=3, loss_weight=0.5)
    assert batch.sparse.keys() == list(KEYS)
    assert batch.sparse.stride() == 3
    assert batch.sparse.values().dtype == torch.int32
    by_key = batch.sparse.to_dict()
    assert {key: by_key[key].values().tolist() for key in KEYS} == {"C1": [0, 3, 6], "C2": [1, 4, 7], "C3": [2, 5, 8]}
    assert {tuple(by_key[key].lengths().tolist()) for key in KEYS} == {(1, 1, 1)}
    assert batch.dense_BN.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert batch.mask_B.tolist() == [1, 1, 1]
    assert batch.loss_weights_B.tolist() == [0.5, 0.5, 0.5]
    assert batch.row_B.tolist() == [100, 101, 102]


def test_padding_has_empty_bags_and_no_weight() -> None:
    batch = make_batch(rows(2), keys=KEYS, num_rows=5, loss_weight=0.25)
    assert batch.sparse.stride() == 5
    by_key = batch.sparse.to_dict()
    for place, key in enumerate(KEYS):
        assert by_key[key].lengths().tolist() == [1, 1, 0, 0, 0]
        assert by_key[key].values().tolist() == [place, place + 3]
    assert batch.mask_B.tolist() == [1, 1, 0, 0, 0]
    assert batch.loss_weights_B.tolist() == [0.25, 0.25, 0, 0, 0]
    assert [len(value) for value in (batch.dense_BN, batch.labels_B, batch.part_B, batch.row_B)] == [5] * 4
    assert not batch.dense_BN[2:].any()
    assert batch.labels_B.tolist() == [1, 1, 0, 0, 0]


def test_a_rank_without_rows_gets_a_batch_of_padding() -> None:
    batch = make_batch(rows(0), keys=KEYS, num_rows=4, loss_weight=1.0)
    assert batch.sparse.stride() == 4
    assert batch.sparse.lengths().tolist() == [0] * 12
    assert batch.sparse.values().tolist() == []
    assert batch.dense_BN.shape == (4, 2)
    assert not batch.mask_B.any() and not batch.loss_weights_B.any()


def test_dtypes_stay_where_rows_pad() -> None:
    full, padded = (make_batch(rows(3), keys=KEYS, num_rows=n, loss_weight=1.0) for n in (3, 4))
    for name in ("dense_BN", "labels_B", "mask_B", "loss_weights_B", "part_B", "row_B"):
        assert getattr(full, name).dtype == getattr(padded, name).dtype
    assert (full.dense_BN.dtype, full.labels_B.dtype, full.row_B.dtype) == (torch.float32, torch.float32, torch.int64)


def jagged() -> Rows:
    """Two rows: C1 one id each, C2 bags of 2 and 0, C3 bags of 2."""
    return dataclasses.replace(
        rows(2),
        values=np.array([7, 8, 1, 2, 3, 4, 5, 6], dtype=np.int32),
        lengths=np.array([[1, 1], [2, 0], [2, 2]], dtype=np.int32),
    )


def test_bags_of_any_length_are_padded_with_empty_ones() -> None:
    batch = make_batch(jagged(), keys=KEYS, num_rows=4, loss_weight=1.0)
    by_key = batch.sparse.to_dict()
    assert {key: by_key[key].lengths().tolist() for key in KEYS} == {
        "C1": [1, 1, 0, 0],
        "C2": [2, 0, 0, 0],
        "C3": [2, 2, 0, 0],
    }
    assert {key: by_key[key].values().tolist() for key in KEYS} == {"C1": [7, 8], "C2": [1, 2], "C3": [3, 4, 5, 6]}
    assert torch.equal(
        make_batch(jagged(), keys=KEYS, num_rows=2, loss_weight=1.0).sparse.lengths(),
        torch.tensor([1, 1, 2, 0, 2, 2]),
    )


def test_bags_of_one_size_a_feature_need_no_length_a_row() -> None:
    fixed = dataclasses.replace(
        rows(2), values=np.arange(12, dtype=np.int32), lengths=np.array([1, 2, 3], dtype=np.int32)
    )
    batch = make_batch(fixed, keys=KEYS, num_rows=3, loss_weight=1.0)
    assert batch.sparse.lengths().tolist() == [1, 1, 0, 2, 2, 0, 3, 3, 0]
    by_key = batch.sparse.to_dict()
    assert by_key["C3"].values().tolist() == [6, 7, 8, 9, 10, 11]
    with pytest.raises(AssertionError, match="other lengths"):
        _ = fixed.ids


def test_ids_are_rows_by_features() -> None:
    assert rows(3).ids.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert rows(0).ids.shape == (0, 3)


def test_a_rows_weight_multiplies_its_loss_and_not_the_mean() -> None:
    weighted = dataclasses.replace(rows(2), weights=np.array([3.0, 0.5], dtype=np.float32))
    batch = make_batch(weighted, keys=KEYS, num_rows=3, loss_weight=0.25)
    assert batch.loss_weights_B.tolist() == [0.75, 0.125, 0]
    assert batch.mask_B.tolist() == [1, 1, 0]
    again = make_batch(rows(2), keys=KEYS, num_rows=3, loss_weight=0.25)  # what batches share is left alone
    assert again.loss_weights_B.tolist() == [0.25, 0.25, 0]


def test_the_whole_batch_moves() -> None:
    batch = make_batch(rows(2), keys=KEYS, num_rows=3, loss_weight=1.0).to(torch.device("meta"))
    assert isinstance(batch, Batch)
    tensors = (batch.dense_BN, batch.labels_B, batch.mask_B, batch.loss_weights_B, batch.part_B, batch.row_B)
    assert {value.device.type for value in (*tensors, batch.sparse.values(), batch.sparse.lengths())} == {"meta"}
