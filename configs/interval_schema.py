"""Intervals and lengths of a run, in steps, epochs, cycles or seconds."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from configs.section import Section, not_negative, positive


@dataclass(frozen=True, kw_only=True)
class Until(Section):
    """How long to train: give one unit."""

    steps: int | None = None
    """Global steps."""

    epochs: int | None = None
    """Passes over data.train."""

    def __post_init__(self) -> None:
        given = [name for name in ("steps", "epochs") if getattr(self, name) is not None]
        wrong = (
            f"{given[0] if given else 'steps'}: give exactly one of steps, epochs; on the command line write"
            " --train.until='{steps = 500}', which replaces the other"
        )
        self.refuse(
            None if len(given) == 1 else wrong,
            positive("steps", self.steps),
            positive("epochs", self.epochs),
        )


@dataclass(frozen=True, kw_only=True)
class Every(Section):
    """An interval of steps or parts of an epoch; 0 of both means only at the end."""

    steps: int = 0
    """Global steps."""

    epochs: float = 0.0
    """Epochs or parts of one: 0.05 is twenty times an epoch."""

    def __post_init__(self) -> None:
        self.refuse(
            not_negative("steps", self.steps),
            not_negative("epochs", self.epochs),
            "epochs: give steps or epochs, not both" if self.steps and self.epochs else None,
        )

    def due(self, step: int, *, steps_per_epoch: int) -> bool:
        """Whether the interval ends at this step (counted from 1)."""
        if self.steps:
            return step % self.steps == 0
        if self.epochs:
            size = steps_of(self.epochs, steps_per_epoch=steps_per_epoch)
            return step // size > (step - 1) // size
        return False


def steps_of(epochs: float, *, steps_per_epoch: int) -> Fraction:
    """Steps in so many epochs. Exact: in floats the 20th interval of 0.05 epochs of 23 steps ends behind the epoch."""
    return Fraction(repr(epochs)) * steps_per_epoch


@dataclass(frozen=True, kw_only=True)
class SaveEvery(Section):
    """When checkpoints are written; 0 of all means only at the end."""

    steps: int = 0
    """Global steps."""

    epochs: float = 0.0
    """Epochs or parts of one."""

    cycles: int = 0
    """Cycles of train.schedule: 1 writes right after the last step of each, where the rates are lowest."""

    seconds: float = 0.0
    """Seconds since the last one, to about a second."""

    def __post_init__(self) -> None:
        self.refuse(
            not_negative("steps", self.steps),
            not_negative("epochs", self.epochs),
            not_negative("cycles", self.cycles),
            not_negative("seconds", self.seconds),
            "epochs: give steps or epochs, not both" if self.steps and self.epochs else None,
        )

    @property
    def is_given(self) -> bool:
        """Whether any are written before the end."""
        return bool(self.steps or self.epochs or self.cycles or self.seconds)

    def due(self, step: int, *, steps_per_epoch: int, cycles_done: int = 0) -> bool:
        """Whether an interval ends at this step (counted from 1); of seconds the caller knows.

        Args:
            step: The step.
            steps_per_epoch: Steps in an epoch.
            cycles_done: Whole cycles of the learning rate so far, where this step ends one; otherwise 0.
        """
        by_cycles = self.cycles > 0 and cycles_done > 0 and cycles_done % self.cycles == 0
        return by_cycles or Every(steps=self.steps, epochs=self.epochs).due(step, steps_per_epoch=steps_per_epoch)
