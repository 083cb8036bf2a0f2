"""DenseGradients: averages members' gradients and running statistics over ranks, and bounds each member's norm.

No bucket mixes members, so a member's update is bit-equal to that of a job in which it is alone,
and a member that is left out of a step leaves the others' collectives as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn


class DenseGradients:
    """The gradients of each member's dense parameters.

    Args:
        members: Member name -> its dense parameters, in the same order on every rank.
        process_group: The ranks to average over.
        statistics: Member name -> running statistics that each rank has moved by its own rows, in the same order on
            every rank; their mean over ranks takes their place.
        clip_norms: Member name -> the greatest L2 norm of its gradient; None, or not there: no bound.
    """

    def __init__(
        self,
        members: Mapping[str, Sequence[nn.Parameter]],
        *,
        process_group: dist.ProcessGroup,
        statistics: Mapping[str, Sequence[Tensor]] | None = None,
        clip_norms: Mapping[str, float | None] | None = None,
    ) -> None:
        self._members = {name: list(parameters) for name, parameters in members.items()}
        self._statistics = {name: list((statistics or {}).get(name, [])) for name in members}
        self._left_out: frozenset[str] = frozenset()
        self._group = process_group
        self._world_size = dist.get_world_size(process_group)
        self._clip_norms = {name: norm for name, norm in (clip_norms or {}).items() if norm is not None}

    def leave_out(self, names: Collection[str]) -> None:
        """Leaves these members, and no others, out from now on. All ranks must call this alike."""
        self._left_out = frozenset(names)

    @torch.no_grad()
    def average(self) -> None:
        """Replaces every gradient and running statistic by its mean over ranks. All ranks must call this."""
        if self._world_size == 1:
            return
        pending = []
        for name, parameters in self._members.items():
            if name in self._left_out:
                continue
            gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
            flat = torch.cat([value.reshape(-1) for value in (*gradients, *self._statistics[name])])
            pending.append((name, flat, dist.all_reduce(flat, group=self._group, async_op=True)))
        for name, flat, work in pending:
            work.wait()
            flat /= self._world_size
            parameters, statistics = self._members[name], self._statistics[name]
            means = flat.split([value.numel() for value in (*parameters, *statistics)])
            for parameter, mean in zip(parameters, means[: len(parameters)], strict=True):
                parameter.grad = mean.view_as(parameter)
            for statistic, mean in zip(statistics, means[len(parameters) :], strict=True):
                statistic.copy_(mean.view_as(statistic))

    def clip(self) -> None:
        """Scales each bounded member's gradient as a whole down to its norm; call it after `average`.

        A norm is over one member's dense parameters alone, so no member's update depends on who else
        is trained. Tables are outside of it: where they are sharded, their gradients are used up inside the
        backward pass, row by row, before anybody could know the norm.
        """
        for name, norm in self._clip_norms.items():
            if name in self._members and name not in self._left_out:
                nn.utils.clip_grad_norm_(self._members[name], norm)
