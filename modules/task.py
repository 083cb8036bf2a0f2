"""EnsembleTask: the ensemble with its losses, in the shape the training pipeline wants."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from modules.contracts import EnsembleOutput
from modules.ensemble import Ensemble
from modules.losses import MemberLosses


class TaskBatch(Protocol):
    """What the task reads of a batch."""

    dense_BN: Tensor
    sparse: KeyedJaggedTensor
    labels_B: Tensor
    loss_weights_B: Tensor
    part_B: Tensor
    row_B: Tensor


class EnsembleTask(nn.Module):
    """Ensemble plus the members' losses.

    The loss weight of a row is (ranks / rows of the global batch), and 0 for rows that only pad the
    batch: the mean over ranks of the losses is then the mean over the global batch, however ragged
    the ranks' slices are. A shared table receives the sum of its members' gradients, an own table
    only its member's.

    Args:
        ensemble: Tables and members.
        losses: What the members are trained for; None: each for its own loss alone.
    """

    def __init__(self, ensemble: Ensemble, *, losses: MemberLosses | None = None) -> None:
        super().__init__()
        self.ensemble = ensemble
        self.losses = losses or MemberLosses()

    def begin_step(self, *, step: int, rank: int, num_rows: int | None = None) -> None:
        """Sets the step's randomness and its real rows, the first ones; call it before each training forward."""
        self.ensemble.bank.begin_step(step=step, rank=rank, num_rows=num_rows)

    def stop(self, names: Collection[str]) -> None:
        """Leaves these members, and no others, out of the training steps to come."""
        self.ensemble.bank.stop(names)

    def forward(self, batch: TaskBatch) -> tuple[Tensor, EnsembleOutput]:
        """Gives (loss to differentiate, EnsembleOutput)."""
        logits = self.ensemble(batch.dense_BN, batch.sparse)
        if self.losses.bag_seeds:
            return self.losses(logits, batch.labels_B, batch.loss_weights_B, batch.part_B, batch.row_B)
        return self.losses(logits, batch.labels_B, batch.loss_weights_B)
