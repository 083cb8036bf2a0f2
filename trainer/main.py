"""Trains a run: parse, assemble, loop, close.

torchx run -s local_cwd dist.ddp -j 1x8 trainer/main.py --config configs/demo.toml --train.batch_size=4096
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # a script finds its own folder there

from configs.command import TRAIN, parse_command
from configs.errors import EXIT_DONE, EXIT_PREEMPTED
from trainer.announcements import say_end, say_start
from trainer.assembly import assemble_training
from trainer.command_line import show_config, show_help, training_config
from trainer.days import train_days
from trainer.failures import guard, leave
from trainer.loop import train
from trainer.reporting import Reporter
from trainer.run_folder import RunFolder
from trainer.runtime import Runtime


def main(argv: Sequence[str]) -> int:
    """Runs one training and gives the exit code."""
    command = parse_command(argv, program=TRAIN)
    if show_help(command, program=TRAIN):
        return EXIT_DONE
    config = training_config(command)
    if show_config(command, config):
        return EXIT_DONE

    with Runtime(config.run) as runtime, RunFolder(config, runtime=runtime) as folder:
        assembled = assemble_training(config, folder=folder.path, runtime=runtime)
        folder.begin()
        say_start(config, assembled=assembled, folder=folder.path, runtime=runtime)

        reporter = Reporter(folder=folder.path, resumed_step=assembled.training.progress.step, runtime=runtime)
        training = assembled.training
        if config.train.day_by_day:
            end = train_days(training, config=config, folder=folder.path, reporter=reporter, runtime=runtime)
        else:
            end = train(training, config=config, reporter=reporter, runtime=runtime)
        reporter.close()

        say_end(end, assembled=assembled, folder=folder.path, runtime=runtime)
        exit_code = EXIT_PREEMPTED if end.preempted else EXIT_DONE
        folder.finish(exit_code=exit_code, progress=assembled.training.progress.as_json())
    return exit_code


if __name__ == "__main__":
    leave(guard(main, sys.argv[1:]))
