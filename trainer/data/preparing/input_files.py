"""Input files: the paths that names and patterns stand for, in the order of time."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from configs.errors import DataError
from trainer import storage


def input_files(patterns: Sequence[str], *, key: str) -> list[str]:
    """The files that paths and patterns name; a pattern's are sorted by the numbers in their names.

    Args:
        patterns: Paths, local or s3://, and local patterns.
        key: Where they are named, for messages.

    Raises:
        DataError: a pattern matches nothing, or the files are in the order of their text, as a shell expands them.
    """
    files: list[str] = []
    for pattern in patterns:
        plain = storage.is_remote(pattern) or not glob.has_magic(pattern) or Path(pattern).exists()
        matched = [pattern] if plain else sorted(glob.glob(pattern), key=_natural_key)
        if not matched:
            raise DataError(f"{key}: no file matches {pattern!r}; check the path")
        files += matched
    natural = sorted(files, key=_natural_key)
    if len(patterns) > 1 and files == sorted(files) and files != natural:
        at = next(place for place, (given, wanted) in enumerate(zip(files, natural, strict=True)) if given != wanted)
        raise DataError(
            f"{key}: the files are in the order of their text ({files[at]} before {natural[at]}), which is hardly the"
            " order of time; put the pattern in quotes and they are sorted by number"
        )
    return files


def _natural_key(path: str) -> list[tuple[int, str]]:
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in re.split(r"(\d+)", path)]
