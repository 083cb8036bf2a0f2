"""What the ranks of the measurement do: train as trainer/main.py does, and time every checkpoint."""

from __future__ import annotations

import dataclasses
import time
from typing import Any, cast

from configs.command import TRAIN, parse_command
from trainer import storage
from trainer.assembly import assemble_training
from trainer.checkpoints.run_checkpoints import RunCheckpoints, Snapshot
from trainer.command_line import training_config
from trainer.loop import train
from trainer.reporting import Reporter
from trainer.run_folder import RunFolder
from trainer.runtime import Runtime


class _TimedCheckpoints:
    """RunCheckpoints that note how long training was held up by each."""

    def __init__(self, checkpoints: RunCheckpoints) -> None:
        self._checkpoints = checkpoints
        self.saves: list[tuple[int, float]] = []  # step, seconds

    def save(self, snapshot: Snapshot) -> None:
        began = time.monotonic()
        self._checkpoints.save(snapshot)
        self.saves.append((snapshot.facts["step"], time.monotonic() - began))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._checkpoints, name)


def serve(path: str) -> None:
    """Trains the run of the file, {words, result}, and writes {saves: [[step, seconds], ...]}. All ranks call this."""
    task = storage.read_json(path)
    config = training_config(parse_command(task["words"], program=TRAIN))
    with Runtime(config.run) as runtime, RunFolder(config, runtime=runtime) as folder:
        assembled = assemble_training(config, folder=folder.path, runtime=runtime)
        folder.begin()
        timed = _TimedCheckpoints(assembled.training.checkpoints)
        training = dataclasses.replace(assembled.training, checkpoints=cast(RunCheckpoints, timed))
        reporter = Reporter(folder=folder.path, resumed_step=0, runtime=runtime)
        train(training, config=config, reporter=reporter, runtime=runtime)
        reporter.close()
        if runtime.is_main:
            storage.write_json(task["result"], {"saves": timed.saves})
