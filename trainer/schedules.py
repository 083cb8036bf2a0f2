"""LrSchedule: the factor on every learning rate, of tables and dense parameters, step by step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

from configs.errors import ConfigError
from configs.interval_schema import steps_of
from configs.training_schema import Schedule, Train

_FACTOR = "factor"
_STALE = "evaluations_without_improvement"


class LrSchedule:
    """A factor for each step; steps count from 1, and a factor is that of the step about to be taken.

    With s the step, W warmup_steps, B decay_start_step and D decay_steps, which may be given as parts of an epoch:

    - warm-up, with every kind: s / W until s = W, so that step W is the first with the whole
      learning rate.
    - polynomial: 1 until s = B, then (1 - (s - B) / D) ** power, never less than final_factor. With
      power 2 and final_factor 0 it is the warm-up, hold and decay of MLPerf's DLRM (`LRPolicyScheduler` in
      facebookresearch/dlrm, torchrec_dlrm/lr_scheduler.py). That one differs at two places: between
      warm-up and decay it keeps the warm-up's last factor, (W - 1) / W, and after the decay its last
      factor, 1 / D**2, where this one has 1 and final_factor.
    - cosine: 1 until s = B, then half a cosine down to final_factor at s = B + D (Loshchilov and
      Hutter, "SGDR", 2017, equation 5, one period).
    - cyclic: cycles are counted from the first step on. The k-th of a cycle's C steps has
      final_factor + (1 - final_factor) (1 + cos(pi (k - 1) / C)) / 2: the first one 1, the last one the least, and
      where the next would be at final_factor a new cycle begins (Huang et al., "Snapshot Ensembles", ICLR 2017,
      arXiv 1704.00109, equation 2; SGDR with equal periods). Warm-up lies within the first cycle and multiplies it,
      so that cycles end where epochs do.
    - plateau: each plateau_evaluations evaluations in a row without improvement multiply it by
      plateau_factor, down to final_factor. It alone has a state, which belongs into checkpoints.

    Args:
        section: The configuration.
        steps_per_epoch: Steps in an epoch, which lengths in epochs need to know.

    Attributes:
        cycle: Steps of a cycle, whole or not, as parts of an epoch may give it; 0 without cycles.
    """

    def __init__(self, section: Schedule, *, steps_per_epoch: int = 0) -> None:
        self._section = section
        self.cycle = Fraction(section.cycle_steps) or steps_of(section.cycle_epochs, steps_per_epoch=steps_per_epoch)
        self._decay_start = section.decay_start_step or float(
            steps_of(section.decay_start_epochs, steps_per_epoch=steps_per_epoch)
        )
        self._decay = section.decay_steps or float(steps_of(section.decay_epochs, steps_per_epoch=steps_per_epoch))
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
        if section.kind == "cyclic":
            return self._half_cosine(self._done_of_cycle(step))
        done = min(max((step - self._decay_start) / self._decay, 0.0), 1.0)
        if section.kind == "cosine":
            return self._half_cosine(done)
        return max(section.final_factor, float((1.0 - done) ** section.power))

    def _half_cosine(self, done: float) -> float:
        final = self._section.final_factor
        return final + (1.0 - final) * (1.0 + math.cos(math.pi * done)) / 2.0

    def _done_of_cycle(self, step: int) -> float:
        """How much of its cycle lies before a step, from 0."""
        number = (step - 1) // self.cycle
        first, behind = math.ceil(number * self.cycle), math.ceil((number + 1) * self.cycle)  # in steps from 0
        return (step - 1 - first) / (behind - first)

    def cycles_at_end(self, step: int) -> int:
        """How many cycles are over with this step, where it is the last one of a cycle; otherwise 0."""
        if self._section.kind != "cyclic":
            return 0
        done = step // self.cycle
        return done if done > (step - 1) // self.cycle else 0

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


def run_schedule(train: Train, *, epoch_rows: int) -> LrSchedule:
    """The schedule of a run over epochs of so many rows.

    Raises:
        ConfigError: cycles are too short, or the run would end within one; decay begins within warm-up.
    """
    section, steps_per_epoch = train.schedule, -(-epoch_rows // train.batch_size)
    schedule = LrSchedule(section, steps_per_epoch=steps_per_epoch)
    decay_start = steps_of(section.decay_start_epochs, steps_per_epoch=steps_per_epoch)
    if section.decay_epochs and decay_start < section.warmup_steps:
        raise ConfigError(
            f"train.schedule.decay_start_epochs: {section.decay_start_epochs} epochs of {steps_per_epoch} steps are"
            f" within the {section.warmup_steps} warm-up steps; begin the decay later, or give fewer warmup_steps"
        )
    if section.kind != "cyclic":
        return schedule
    cycle = schedule.cycle
    if cycle < 2 or cycle <= section.warmup_steps:
        least = max(2, section.warmup_steps + 1)
        raise ConfigError(
            f"train.schedule.cycle_epochs: {section.cycle_epochs} epochs of {steps_per_epoch} steps are"
            f" {float(cycle):g} steps; a cycle must have {least} or more: give more epochs, or fewer warmup_steps"
        )
    last_step = train.until.steps or steps_per_epoch * (train.until.epochs or 0)
    if not schedule.cycles_at_end(last_step):
        ends = [math.ceil(number * cycle) for number in (last_step // cycle, last_step // cycle + 1) if number]
        raise ConfigError(
            f"train.until: the run would end at step {last_step}, within a cycle of train.schedule, where the rates are"
            f" high; end it with one, as at step {' or '.join(map(str, ends))}"
        )
    return schedule
