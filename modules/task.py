"""EnsembleTask: the ensemble with its losses, in the shape the training pipeline wants."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from modules.contracts import EnsembleOutput
from modules.ensemble import Ensemble, stack_logits


class TaskBatch(Protocol):
    """What the task reads of a batch."""

    dense_BN: Tensor
    sparse: KeyedJaggedTensor
    labels_B: Tensor
    loss_weights_B: Tensor


class MemberLosses(nn.Module):
    """Each member's binary cross-entropy, summed over rows with the batch's loss weights."""

    def forward(self, logits: list[Tensor], labels_B: Tensor, loss_weights_B: Tensor) -> tuple[Tensor, EnsembleOutput]:
        """Gives the sum of all members' losses, and the output for metrics."""
        losses = [
            (binary_cross_entropy_with_logits(logit.float(), labels_B, reduction="none") * loss_weights_B).sum()
            for logit in logits
        ]
        total = losses[0]
        for loss in losses[1:]:
            total = total + loss
        return total, EnsembleOutput(stack_logits(logits), torch.stack([loss.detach() for loss in losses]))


class EnsembleTask(nn.Module):
    """Ensemble plus summed member losses.

    The loss weight of a row is (ranks / rows of the global batch), and 0 for rows that only pad the
    batch: the mean over ranks of the losses is then the mean over the global batch, however ragged
    the ranks' slices are. A shared table receives the sum of its members' gradients, an own table
    only its member's.
    """

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__()
        self.ensemble = ensemble
        self.losses = MemberLosses()

    def begin_step(self, *, step: int, rank: int) -> None:
        """Sets the step's randomness; call it before each training forward."""
        self.ensemble.bank.begin_step(step=step, rank=rank)

    def forward(self, batch: TaskBatch) -> tuple[Tensor, EnsembleOutput]:
        """Gives (loss to differentiate, EnsembleOutput)."""
        logits = self.ensemble(batch.dense_BN, batch.sparse)
        return self.losses(logits, batch.labels_B, batch.loss_weights_B)
