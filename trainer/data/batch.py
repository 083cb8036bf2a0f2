"""Batch: the rows of one step on one rank.

Shapes: B rows of every rank's batch (the last rows may only pad it), N dense features.
"""

from __future__ import annotations

import dataclasses
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
    """Rows as a source gives them, n of them."""

    dense: NDArray[np.float32]  # [n, N]
    ids: NDArray[np.int32]  # [n, F]
    labels: NDArray[np.float32]  # [n]
    part: NDArray[np.int32]  # [n], index of the part in the source
    row: NDArray[np.int64]  # [n], row in the part

    def __len__(self) -> int:
        return len(self.labels)


@dataclass
class Batch(Pipelineable):
    """One rank's rows of a step; every rank's batch has the same B.

    Rows that only pad the batch have zero-length bags, mask 0 and loss weight 0.
    """

    dense_BN: Tensor
    sparse: KeyedJaggedTensor
    labels_B: Tensor
    mask_B: Tensor  # 1.0 for a row, 0.0 for padding
    loss_weights_B: Tensor  # ranks / rows of the global batch for a row, 0.0 for padding
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

    Args:
        rows: At most `num_rows` rows.
        keys: Id feature names, in column order.
        num_rows: B.
        loss_weight: What a row counts for in the loss.
    """
    count = len(rows)
    padding = num_rows - count
    mask = np.zeros(num_rows, dtype=np.float32)
    mask[:count] = 1.0
    lengths = np.tile(mask.astype(np.int32), len(keys))
    values = torch.from_numpy(np.ascontiguousarray(rows.ids.T).reshape(-1).astype(np.int64))
    mask_B = torch.from_numpy(mask)
    return Batch(
        dense_BN=torch.from_numpy(_padded(rows.dense, padding)),
        sparse=KeyedJaggedTensor(keys=list(keys), values=values, lengths=torch.from_numpy(lengths), stride=num_rows),
        labels_B=torch.from_numpy(_padded(rows.labels, padding)),
        mask_B=mask_B,
        loss_weights_B=mask_B * loss_weight,
        part_B=torch.from_numpy(_padded(rows.part, padding)),
        row_B=torch.from_numpy(_padded(rows.row, padding)),
    )


def _padded(values: NDArray, padding: int) -> NDArray:
    if not padding:
        return np.ascontiguousarray(values)
    return np.concatenate([values, np.zeros((padding, *values.shape[1:]), dtype=values.dtype)])
