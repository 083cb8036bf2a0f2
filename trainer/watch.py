"""QualityWatch: follows the validation figure that decides what is best, what has stalled and when to stop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from configs.training_schema import Watch
from trainer.metrics.meters import MeteredColumn

_HIGHER_IS_BETTER = {"auc": True, "log_loss_nats": False, "ne": False}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one evaluation means for the run."""

    value: float  # the watched figure, in its own unit; NaN where the rows do not define it
    rank: float  # the figure for comparing evaluations: higher is better, -inf for NaN
    improved: bool  # better than every evaluation before it, so the best so far
    reached_target: bool  # at least as good as train.watch.target


class QualityWatch:
    """Compares each evaluation's figure with the best before it and with the target.

    NaN is no improvement and reaches no target: that is the AUC and the normalised entropy of rows of
    one class only, every figure of no rows at all, and the loss of predictions that are not finite.

    Args:
        section: The configuration; its column is `merged` or a member's name.
        min_change: Least change that counts as improvement; 0: any.
    """

    def __init__(self, section: Watch, *, min_change: float = 0.0) -> None:
        self._section = section
        self._min_change = min_change
        self._best: float | None = None

    @property
    def is_done(self) -> bool:
        """Whether the target was reached, by an evaluation before or after a restart."""
        target = self._section.target
        return target is not None and self._best is not None and self.rank(self._best) >= self.rank(target)

    def update(self, quality: Mapping[str, MeteredColumn]) -> Verdict:
        """Takes one evaluation's figures in, by column name."""
        value = float(getattr(quality[self._section.column].metrics, self._section.metric))
        rank = self.rank(value)
        best = -math.inf if self._best is None else self.rank(self._best)
        improved = rank > best and rank >= best + self._min_change
        if improved:
            self._best = value
        return Verdict(value=value, rank=rank, improved=improved, reached_target=self._reaches_target(value))

    def _reaches_target(self, value: float) -> bool:
        target = self._section.target
        return target is not None and not math.isnan(value) and self.rank(value) >= self.rank(target)

    def rank(self, value: float) -> float:
        """A figure turned so that higher is better, for sorting evaluations; -inf for NaN."""
        if math.isnan(value):
            return -math.inf
        return value if _HIGHER_IS_BETTER[self._section.metric] else -value

    @property
    def told_best(self) -> str:
        """The best figure so far, for a person."""
        return f"{self._section.metric} {'none' if self._best is None else f'{self._best:.5f}'}"

    def state(self) -> dict[str, float]:
        """The best figure so far, for a checkpoint; its key names what is watched. Empty before there is one."""
        return {} if self._best is None else {self._key: self._best}

    def restore(self, state: Mapping[str, float]) -> None:
        """Takes up a saved state. The best of another column or metric is no measure: then it starts afresh."""
        self._best = state.get(self._key)

    @property
    def _key(self) -> str:
        return f"best/{self._section.column}/{self._section.metric}"
