"""Whether files can be written where they are asked for, said before hours of work rather than behind them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from configs.errors import ConfigError
from trainer import storage


def check_output_files(paths: Mapping[str, str | None]) -> None:
    """Refuses a place that no file can be written to; places on S3 are believed.

    Args:
        paths: Flag -> the file that it names; None: not given.

    Raises:
        ConfigError: names the flag.
    """
    flags: dict[str, str] = {}
    for flag, path in paths.items():
        if path is None:
            continue
        if not path:
            raise ConfigError(f"{flag}: '' is no file; name one")
        if not storage.is_remote(path):
            _check_local(flag, path)
            path = os.path.realpath(path)
        if path in flags:
            raise ConfigError(f"{flag}: {paths[flag]!r} is the file of {flags[path]}, too; name another one")
        flags[path] = flag


def _check_local(flag: str, path: str) -> None:
    folder = os.path.dirname(path) or "."
    if path.endswith(os.sep) or os.path.isdir(path):
        raise ConfigError(f"{flag}: {path!r} is a folder; name a file")
    if not os.path.isdir(folder):
        what = "is not a folder" if os.path.exists(folder) else "is not there"
        raise ConfigError(f"{flag}: the folder {folder!r} {what}; make it, or name another place")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"{flag}: the folder {folder!r} cannot be written to; name another place")
