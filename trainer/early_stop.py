"""EarlyStop: stops the members that no longer improve, one table group at a time, and gives them their best weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from configs.training_schema import EarlyStop as EarlyStopSection
from configs.training_schema import Schedule, Watch
from trainer.checkpoints.pieces import Pieces, State
from trainer.metrics.meters import MeteredColumn
from trainer.schedules import LrSchedule
from trainer.watch import QualityWatch

BEST_PREFIX = "best/"


class _Group:
    """A table group and the members on it: what it has reached, and its weights when it was best."""

    def __init__(self, *, section: EarlyStopSection, schedule: Schedule, column: str, live: State) -> None:
        self.patience = section.evaluations
        self.metric = section.metric
        self.watch = QualityWatch(Watch(column=column, metric=section.metric), min_change=section.min_change)
        self.schedule = LrSchedule(schedule)
        self.stale = 0
        self.stopped = False
        self.has_best = False  # whether an evaluation has said which weights are the best
        self.live = live
        self.best = {f"{BEST_PREFIX}{key}": _copied(value) for key, value in live.items()}

    def keep_best(self) -> None:
        for target, source in self._pairs():
            target.copy_(source)

    def take_best(self) -> None:
        if not self.has_best:
            return
        for best, live in self._pairs():
            live.copy_(best)

    def swap(self) -> None:
        if not self.has_best:
            return
        for best, live in self._pairs():
            kept = live.clone()
            live.copy_(best)
            best.copy_(kept)

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        best = [tensor for value in self.best.values() for tensor in _tensors(value)]
        live = [tensor for value in self.live.values() for tensor in _tensors(value)]
        return list(zip(best, live, strict=True))


class EarlyStop:
    """Follows each group's figure from evaluation to evaluation.

    A member with own tables is a group by itself. All ranks see the same figures, and so decide alike.

    Args:
        section: The configuration; with 0 evaluations nothing here does anything.
        schedule: The learning rate's; with plateau_of = "early_stop" each group has a factor of its own.
        groups: Table group -> its members that are trained.
        weights: Table group -> its live weights, tables and members, by their keys in a checkpoint.
        before_read: Brings the live weights up to date, where a cache holds newer ones.
        after_write: Has a cache forget what it held of the live weights.
    """

    def __init__(
        self,
        section: EarlyStopSection,
        *,
        schedule: Schedule,
        groups: Mapping[str, Sequence[str]],
        weights: Mapping[str, State],
        before_read: Callable[[], object] = lambda: None,
        after_write: Callable[[], object] = lambda: None,
    ) -> None:
        self._before_read, self._after_write = before_read, after_write
        self._members = {name: tuple(members) for name, members in groups.items()}
        self._by_group = schedule.kind == "plateau" and schedule.plateau_of == "early_stop"
        self._holds_best = False
        self._groups = {
            name: _Group(
                section=section,
                schedule=schedule,
                column=section.columns.get(name, members[0]),
                live=weights[name],
            )
            for name, members in self._members.items()
            if section.evaluations
        }

    @property
    def is_on(self) -> bool:
        """Whether any group may stop."""
        return bool(self._groups)

    @property
    def is_over(self) -> bool:
        """Whether all groups have stopped."""
        return self.is_on and all(group.stopped for group in self._groups.values())

    @property
    def stopped_groups(self) -> frozenset[str]:
        """Groups that are no longer trained."""
        return frozenset(name for name, group in self._groups.items() if group.stopped)

    @property
    def stopped_members(self) -> frozenset[str]:
        """Members that are no longer trained."""
        return frozenset(member for name in self.stopped_groups for member in self._members[name])

    @property
    def lr_factors(self) -> dict[str, float]:
        """Table group -> its own factor on the learning rate; empty where the schedule has one for all."""
        return {name: group.schedule.plateau for name, group in self._groups.items()} if self._by_group else {}

    @torch.no_grad()
    def update(self, quality: Mapping[str, MeteredColumn]) -> list[str]:
        """Takes one evaluation's figures in, by column name; gives a sentence for all that changes."""
        told: list[str] = []
        if not self.is_on:
            return told
        self._before_read()
        for name, group in self._groups.items():
            if group.stopped:
                continue
            verdict = group.watch.update(quality)
            if math.isnan(verdict.value):
                told.append(f"{', '.join(self._members[name])}: these rows do not define {group.metric}, it goes on")
                continue
            group.stale = 0 if verdict.improved else group.stale + 1
            if verdict.improved:
                group.keep_best()
                group.has_best = True
            before = group.schedule.plateau
            group.schedule.on_evaluation(verdict.improved)
            who = ", ".join(self._members[name])
            if group.stale >= group.patience:
                group.stopped = True
                group.take_best()
                told.append(f"{who}: stopped, no better for {group.stale} evaluations; best {group.watch.told_best}")
            elif self._by_group and group.schedule.plateau != before:
                told.append(f"{who}: no better than {group.watch.told_best}; lr times {group.schedule.plateau:g}")
        self._after_write()
        return told

    @torch.no_grad()
    def hold_best(self, wanted: bool) -> None:
        """Puts the best weights of the groups that have not stopped in place of their last ones, or the last back."""
        if wanted != self._holds_best:
            self._before_read()
            for group in self._groups.values():
                if not group.stopped:
                    group.swap()
            self._after_write()
            self._holds_best = wanted

    @torch.no_grad()
    def begin(self) -> None:
        """Takes the weights of now for the best ones, until an evaluation says otherwise."""
        self._before_read()
        for group in self._groups.values():
            group.keep_best()

    def state_tensors(self) -> State:
        """What a checkpoint holds beside weights and optimizer: `best/KEY`, live."""
        return {key: value for group in self._groups.values() for key, value in group.best.items()}

    def state(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {
            "holds_best": self._holds_best,
            "groups": {
                name: {
                    "stale": group.stale,
                    "stopped": group.stopped,
                    "has_best": group.has_best,
                    "watch": group.watch.state(),
                    "schedule": group.schedule.state(),
                }
                for name, group in self._groups.items()
            },
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up a saved state of the same groups."""
        self._holds_best = state["holds_best"]
        for name, saved in state["groups"].items():
            group = self._groups[name]
            group.stale, group.stopped = saved["stale"], saved["stopped"]
            group.has_best = saved["has_best"]
            group.watch.restore(saved["watch"])
            group.schedule.restore(saved["schedule"])


def _tensors(value: Pieces | Tensor) -> list[Tensor]:
    return list(value.parts.values()) if isinstance(value, Pieces) else [value]


def _copied(value: Pieces | Tensor) -> Pieces | Tensor:
    if not isinstance(value, Pieces):
        return value.clone()
    return Pieces(shape=value.shape, parts={at: part.clone() for at, part in value.parts.items()})
