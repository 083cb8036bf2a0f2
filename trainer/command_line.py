"""From the words after a program's name to a RunConfig."""

from __future__ import annotations

import os
from pathlib import Path

from configs.command import CHECKPOINT, CONFIG, HELP, OUTPUT, PRINT_CONFIG, Command, Program
from configs.errors import ConfigError
from configs.key_reference import help_text
from configs.loader import config_text, dump_run, read_run
from configs.schema import RunConfig
from modules import members
from trainer import storage
from trainer.checkpoints.manifest import RUN_NAME, read_manifest, verify_file
from trainer.scored_run import ScoredRun, check_members_differ, labels_and_folders

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "demo.toml"


def show_help(command: Command, *, program: Program) -> bool:
    """Prints the help where it was asked for; gives whether it was."""
    if not command.given(HELP.name):
        return False
    if _speaks():
        print(help_text(program, arch_classes={kind: members.config_class(kind) for kind in members.kinds()}))
    return True


def show_config(command: Command, config: RunConfig) -> bool:
    """Prints the resolved config where it was asked for; gives whether it was."""
    if not command.given(PRINT_CONFIG.name):
        return False
    if _speaks():
        print(dump_run(config), end="")
    return True


def training_config(command: Command) -> RunConfig:
    """The run that --config names, or the demo ensemble on a synthetic stream.

    Raises:
        ConfigError: lists every problem.
    """
    path = command.one(CONFIG.name) or str(DEFAULT_CONFIG)
    return _read(
        config_text(path), source=path if command.given(CONFIG.name) else "the built-in demo run", command=command
    )


def scored_runs(command: Command) -> tuple[ScoredRun, ...]:
    """The checkpoints that --checkpoint names, each with its own run and the command line's overrides.

    Raises:
        ConfigError: none is named, or labels are missing; or lists every problem of a run.
        CheckpointError: no whole checkpoint there, or its run.toml is damaged.
    """
    runs = []
    for label, folder in labels_and_folders(command.all(CHECKPOINT.name)):
        verify_file(read_manifest(folder), RUN_NAME)  # an emptied one would read as a run without members
        path = storage.join(folder, RUN_NAME)
        config = _read(storage.read_text(path), source=path, command=command)
        runs.append(ScoredRun(label=label, folder=folder, config=config))
    check_members_differ(runs)
    return tuple(runs)


def output_folder(command: Command) -> str:
    """The folder that --output names.

    Raises:
        ConfigError: none is named.
    """
    folder = command.one(OUTPUT.name)
    if folder is None:
        raise ConfigError("--output: not given; name a folder for the predictions")
    return folder


def _read(text: str, *, source: str, command: Command) -> RunConfig:
    return read_run(
        text,
        source=source,
        overrides=command.overrides,
        resolve_arch=members.config_class,
        arch_kinds=members.kinds(),
    )


def _speaks() -> bool:
    return os.environ.get("RANK", "0") == "0"
