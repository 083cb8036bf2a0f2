"""What can go wrong for a user, and the exit code each kind ends with."""

from __future__ import annotations

from typing import ClassVar

EXIT_DONE = 0
EXIT_FAILURE = 1
EXIT_REFUSED = 2
EXIT_NOTHING_FITS = 3
EXIT_PREEMPTED = 75
EXIT_INTERRUPTED = 130  # Ctrl-C where nothing is worth saving


class ChorusError(Exception):
    """One sentence for the user: the key, the value and the remedy."""

    exit_code: ClassVar[int] = EXIT_FAILURE


class ConfigError(ChorusError):
    """The configuration or the command line is wrong."""

    exit_code: ClassVar[int] = EXIT_REFUSED


class DataError(ChorusError):
    """A data file or folder is missing, damaged or does not fit the run."""

    exit_code: ClassVar[int] = EXIT_REFUSED


class CheckpointError(ChorusError):
    """A checkpoint is missing, unfinished, damaged or of another model."""

    exit_code: ClassVar[int] = EXIT_REFUSED


class PlanError(ChorusError):
    """No sharding plan fits the machine."""

    exit_code: ClassVar[int] = EXIT_NOTHING_FITS
