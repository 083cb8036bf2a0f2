"""From the words after a program's name to a RunConfig."""

from __future__ import annotations

import os
from pathlib import Path

from configs.command import CHECKPOINT, CONFIG, HELP, PRINT_CONFIG, Command, Program
from configs.errors import ConfigError
from configs.key_reference import help_text
from configs.loader import config_text, dump_run, read_run
from configs.schema import RunConfig
from modules import members
from trainer import storage
from trainer.checkpoints.manifest import RUN_NAME, read_manifest, verify_file

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


def checkpoint_folder(command: Command) -> str:
    """The folder that --checkpoint names.

    Raises:
        ConfigError: none is named.
    """
    folder = command.one(CHECKPOINT.name)
    if folder is None:
        raise ConfigError("--checkpoint: not given; name a checkpoint folder, as runs/NAME/TIME/checkpoints/step_...")
    return folder


def scoring_config(command: Command) -> RunConfig:
    """The run of the checkpoint, with the command line's overrides.

    Raises:
        ConfigError: lists every problem.
        CheckpointError: no whole checkpoint there, or its run.toml is damaged.
    """
    folder = checkpoint_folder(command)
    verify_file(read_manifest(folder), RUN_NAME)  # an emptied one would read as a run without members
    path = storage.join(folder, RUN_NAME)
    return _read(storage.read_text(path), source=path, command=command)


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
