"""Batch: the rows of one step on one rank.

Shapes: B rows of every rank's batch (the last rows may only pad it), N dense features, F id features, T ids of all
bags.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Pipelineable


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows as a source gives them, n of them. Bags lie as in a KeyedJaggedTensor: feature by feature, row by row.

    Example::

        C1 of three rows: [7], [8], [9]; genres: [1, 2], [], [3]
        values [7, 8, 9, 1, 2, 3], lengths [[1, 1, 1], [2, 0, 1]]
    """

    dense: NDArray[np.float32]  # [n, N]
    values: NDArray[np.int32]  # [T], ids
    lengths: NDArray[np.int32]  # [F, n], ids of each bag; or [F], where all rows of a feature have as many
    labels: NDArray[np.float32]  # [n]; NaN where the log has none
    part: NDArray[np.int32]  # [n], index of the part in the source
    row: NDArray[np.int64]  # [n], row in the part
    weights: NDArray[np.float32] | None = None  # [n], what a row counts for; None: 1 each

    def __len__(self) -> int:
        return len(self.row)

    @property
    def ids(self) -> NDArray[np.int32]:
        """Ids [n, F] of rows with exactly one in every bag."""
        assert self.lengths.ndim == 1 and (self.lengths == 1).all(), "bags of other lengths have no such table"
        return self.values.reshape(len(self.lengths), len(self)).T

    @staticmethod
    def of_single_ids(
        ids: NDArray[np.int32],
        *,
        dense: NDArray[np.float32],
        labels: NDArray[np.float32],
        part: NDArray[np.int32],
        row: NDArray[np.int64],
    ) -> Rows:
        """Rows with exactly one id [n, F] in every bag."""
        return Rows(
            dense=dense,
            values=np.ascontiguousarray(ids.T).reshape(-1),
            lengths=np.ones(ids.shape[1], dtype=np.int32),
            labels=labels,
            part=part,
            row=row,
        )


@dataclass
class Batch(Pipelineable):
    """One rank's rows of a step; every rank's batch has the same B.

    Rows that only pad the batch have zero-length bags, mask 0 and loss weight 0. Ids are int32: half the bytes to make
    and to send of int64, with the same results. Mask and lengths of a batch without ragged bags are shared between
    batches: read them, never write to them.
    """

    dense_BN: Tensor
    sparse: KeyedJaggedTensor
    labels_B: Tensor  # NaN where the log has none, so that no loss can come of it
    mask_B: Tensor  # 1.0 for a row, 0.0 for padding
    loss_weights_B: Tensor  # ranks / rows of the global batch, times the row's own weight; 0.0 for padding
    part_B: Tensor
    row_B: Tensor

    def to(self, device: torch.device, non_blocking: bool = False) -> Batch:
        """The batch on a device."""
        return self._mapped(lambda value: value.to(device=device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory."""
        return self._mapped(lambda value: value.pin_memory())

    def record_stream(self, stream: torch.Stream) -> None:
        """Keeps the memory until the stream is done with it."""
        for field in dataclasses.fields(self):
            getattr(self, field.name).record_stream(stream)

    def _mapped(self, change) -> Batch:  # type: ignore[no-untyped-def]
        return Batch(**{field.name: change(getattr(self, field.name)) for field in dataclasses.fields(self)})


def make_batch(rows: Rows, *, keys: Sequence[str], num_rows: int, loss_weight: float) -> Batch:
    """Pads rows to a batch.

    A row's own weight multiplies its loss and nothing else: the mean stays one over the number of rows, so a batch of
    light rows moves the model less than one of heavy rows.

    Args:
        rows: At most `num_rows` rows.
        keys: Id feature names, in the order of the bags.
        num_rows: B.
        loss_weight: What a row of weight 1 counts for in the loss.
    """
    count = len(rows)
    padding = num_rows - count
    mask_B = _mask(count, num_rows)
    if rows.lengths.ndim == 1:
        lengths = _equal_lengths(tuple(rows.lengths.tolist()), count, num_rows)
    else:
        lengths = torch.from_numpy(np.pad(rows.lengths, ((0, 0), (0, padding))).reshape(-1))
    loss_weights_B = mask_B * loss_weight
    if rows.weights is not None:
        loss_weights_B *= torch.from_numpy(_padded(rows.weights, padding))
    return Batch(
        dense_BN=torch.from_numpy(_padded(rows.dense, padding)),
        sparse=KeyedJaggedTensor(
            keys=list(keys), values=torch.from_numpy(rows.values), lengths=lengths, stride=num_rows
        ),
        labels_B=torch.from_numpy(_padded(rows.labels, padding)),
        mask_B=mask_B,
        loss_weights_B=loss_weights_B,
        part_B=torch.from_numpy(_padded(rows.part, padding)),
        row_B=torch.from_numpy(_padded(rows.row, padding)),
    )


@functools.lru_cache(maxsize=8)
def _mask(count: int, num_rows: int) -> Tensor:
    return (torch.arange(num_rows) < count).float()


@functools.lru_cache(maxsize=8)
def _equal_lengths(of_features: tuple[int, ...], count: int, num_rows: int) -> Tensor:
    lengths = torch.zeros((len(of_features), num_rows), dtype=torch.int32)
    lengths[:, :count] = torch.tensor(of_features, dtype=torch.int32)[:, None]
    return lengths.reshape(-1)


def _padded(values: NDArray, padding: int) -> NDArray:
    if not padding:
        return values
    return np.concatenate([values, np.zeros((padding, *values.shape[1:]), dtype=values.dtype)])
