"""LossWindow: what the ranks agree on between steps: losses, whether to stop, how fast it goes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from configs.errors import ChorusError
from trainer.runtime import Runtime

_AGREE_SECONDS = 1.0
_MOST_STEPS = 1_000


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What at least one rank asks for."""

    stop: bool
    save: bool
    failed: bool


class LossWindow:
    """Collects each step's member losses; about once a second all ranks agree on them.

    Every rank decides from the same sums, so all agree at the same step, and a stop signal to one
    rank stops all of them after the same step.

    Args:
        member_names: In the order of the losses.
        runtime: This process.
        step: The step before the first one.
    """

    def __init__(self, member_names: Sequence[str], *, runtime: Runtime, step: int = 0) -> None:
        self._names = list(member_names)
        self._runtime = runtime
        self._agreed_step = step
        self._agreed_at = time.monotonic()
        self._next_step = step + 1
        self._pending: list[Tensor] = []
        self._sums = torch.zeros(len(self._names), dtype=torch.float64)
        self._num_steps = 0

    def begin(self, step: int) -> None:
        """Steps follow this one from now on."""
        self._agreed_step, self._agreed_at = step, time.monotonic()
        self._next_step = step + 1

    def add(self, losses_M: Tensor) -> None:
        """Adds a step's losses on this rank, without waiting for the device."""
        self._pending.append(losses_M)

    def due(self, step: int) -> bool:
        """Whether ranks should agree after this step."""
        return step >= self._next_step

    def agree(self, step: int, *, save: bool = False, failed: bool = False) -> Agreement:
        """Sums the pending losses over ranks, and what each asks for. A collective.

        Args:
            step: The step just taken.
            save: This rank finds that it is time for a checkpoint.
            failed: This rank's writing of a checkpoint has failed.

        Raises:
            ChorusError: a loss is not finite; names the member and the step.
        """
        losses_SM = torch.stack(self._pending).double().cpu()
        seconds = (time.monotonic() - self._agreed_at) / len(self._pending)
        asks = [float(asked) for asked in (self._runtime.stop_requested, save, failed)]
        facts = torch.tensor([seconds, *asks], dtype=torch.float64)
        summed = self._runtime.sum(torch.cat([losses_SM.flatten(), facts]))
        losses_SM = summed[: -len(facts)].view_as(losses_SM) / self._runtime.world_size
        self._refuse_not_finite(losses_SM)
        self._sums += losses_SM.sum(dim=0)
        self._num_steps += len(losses_SM)
        mean_seconds = float(summed[-len(facts)]) / self._runtime.world_size
        self._next_step = step + min(_MOST_STEPS, max(1, int(_AGREE_SECONDS / max(mean_seconds, 1e-9))))
        self._pending.clear()
        self._agreed_step, self._agreed_at = step, time.monotonic()
        stop, save, failed = (summed[-len(asks) :] > 0).tolist()
        return Agreement(stop=stop, save=save, failed=failed)

    def _refuse_not_finite(self, losses_SM: Tensor) -> None:
        bad = (~torch.isfinite(losses_SM)).nonzero()
        if len(bad):
            at, member = bad[0].tolist()
            name = self._names[member]
            raise ChorusError(
                f"member {name}: loss is {losses_SM[at, member].item()} at step {self._agreed_step + at + 1};"
                f" lower members.{name}.lr, dense.lr or the lr of its tables, and start again from a checkpoint"
                " before it"
            )

    def state(self) -> dict[str, Any]:
        """What was agreed on since the last `take`, for a checkpoint."""
        return {"sums": self._sums.tolist(), "num_steps": self._num_steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up a saved state."""
        self._sums = torch.tensor(state["sums"], dtype=torch.float64)
        self._num_steps = state["num_steps"]

    def take(self) -> dict[str, float]:
        """Each member's mean loss in nats over the agreed steps since the last call."""
        means = (self._sums / max(self._num_steps, 1)).tolist()
        self._sums.zero_()
        self._num_steps = 0
        return dict(zip(self._names, means, strict=True))
