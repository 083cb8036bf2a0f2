"""DenseGradients: averages dense gradients over ranks, one collective per member, and bounds each member's norm.

No bucket mixes members, so a member's update is bit-equal to that of a job in which it is alone,
and a member that is left out of a step leaves the others' collectives as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import nn


class DenseGradients:
    """The gradients of each member's dense parameters.

    Args:
        members: Member name -> its dense parameters, in the same order on every rank.
        process_group: The ranks to average over.
        clip_norms: Member name -> the greatest L2 norm of its gradient; None, or not there: no bound.
    """

    def __init__(
        self,
        members: Mapping[str, Sequence[nn.Parameter]],
        *,
        process_group: dist.ProcessGroup,
        clip_norms: Mapping[str, float | None] | None = None,
    ) -> None:
        self._members = {name: list(parameters) for name, parameters in members.items()}
        self._group = process_group
        self._world_size = dist.get_world_size(process_group)
        self._clip_norms = {name: norm for name, norm in (clip_norms or {}).items() if norm is not None}

    @torch.no_grad()
    def average(self) -> None:
        """Replaces every gradient by its mean over ranks. All ranks must call this."""
        if self._world_size == 1:
            return
        pending = []
        for parameters in self._members.values():
            gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            pending.append((parameters, flat, dist.all_reduce(flat, group=self._group, async_op=True)))
        for parameters, flat, work in pending:
            work.wait()
            flat /= self._world_size
            for parameter, gradient in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
                parameter.grad = gradient.view_as(parameter)

    def clip(self) -> None:
        """Scales each bounded member's gradient as a whole down to its norm; call it after `average`.

        A norm is over one member's dense parameters alone, so no member's update depends on who else
        is trained. Tables are outside of it: their gradients are used up inside the backward pass,
        row by row, before anybody could know the norm.
        """
        for name, norm in self._clip_norms.items():
            if name in self._members:
                nn.utils.clip_grad_norm_(self._members[name], norm)
