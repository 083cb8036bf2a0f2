"""BenchPlace: the folder a benchmark works in, the programs it runs there, and the logs it makes for itself."""

from __future__ import annotations

import gzip
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.errors import ChorusError, ConfigError
from trainer.analysis.bench.memory_watch import MemoryWatch, Peak

ROOT = Path(__file__).resolve().parents[3]
TEXT_BYTES_PER_ROW = 260  # of a log, rounded up
_GZIP_LEVEL = 6
_COPY_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A program that ran to its end."""

    seconds: float
    peak: Peak | None


@dataclass(frozen=True, kw_only=True)
class Log:
    """A log in files, one for each day."""

    files: tuple[str, ...]
    num_rows: int
    num_bytes: int  # of text, unpacked


class BenchPlace:
    """A folder of one section.

    Args:
        folder: Made where it is not there.
        say: Told what is being done.
    """

    def __init__(self, folder: str, *, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.say = say
        os.makedirs(folder, exist_ok=True)

    def path(self, *names: str) -> str:
        """A path in the folder."""
        return str(Path(self.folder, *names))

    def need(self, num_bytes: int) -> None:
        """Looks whether so much fits on the disk.

        Raises:
            ConfigError: it does not.
        """
        free = shutil.disk_usage(self.folder).free
        if free < num_bytes:
            raise ConfigError(
                f"--folder: {self.folder} has {free / 1e9:.1f} GB free, this takes up to {num_bytes / 1e9:.1f} GB;"
                " give another folder or fewer --rows"
            )

    def remove(self, name: str) -> None:
        """Deletes a folder in it, if it is there."""
        shutil.rmtree(self.path(name), ignore_errors=True)

    def close(self, *, keep: bool) -> None:
        """Deletes all, unless it is kept."""
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, program: str, *words: str, before: Sequence[str] = (), watched: str | None = None) -> Ran:
        """Runs a program of the project as a user starts it; its progress is seen, what it prints is not.

        Args:
            program: Relative to the project's root.
            words: Its arguments.
            before: A command that runs it, as `prlimit --data=1000000000`.
            watched: As in `in_one_process`.

        Raises:
            ChorusError: it failed.
        """
        command = [*before, sys.executable, str(ROOT / program), *words]
        self.say(shlex.join([*before, "python", program, *words]))
        started = time.monotonic()
        try:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        except OSError as error:
            raise ConfigError(
                f"{command[0]}: cannot be started ({error.strerror}); install it or leave it out"
            ) from error
        try:
            if watched is None:
                peak, code = None, process.wait()
            else:
                with MemoryWatch(process.pid, folder=watched or None) as watch:
                    code = process.wait()
                peak = watch.peak
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        seconds = time.monotonic() - started
        if code:
            raise ChorusError(f"{program}: ended with code {code} after {seconds:.0f} s; see what it said above")
        return Ran(seconds=seconds, peak=peak)

    def log(self, *, rows: int, days: int = 1, scale: float = 0.01, skew: float | None = None) -> Log:
        """Makes a synthetic log in plain text; whole days of an earlier call are kept."""
        self.make_log(rows=rows, days=days, scale=scale, skew=skew)
        return self.log_there(days=days, rows=rows)

    def make_log(
        self, *, rows: int, days: int, scale: float, skew: float | None = None, watched: str | None = None
    ) -> Ran:
        """Runs the program that makes a log."""
        words = ["--output", self.path("log"), "--days", str(days), "--rows-per-day", str(rows // days)]
        words += ["--scale", str(scale), "--format", "tsv"]
        words += [] if skew is None else ["--skew", str(skew)]
        return self.run("tools/make_synthetic.py", *words, watched=watched)

    def log_there(self, *, days: int, rows: int) -> Log:
        """The log that was made."""
        files = tuple(self.path("log", f"day_{day}.tsv") for day in range(days))
        return Log(files=files, num_rows=rows // days * days, num_bytes=sum(os.path.getsize(file) for file in files))

    def packed(self, log: Log) -> tuple[str, ...]:
        """The same files as .gz, made here with zlib as most are."""
        packed = []
        for file in log.files:
            name = self.path("packed", Path(file).name + ".gz")
            self.say(f"packing {file} ({os.path.getsize(file) / 1e6:,.0f} MB)")
            os.makedirs(Path(name).parent, exist_ok=True)
            with open(file, "rb") as source, gzip.open(name, "wb", compresslevel=_GZIP_LEVEL) as target:
                shutil.copyfileobj(source, target, _COPY_BYTES)
            packed.append(name)
        return tuple(packed)

    def head(self, log: Log, *, rows: int) -> str:
        """The first rows of a log as a file of its own."""
        path = self.path("head.tsv")
        with open(log.files[0], "rb") as source, open(path, "wb") as target:
            for _, line in zip(range(rows), source, strict=False):
                target.write(line)
        return path
