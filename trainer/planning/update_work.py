"""Update work: what the optimizers' step moves, for members' dense parameters and for data-parallel tables.

An optimizer is a row of operations over each tensor. VALUES_MOVED says how many values each of them reads and writes
for one value of the tensor, as torch.optim and TorchRec's row-wise Adagrad run them in this version of both:

| rule            | operations                                          | bytes per value |
|-----------------|-----------------------------------------------------|-----------------|
| sgd             | w += -lr g                                          | 12              |
| adagrad         | s += g g; sqrt; + eps; w += -lr g / .               | 44 (cuda: 52)   |
| rowwise_adagrad | g^2; mean; s += .; sqrt; + eps; w += -lr g / .      | 24, 36 of a row |
| adam            | m lerp g; v *= b; v += g g; sqrt; / bias; + eps; w  | 72              |

An L2 penalty adds g + l2 w: 12 bytes. On CPUs each tensor is stepped by itself; on GPUs torch.optim takes all tensors
of a member at once (foreach), row-wise Adagrad and the tables' Adam (`trainer.lazy_adam`) one by one there too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from torch import nn

from modules.task import EnsembleTask
from sharding.cost.work import DenseWork, Pass, counted_passes
from trainer.optimizers import MemberRule

Device = Literal["cpu", "cuda"]

_VALUE_BYTES = 4
VALUES_MOVED: Mapping[str, tuple[int, ...]] = {
    "sgd": (3,),
    "adagrad": (3, 2, 2, 4),
    "rowwise_adagrad": (2, 1, 0, 0, 0, 3),
    "adam": (3, 2, 3, 2, 2, 2, 4),
}
"""Rule -> for each of its operations, the values that it reads and writes per value of the tensor."""

_ROW_VALUES_MOVED: Mapping[str, tuple[int, ...]] = {"rowwise_adagrad": (0, 1, 3, 2, 2, 1)}
"""The same per row: row-wise Adagrad's sums are columns."""

_FOREACH_ADAGRAD = (3, 2, 2, 2, 4)  # -lr g by itself
_PENALTY = 3
_COUNTER_BYTES = 2 * _VALUE_BYTES  # a rule with state counts its steps, tensor by tensor


def member_updates(
    task: EnsembleTask, rules: Mapping[str, MemberRule], *, device: Device, world_size: int, l2: float = 0.0
) -> DenseWork:
    """What follows the backward pass: averaging gradients over ranks, clipping them, the members' optimizers.

    Frozen members are left out. The exchange itself is not in it.

    Args:
        task: The task.
        rules: Member name -> how its dense parameters are trained.
        device: Where.
        world_size: Ranks; at one there is nothing to average.
        l2: As dense.l2.
    """
    found: list[Pass] = []
    for name, member in task.ensemble.bank.members.items():
        rule, parameters = rules[name], list(member.parameters())
        if rule.frozen or not parameters:
            continue
        if world_size > 1:
            found += _averaging(member)
        if rule.clip_norm is not None:
            found += _clipping([parameter.numel() for parameter in parameters])
        shapes = [tuple(parameter.shape) for parameter in parameters]
        found += rule_passes(rule.optimizer, shapes, device=device, l2=l2)
    return DenseWork(passes=counted_passes(found))


def table_update(
    rule: str, *, num_rows: int, dim: int, touched_rows: float, device: Device, l2: float = 0.0
) -> DenseWork:
    """A step of a data-parallel table, all of which goes through its optimizer's hands.

    Args:
        rule: As tables.NAME.optimizer.
        num_rows: Of the table.
        dim: Its columns.
        touched_rows: Distinct rows of the global batch: all that adam moves, though it looks at every row.
        device: Where.
        l2: As tables.NAME.l2.
    """
    if rule == "adam":
        touched = num_rows if l2 else min(num_rows, math.ceil(touched_rows))
        found = _lazy_adam(num_rows=num_rows, dim=dim, touched=touched, l2=l2)
    else:
        known = "adam" if rule == "dense_adam" else rule
        found = rule_passes(known, [(num_rows, dim)], device=device, l2=l2)
    return DenseWork(passes=counted_passes(found))


def clipping(sizes: Sequence[int]) -> DenseWork:
    """Bounding the norm of gradients of these sizes together, as those of a group's data-parallel tables."""
    return DenseWork(passes=counted_passes(_clipping(sizes)))


def rule_passes(rule: str, shapes: Sequence[tuple[int, ...]], *, device: Device, l2: float = 0.0) -> list[Pass]:
    """One optimizer's step over tensors of these shapes.

    Args:
        rule: sgd, adagrad, rowwise_adagrad or adam.
        shapes: Of the tensors.
        device: Where; on cuda torch.optim takes all tensors at once.
        l2: The penalty's weight.
    """
    values = VALUES_MOVED[rule]
    of_rows = _ROW_VALUES_MOVED.get(rule, (0,) * len(values))
    at_once = device == "cuda" and rule != "rowwise_adagrad"
    if at_once and rule == "adagrad":
        values, of_rows = _FOREACH_ADAGRAD, (0,) * len(_FOREACH_ADAGRAD)
    if l2:
        values, of_rows = (_PENALTY, *values), (0, *of_rows)
    sizes = [(math.prod(shape), shape[0] if shape else 1) for shape in shapes]
    if at_once:
        sizes = [(sum(size for size, _ in sizes), sum(rows for _, rows in sizes))]
    found = [
        Pass(moved_bytes=_VALUE_BYTES * (per_value * size + per_row * rows))
        for size, rows in sizes
        for per_value, per_row in zip(values, of_rows, strict=True)
    ]
    if rule == "sgd":
        return found
    counters = Pass(moved_bytes=_COUNTER_BYTES, count=len(shapes))
    return [*found, Pass(moved_bytes=_COUNTER_BYTES * len(shapes) + _VALUE_BYTES) if at_once else counters]


def _averaging(member: nn.Module) -> list[Pass]:
    """`sharding.dense_gradients`: gradients and running statistics side by side, then divided; statistics put back."""
    statistics = [
        value.numel()
        for name, value in member.named_buffers()
        if name.rpartition(".")[2] in ("running_mean", "running_var")
    ]
    all_bytes = _VALUE_BYTES * (sum(parameter.numel() for parameter in member.parameters()) + sum(statistics))
    put_back = [Pass(moved_bytes=2 * _VALUE_BYTES * size) for size in statistics]
    return [Pass(moved_bytes=2 * all_bytes, count=2), *put_back]


def _clipping(sizes: Sequence[int]) -> list[Pass]:
    """`clip_grad_norm_`, all tensors at once: norms, the norm of those, the bound over it, gradients times that."""
    count, total = len(sizes), sum(sizes)
    values = (total + count, 2 * count, count + 1, 2, 2, 2, 2, 2 * total + 1)
    return [Pass(moved_bytes=_VALUE_BYTES * moved) for moved in values]


def _lazy_adam(*, num_rows: int, dim: int, touched: int, l2: float) -> list[Pass]:
    """`trainer.lazy_adam`: every row is looked at, those with a gradient are taken out, stepped and put back."""
    whole, own = num_rows * dim, touched * dim
    penalty = [Pass(moved_bytes=_VALUE_BYTES * _PENALTY * whole)] if l2 else []
    looking = [Pass(moved_bytes=_VALUE_BYTES * whole + num_rows), Pass(moved_bytes=num_rows + 8 * touched)]
    # Four gathers and three scatters of rows, with their ids; between them what Adam computes.
    moved = [Pass(moved_bytes=2 * _VALUE_BYTES * own + 8 * touched, count=7)]
    computed = [Pass(moved_bytes=_VALUE_BYTES * values * own) for values in (3, 2, 3, 2, 2, 2, 2, 3, 3)]
    return [*penalty, *looking, *moved, *computed, Pass(moved_bytes=16)]
