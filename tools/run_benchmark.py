"""Runs a benchmark from its files to its page: prepares, trains, scores, merges, reports.

The benchmarks are the files of configs/benchmarks/: a data set, the trainings done on it, and the ways in which their
predictions are merged. The data are yours to bring, as their licences want it; each file says where they are found.

Every training is a job of its own in FOLDER/NAME/jobs. What is done is not done again: after Ctrl-C, a crash or a
change of other jobs' settings the same command goes on. A job whose settings change is a new one.

Examples:

  python tools/run_benchmark.py --list
  python tools/run_benchmark.py adult --source downloads/adult
  python tools/run_benchmark.py frappe_x1 --source downloads/frappe_x1 --only train --slots 8
  python tools/run_benchmark.py frappe_x1 --only report
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from configs.benchmark_schema import Benchmark
from configs.errors import EXIT_DONE, EXIT_FAILURE, EXIT_INTERRUPTED, ChorusError, ConfigError
from configs.loader import read_benchmark
from trainer import quiet_libraries, storage
from trainer.benchmark.jobs import Job, jobs
from trainer.benchmark.page.page import write_page
from trainer.benchmark.preparing import prepare, prepared_folders
from trainer.benchmark.report import report
from trainer.benchmark.running import Runner
from trainer.clock import clock
from trainer.failures import leave

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "configs" / "benchmarks"
SECTIONS = ("train", "report")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, prepares, trains and scores, reports; gives the exit code."""
    options = _parser().parse_args(arguments)
    quiet_libraries.silence()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # schedulers end programs with it: the jobs stop alike
    if options.list or options.name is None:
        print(listing())
        return EXIT_DONE
    try:
        _run(options)
        return EXIT_DONE
    except ChorusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {options.folder}: cannot be written ({error.strerror or error})", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on with what is in {options.folder}", file=sys.stderr)
        return EXIT_INTERRUPTED


def listing() -> str:
    """Every benchmark's name and title, a line each."""
    names = sorted(path.stem for path in BENCHMARKS.glob("*.toml"))
    return "\n".join(f"{name:<28}{read_benchmark(str(BENCHMARKS / f'{name}.toml')).title}" for name in names)


def _run(options: argparse.Namespace) -> None:
    path = Path(benchmark_path(options.name)).resolve()
    benchmark, name = beside(read_benchmark(str(path)), path=path), path.stem
    for place in ("source", "folder", "output"):
        if given := getattr(options, place):
            setattr(options, place, str(Path(given).resolve()))
    here = Path.cwd()
    os.chdir(ROOT)  # what a benchmark names is relative to it
    folder = storage.join(options.folder, name)
    sections = SECTIONS if options.only is None else (options.only,)
    data = prepared_folders(benchmark.data, folder=folder)
    wanted = jobs(benchmark, data=data)  # what is wrong with them is said before anything is prepared
    runner = Runner(folder, slots=options.slots, say=_say)
    if "train" in sections:
        prepare(benchmark.data, folders=data, source=options.source, say=_say)
        runner.run(wanted)
    if "report" in sections:
        _refuse_missing(runner.missing(wanted), of=len(wanted))
        made = report(benchmark, jobs=wanted, runner=runner, data=data, folder=folder, say=_say)
        for written in write_page(made, name=name, given=options.name, folder=options.output):
            _say(f"written: {os.path.relpath(written, here)}")


def benchmark_path(name: str) -> str:
    """The file of a benchmark, by its name or its path.

    Raises:
        ConfigError: there is none.
    """
    path = Path(name) if name.endswith(".toml") else BENCHMARKS / f"{name}.toml"
    if not path.is_file():
        raise ConfigError(f"{name}: no such benchmark; there are\n{listing()}")
    return str(path)


def beside(benchmark: Benchmark, *, path: Path) -> Benchmark:
    """The benchmark with the run file and the schema that lie beside its own file, where they do."""

    def found(name: str) -> str:
        return str(path.parent / name) if name and (path.parent / name).is_file() else name

    data = dataclasses.replace(benchmark.data, schema=found(benchmark.data.schema))
    return dataclasses.replace(benchmark, run=found(benchmark.run), data=data)


def _refuse_missing(missing: Sequence[Job], *, of: int) -> None:
    if missing:
        raise ConfigError(
            f"--only report: {len(missing)} of {of} jobs are not done, as {missing[0].name}; run without --only"
        )


_STARTED = time.monotonic()


def _say(text: str) -> None:
    print(f"{clock(time.monotonic() - _STARTED)}: {text}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/run_benchmark.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("name", nargs="?", metavar="NAME", help="a file of configs/benchmarks/ without .toml, or the path of your own")
    add("--list", action="store_true", help="print the benchmarks there are")
    add("--source", default="", metavar="DIR", help="the folder of the data files; needed until they are prepared")
    add("--folder", default="runs/benchmarks", metavar="DIR", help="where everything lies (default: %(default)s)")
    add("--output", default="docs/benchmarks", metavar="DIR", help="where the page goes (default: %(default)s)")
    add("--slots", type=_positive, default=_slots(), help="jobs at a time (default: %(default)s, one a core or GPU)")
    add("--only", choices=SECTIONS, help="train: no page; report: nothing is trained")
    return parser


def _slots() -> int:
    return torch.cuda.device_count() or torch.get_num_threads()


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value


if __name__ == "__main__":
    leave(main())
