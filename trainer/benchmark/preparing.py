"""Preparing: a benchmark's files into one prepared folder for each window."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from configs.benchmark_schema import BenchmarkData, Window
from configs.errors import ChorusError, ConfigError
from trainer import storage
from trainer.data.manifest import MANIFEST_NAME, DataManifest

ROOT = Path(__file__).resolve().parents[2]
DATA_NAME = "data"
_PROGRAMS = {"criteo": "tools/prepare_criteo.py", "table": "tools/prepare_table.py"}


def prepare_words(data: BenchmarkData, window: Window, *, source: str, output: str) -> list[str]:
    """The command that prepares a window, from the project's root."""
    words = [_PROGRAMS[data.layout]]
    words += ["--schema", data.schema] if data.schema else []
    words += ["--input", *(storage.join(source, file) for file in data.files), "--output", output]
    words += ["--split", *(f"{part}={share:g}" for part, share in window.split.items())] if window.split else []
    return [*words, "--vocabulary-from", *window.train, *data.options]


def prepared_folders(data: BenchmarkData, *, folder: str) -> dict[str, str]:
    """Window -> where its prepared rows lie, or will, absolute; named by a hash of how they are prepared.

    Args:
        data: What to prepare.
        folder: Of the benchmark.
    """
    found = {}
    for name, window in data.windows.items():
        words = prepare_words(data, window, source="", output="")
        key = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:8]
        found[name] = str(Path(folder, DATA_NAME, f"{name}-{key}").resolve())
    return found


def prepare(data: BenchmarkData, *, folders: Mapping[str, str], source: str, say: Callable[[str], None]) -> None:
    """Prepares what is not prepared yet, and looks whether it can be judged.

    With a source, the program that prepares compares what is there with the source's files and the schema.

    Args:
        data: What to prepare.
        folders: As `prepared_folders` gives them.
        source: The folder of the files; empty: all is prepared already.
        say: Told what is being done.

    Raises:
        ConfigError: a file or a part is not there, or a part has rows of one label only.
        ChorusError: preparing failed; it has said why.
    """
    for name, window in data.windows.items():
        output = folders[name]
        is_there = storage.is_file(storage.join(output, MANIFEST_NAME))
        if source or not is_there:
            _check_files(data, source=source)
            shown = prepare_words(data, window, source=source, output=storage.join(DATA_NAME, name))
            say(shlex.join(["python", *shown]))
            command = prepare_words(data, window, source=source, output=output)
            ended = subprocess.run([sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
            if ended.returncode:
                remedy = "; without --source the rows prepared before are taken, and other rows want another --folder"
                raise ChorusError(
                    f"{command[0]}: ended with code {ended.returncode}, see above{remedy if is_there else ''}"
                )
        _check_labels(output, window=window)


def _check_labels(folder: str, *, window: Window) -> None:
    parts = {part.name: part for part in DataManifest.read(folder).parts}
    for name in (*window.train, *window.valid, *window.tune, *window.test):
        if name not in parts:
            raise ConfigError(f"data.windows: {name!r} is no part of the rows; there are {', '.join(parts)}")
        part = parts[name]
        if part.label_sum in (None, 0, part.num_rows):
            raise ConfigError(
                f"data.windows: part {name!r} has {part.num_rows} rows, {part.label_sum} of them positive; both labels"
                " are needed to train and to judge, so cut the rows otherwise"
            )


def _check_files(data: BenchmarkData, *, source: str) -> None:
    if not source:
        raise ConfigError(f"--source: not given; name the folder that holds {', '.join(data.files)}. {data.origin}")
    for file in data.files:
        if not storage.is_file(storage.join(source, file)):
            raise ConfigError(f"--source: {storage.join(source, file)} is not there. {data.origin}")
