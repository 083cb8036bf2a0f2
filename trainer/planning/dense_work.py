"""Dense work: what members compute in a step, traced without computing it: no values, no memory.

Members run as they do in a job, their losses and the backward pass included, on tensors that have shapes and no values
(PyTorch's fake tensors). They are traced as on a CPU for either device: operations, shapes and bytes are a GPU's too,
but for autocast, which keeps a few more operations in fp32 there (softmax, layer norm, sums, powers), and for kernels'
workspace, which no trace sees.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torchrec.modules.embedding_modules import get_embedding_names_by_table
from torchrec.sparse.jagged_tensor import KeyedTensor

from configs.errors import ConfigError
from modules.ensemble import MemberBank
from modules.losses import MemberLosses
from modules.task import EnsembleTask
from sharding.cost.work import DenseWork
from trainer.planning.operations import Operations


@dataclass(frozen=True)
class _FakeRows:
    """What comes into the members of a batch."""

    dense_BN: Tensor
    pooled: KeyedTensor
    labels_B: Tensor
    loss_weights_B: Tensor
    part_B: Tensor
    row_B: Tensor

    @property
    def tensors(self) -> list[Tensor]:
        """All of it."""
        return [self.dense_BN, self.pooled.values(), self.labels_B, self.loss_weights_B, self.part_B, self.row_B]


def trace_dense(task: EnsembleTask, *, rows: int, num_dense: int, trains: bool) -> DenseWork:
    """What the members of a task compute for one rank's batch, from pooled embeddings on.

    In training: forward pass, losses, and the backward pass to embeddings and dense parameters; optimizers and
    collectives are not in it. Else a forward pass as in scoring and evaluation. Frozen members, dropout, bagging,
    stacked members and precision are the task's own. It takes about 30 ms a member, whatever their sizes.

    In bf16, the copies of weights that autocast makes count as saved and in the peak. The gradient of the pooled
    embeddings counts in the peak.

    Args:
        task: The unsharded task; it is left as it is, and its members may be on the meta device.
        rows: Of a rank's batch.
        num_dense: Numeric features of a row.
        trains: Whether it is a training step.

    Raises:
        ConfigError: a member's computation depends on values, which are not there.
    """
    assert rows > 0, rows
    fakes = FakeTensorMode(allow_non_fake_inputs=True)
    bank = _without_values(task.ensemble.bank, fakes=fakes)
    bank.train(trains)
    bank.begin_step(step=1, rank=0)
    losses = _losses(task.losses).train(trains)
    with fakes:
        batch = _fake_rows(task, rows=rows, num_dense=num_dense, trains=trains)
        operations = Operations([*bank.parameters(), *bank.buffers(), *batch.tensors])
        inside = _members_inside(bank, operations=operations)
        try:
            _step(bank, losses, batch, operations=operations, trains=trains)
        except RuntimeError as error:
            where = f"members.{inside[-1]}.arch" if inside else "members"
            raise ConfigError(
                f"{where}: planning runs members on tensors without values, which this does not allow"
                f" ({str(error).partition(chr(10))[0]}); write it without .item(), .tolist() and `if` on tensors"
            ) from error
        gradients = [parameter.grad for parameter in bank.parameters() if parameter.grad is not None]
        return DenseWork(
            matmuls=operations.matmuls,
            passes=operations.passes,
            saved_bytes=operations.saved_bytes,
            peak_bytes=operations.peak_bytes(without=gradients),
            forward_of=operations.labelled,
        )


def _step(bank: MemberBank, losses: MemberLosses, batch: _FakeRows, *, operations: Operations, trains: bool) -> None:
    """A step as `EnsembleTask` and the pipeline take it."""
    with operations, torch.set_grad_enabled(trains):
        with operations.saving():
            logits = bank(batch.dense_BN, batch.pooled)
            where = (batch.part_B, batch.row_B) if losses.bag_seeds else ()
            loss, output = losses(logits, batch.labels_B, batch.loss_weights_B, *where)
            del logits
        if trains and loss.requires_grad:
            loss.backward()
        del loss, output


def _without_values(bank: MemberBank, *, fakes: FakeTensorMode) -> MemberBank:
    """A copy whose parameters and buffers have no values; what members hold beside them is copied as it is."""
    fake: dict[int, object] = {}
    for tensor in (*bank.parameters(), *bank.buffers()):
        with fakes:
            empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")
            is_parameter = isinstance(tensor, nn.Parameter)
            fake[id(tensor)] = nn.Parameter(empty, requires_grad=tensor.requires_grad) if is_parameter else empty
    return copy.deepcopy(bank, fake)


def _losses(losses: MemberLosses) -> MemberLosses:
    """The same without the other ranks."""
    return MemberLosses(
        merged_share=losses.merged_share,
        distillation=losses.distillation,
        mutual=losses.mutual,
        bag_seeds=losses.bag_seeds,
        taught=losses.taught,
    )


def _fake_rows(task: EnsembleTask, *, rows: int, num_dense: int, trains: bool) -> _FakeRows:
    tables = task.ensemble.tables.embedding_bag_configs()
    names = [name for of_table in get_embedding_names_by_table(tables) for name in of_table]
    dims = [table.embedding_dim for table in tables for _ in table.feature_names]
    return _FakeRows(
        dense_BN=torch.empty(rows, num_dense),
        pooled=KeyedTensor(keys=names, length_per_key=dims, values=torch.empty(rows, sum(dims), requires_grad=trains)),
        labels_B=torch.empty(rows),
        loss_weights_B=torch.empty(rows),
        part_B=torch.empty(rows, dtype=torch.int32),
        row_B=torch.empty(rows, dtype=torch.int64),
    )


def _members_inside(bank: MemberBank, *, operations: Operations) -> list[str]:
    """Holds the name of the member that is running, under which its operations are recorded, too.

    Members that are computed as one do not show.
    """
    inside: list[str] = []

    def enter(name: str) -> None:
        inside.append(name)
        operations.label = name

    def leave() -> None:
        inside.clear()
        operations.label = None

    for name, member in bank.members.items():
        member.register_forward_pre_hook(lambda _module, _inputs, name=name: enter(name))
        member.register_forward_hook(lambda _module, _inputs, _logits: leave())
    return inside
