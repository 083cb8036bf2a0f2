"""Day-by-day learning: each part of data.train is evaluated before it is trained on, once, in order.

What a model says of a day that it has not seen is what it would have said in service: progressive
validation (Blum, Kalai and Langford, "Beating the Hold-Out", COLT 1999). A finished day counts as
an epoch of the run's progress, so a run goes on with the days that were appended to data.train.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from configs.errors import ConfigError
from configs.interval_schema import Until
from configs.schema import RunConfig
from modules.merge import MERGED
from trainer import storage
from trainer.announcements import quality_table
from trainer.data.reading.source import PreparedSource
from trainer.evaluation import Evaluator, figures
from trainer.loop import LoopEnd, Training, train
from trainer.reporting import Reporter
from trainer.runtime import Runtime

DAYS_NAME = "days.json"


@dataclass(frozen=True, kw_only=True)
class _Day:
    """One part, as far as it is known."""

    number: int  # from 0
    source: PreparedSource

    @property
    def name(self) -> str:
        return self.source.parts[0].name


def train_days(training: Training, *, config: RunConfig, folder: str, reporter: Reporter, runtime: Runtime) -> LoopEnd:
    """Trains the days that are left, one after the other; a checkpoint follows each. All ranks must call this.

    Every day's figures before it was trained on are in days.json of the run's folder, and under
    day/COLUMN/FIGURE in the metrics.

    Raises:
        ConfigError: the data are the synthetic stream, which has no days.
        ChorusError: as `train`.
    """
    if not config.data.root:
        raise ConfigError("train.day_by_day: the synthetic stream has no days; give data.root and data.train")
    days = [
        _Day(number=number, source=PreparedSource(root=config.data.root, parts=(name,)))
        for number, name in enumerate(config.data.train)
    ]
    progress = training.progress
    ends = []
    for day in days[progress.epoch :]:
        if training.watch.is_done:
            break
        runtime.say(f"day {day.number + 1} of {len(days)}: {day.name}, {day.source.num_rows:,} rows")
        borrowed = all(member.weights_from for member in config.members.values())
        is_trained = progress.step > 0 or bool(config.checkpoint.start_from) or borrowed
        if progress.row == 0 and is_trained:
            with runtime.patience(f"evaluating {day.name}"):
                _evaluate(day, training=training, config=config, folder=folder, reporter=reporter, runtime=runtime)
        until_its_end = dataclasses.replace(config.train, until=Until(epochs=day.number + 1), day_by_day=False)
        end = train(
            dataclasses.replace(training, source=day.source),
            config=dataclasses.replace(config, train=until_its_end),
            reporter=reporter,
            runtime=runtime,
        )
        ends.append(end)
        if end.preempted:
            break
    runtime.from_main(lambda: _say_days(folder, columns=[*training.member_names, MERGED]))
    return LoopEnd(
        preempted=any(end.preempted for end in ends),
        reached_target=training.watch.is_done,
        seconds=sum(end.seconds for end in ends),
        rows=sum(end.rows for end in ends),
        quality=ends[-1].quality if ends else {},
    )


def _evaluate(
    day: _Day, *, training: Training, config: RunConfig, folder: str, reporter: Reporter, runtime: Runtime
) -> None:
    evaluator = Evaluator(
        source=day.source,
        batch_size=config.train.batch_size,
        member_names=training.member_names,
        rule=config.merge.rule,
        runtime=runtime,
        prefetch_batches=config.data.prefetch_batches,
    )
    quality = evaluator.evaluate(training.model)
    step = training.progress.step
    by_column = {name: figures(column) for name, column in quality.items()}
    reporter.write(step, {f"day/{name}/{key}": value for name, of in by_column.items() for key, value in of.items()})
    runtime.say(f"{day.name} before it is trained on:")
    runtime.say(quality_table({name: column.metrics for name, column in quality.items()}))
    if runtime.is_main:
        _note(folder, day=day, step=step, figures_by_column=by_column)


def _note(folder: str, *, day: _Day, step: int, figures_by_column: Mapping[str, Mapping[str, float]]) -> None:
    """Puts a day into days.json; one that was evaluated before a restart is replaced."""
    path = storage.join(folder, DAYS_NAME)
    known: list[dict[str, Any]] = storage.read_json(path)["days"] if storage.is_file(path) else []
    kept = [other for other in known if other["number"] < day.number]
    entry = {"number": day.number, "day": day.name, "rows": day.source.num_rows, "step": step}
    storage.write_json(path, {"days": [*kept, entry | {"columns": figures_by_column}]})


def _say_days(folder: str, *, columns: Sequence[str]) -> None:
    """A line per day: every column's AUC and log loss in nats before the day was trained on."""
    path = storage.join(folder, DAYS_NAME)
    if not storage.is_file(path):
        return
    print("day by day, each before it was trained on: AUC/log loss in nats")
    for entry in storage.read_json(path)["days"]:
        found = entry["columns"]
        figures_of = (f"{name} {found[name]['auc']:.5f}/{found[name]['log_loss_nats']:.5f}" for name in columns)
        print(f"{entry['day']}  {entry['rows']:,} rows  {'  '.join(figures_of)}", flush=True)
