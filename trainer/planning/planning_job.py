"""PlanningJob: an ensemble and its rows, to be planned on any machine."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch

from configs.schema import RunConfig
from sharding.cost.work import DenseWork
from trainer.built_task import BuiltTask, build_task, member_losses
from trainer.data.reading.loading import slice_size
from trainer.optimizers import update_tables_in_backward
from trainer.planning.data_facts import DataFacts
from trainer.planning.dense_work import trace_dense
from trainer.task_plan import TaskWork, training_work


@dataclass(frozen=True, kw_only=True)
class PlanningJob:
    """An ensemble and its rows, to be planned on any machine. What does not depend on the machine is made once."""

    config: RunConfig
    data: DataFacts
    purpose: Literal["train", "score"] = "train"
    host_memory: bool = False  # whether kernel auto may put tables into a GPU host's memory
    _traced: dict[int, DenseWork] = field(default_factory=dict, repr=False, compare=False)

    @property
    def trains(self) -> bool:
        """Whether it is a training job."""
        return self.purpose == "train"

    @property
    def num_rows(self) -> int:
        """Rows of an epoch, or to score."""
        return self.data.train_rows if self.trains else self.data.score_rows

    @cached_property
    def built(self) -> BuiltTask:
        """The ensemble, without values, its tables' rules declared where it trains.

        Raises:
            ConfigError: it cannot be built of these features.
        """
        # Whether copies can be computed as one is tried on real weights.
        without_values = contextlib.nullcontext() if self.config.dense.batch_copies else torch.device("meta")
        with without_values:
            losses = member_losses(self.config, mean_over_ranks=lambda values: values)
            built = build_task(self.config, features=self.data.features, losses=losses)
        if self.trains:
            update_tables_in_backward(built.task, built.specs, frozen_groups=built.task.ensemble.frozen_groups)
        return built

    def rows_per_rank(self, world_size: int) -> int:
        """Rows of a rank's batch."""
        if self.trains:
            return slice_size(batch_size=self.config.train.batch_size, world_size=world_size)
        return self.config.score.batch_size

    def dense_work(self, rows: int) -> DenseWork:
        """What members compute for so many rows."""
        if rows not in self._traced:
            self._traced[rows] = trace_dense(
                self.built.task, rows=max(rows, 2), num_dense=len(self.data.features.dense_names), trains=self.trains
            )
        return self._traced[rows]

    def task_work(self, *, rows_per_rank: int, extra_bytes: int) -> TaskWork:
        """What it asks of the planner."""
        mean_ids = {feature: traffic.mean_ids for feature, traffic in self.data.traffic.items()}
        if self.trains:
            work = training_work(self.config, rows_per_rank=rows_per_rank, mean_ids=mean_ids)
            return dataclasses.replace(work, extra_bytes=extra_bytes, host_memory=self.host_memory)
        return TaskWork(
            rows_per_rank=rows_per_rank, mean_ids=mean_ids, extra_bytes=extra_bytes, host_memory=self.host_memory
        )
