"""LrSchedule: the factor on every learning rate, of tables and dense parameters, step by step."""

from __future__ import annotations

import math
from collections.abc import Mapping

from configs.training_schema import Schedule

_FACTOR = "factor"
_STALE = "evaluations_without_improvement"


class LrSchedule:
    """A factor for each step; steps count from 1, and a factor is that of the step about to be taken.

    With s the step, W warmup_steps, B decay_start_step and D decay_steps:

    - warm-up, with every kind: s / W until s = W, so that step W is the first with the whole
      learning rate.
    - polynomial: 1 until s = B, then (1 - (s - B) / D) ** power, never less than final_factor. With
      power 2 and final_factor 0 it is the warm-up, hold and decay of MLPerf's DLRM (`LRPolicyScheduler` in
      facebookresearch/dlrm, torchrec_dlrm/lr_scheduler.py). That one differs at two places: between
      warm-up and decay it keeps the warm-up's last factor, (W - 1) / W, and after the decay its last
      factor, 1 / D**2, where this one has 1 and final_factor.
    - cosine: 1 until s = B, then half a cosine down to final_factor at s = B + D (Loshchilov and
      Hutter, "SGDR", 2017, equation 5, one period).
    - plateau: each plateau_evaluations evaluations in a row without improvement multiply it by
      plateau_factor, down to final_factor. It alone has a state, which belongs into checkpoints.

    Args:
        section: The configuration.
    """

    def __init__(self, section: Schedule) -> None:
        self._section = section
        self._plateau = 1.0
        self._stale = 0

    def factor(self, step: int) -> float:
        """The factor of a step, at least 0; set it before the step's backward pass, which updates tables."""
        assert step >= 1, "steps count from 1"
        warmup_steps = self._section.warmup_steps
        warmup = min(1.0, step / warmup_steps) if warmup_steps else 1.0
        return warmup * self._after_warmup(step)

    def _after_warmup(self, step: int) -> float:
        section = self._section
        if section.kind == "constant":
            return 1.0
        if section.kind == "plateau":
            return self._plateau
        done = min(max((step - section.decay_start_step) / section.decay_steps, 0.0), 1.0)
        if section.kind == "cosine":
            return section.final_factor + (1.0 - section.final_factor) * (1.0 + math.cos(math.pi * done)) / 2.0
        return max(section.final_factor, float((1.0 - done) ** section.power))

    @property
    def plateau(self) -> float:
        """What plateau has brought the factor down to; 1 with every other kind."""
        return self._plateau

    def on_evaluation(self, improved: bool) -> None:
        """Tells what an evaluation found: whether the figure is better than ever before. Only plateau listens."""
        if self._section.kind != "plateau":
            return
        self._stale = 0 if improved else self._stale + 1
        if self._stale >= self._section.plateau_evaluations:
            # min: a least factor that was raised for a resumed run lifts no factor.
            lowered = self._plateau * self._section.plateau_factor
            self._plateau = min(self._plateau, max(self._section.final_factor, lowered))
            self._stale = 0

    def state(self) -> dict[str, float]:
        """What the steps alone do not tell, for a checkpoint: plain numbers, and nothing but for plateau."""
        if self._section.kind != "plateau":
            return {}
        return {_FACTOR: self._plateau, _STALE: self._stale}

    def restore(self, state: Mapping[str, float]) -> None:
        """Takes up a saved state; an empty one, as another kind leaves it, starts at factor 1."""
        self._plateau = float(state.get(_FACTOR, 1.0))
        self._stale = int(state.get(_STALE, 0))
