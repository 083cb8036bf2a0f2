"""Measures the data path on this machine: speed against other tools, memory, scale and the loader.

Sections (default: all of them, one after the other):

  parsers  one block of text to arrays on one core: Chorus, polars, pyarrow, duckdb, torchrec
  prepare  whole preparations in turns, plain and .gz, against torchrec's tsv_to_npys
  memory   a log of over 60 million different values within --memory-gb, enforced by the kernel
  scale    20 million rows made, prepared and reported on; projected to the Criteo 1TB click logs
  loader   prepared rows to batches on one core, in file order, shuffled, and from a cold cache

Figures are medians of --repeats rounds in which the things compared take turns; let the machine do nothing else
meanwhile. --output keeps all of them, and what other sections have put there before. Examples:

  python tools/bench_data.py --folder bench --output bench.json
  python tools/bench_data.py parsers loader --folder bench --repeats 5
  python tools/bench_data.py memory --folder bench --limit 'systemd-run --user --scope -p MemoryMax=2G'
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.errors import EXIT_DONE, EXIT_FAILURE, EXIT_INTERRUPTED, ChorusError, ConfigError
from trainer import storage
from trainer.analysis.bench import loader as bench_loader
from trainer.analysis.bench import memory as bench_memory
from trainer.analysis.bench import parsers as bench_parsers
from trainer.analysis.bench import prepare as bench_prepare
from trainer.analysis.bench import scale as bench_scale
from trainer.analysis.bench.figures import Findings, machine, table
from trainer.analysis.bench.place import BenchPlace
from trainer.clock import clock
from trainer.failures import leave
from trainer.worker_processes import num_cores

_ROWS = {"parsers": 200_000, "prepare": 4_000_000, "memory": 16_000_000, "scale": 20_000_000, "loader": 4_194_304}
_LEAST_ROWS = 1_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, measures each section, prints it and keeps it; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        _check(options)
        for section in options.sections or _ROWS:
            findings = _measure(section, options)
            print(f"{section}\n{table(findings)}\n", flush=True)
            if options.output:
                _keep(options.output, section, findings)
        return EXIT_DONE
    except ChorusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error.filename or options.folder}: {error.strerror or error}", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        print("\nstopped; the sections before this one are done", file=sys.stderr)
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/bench_data.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(_ROWS)} (default: all)")
    add(
        "--folder",
        required=True,
        metavar="DIR",
        help="where big files may lie for a while: some 20 GB for all sections",
    )
    defaults = ", ".join(f"{section} {rows:,}" for section, rows in _ROWS.items())
    add("--rows", type=int, metavar="N", help=f"of the log (default: {defaults})")
    add("--repeats", type=int, default=3, metavar="N", help="rounds of which the median is taken (default: 3)")
    add("--workers", type=int, default=num_cores(), metavar="N", help="processes (default: one for each core)")
    add("--memory-gb", type=float, default=2.0, metavar="X", help="of memory and scale, in GiB (default: 2)")
    add(
        "--limit",
        metavar="COMMAND",
        help="memory: what runs a command within a limit; '' for none (default: prlimit --data, for each process)",
    )
    add("--batch-rows", type=int, nargs="+", default=[8_192, 65_536], metavar="N", help="loader (default: 8192 65536)")
    add("--output", metavar="FILE.json", help="keep the figures there")
    add("--keep", action="store_true", help="leave the big files in DIR")
    return parser


def _check(options: argparse.Namespace) -> None:
    unknown = [section for section in options.sections if section not in _ROWS]
    if unknown:
        raise ConfigError(f"SECTION: {unknown[0]!r} is none of {', '.join(_ROWS)}")
    if options.rows is not None and options.rows < _LEAST_ROWS:
        raise ConfigError(f"--rows: {options.rows} must be at least {_LEAST_ROWS:,}")
    least_one = {"--repeats": options.repeats, "--workers": options.workers, "--batch-rows": min(options.batch_rows)}
    for key, value in least_one.items():
        if value < 1:
            raise ConfigError(f"{key}: {value} must be above zero")


def _measure(section: str, options: argparse.Namespace) -> Findings:
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{section} {clock(time.monotonic() - started)}: {text}", file=sys.stderr, flush=True)

    place = BenchPlace(os.path.join(options.folder, f"bench_{section}"), say=say)
    rows, repeats, workers, memory = options.rows or _ROWS[section], options.repeats, options.workers, options.memory_gb
    limit = None if options.limit is None else shlex.split(options.limit)
    sections: dict[str, Callable[[], Findings]] = {
        "parsers": lambda: bench_parsers.measure(place, rows=rows, repeats=repeats),
        "prepare": lambda: bench_prepare.measure(place, rows=rows, repeats=repeats, workers=workers),
        "memory": lambda: bench_memory.measure(place, rows=rows, memory_gb=memory, workers=workers, limit=limit),
        "scale": lambda: bench_scale.measure(place, rows=rows, memory_gb=memory, workers=workers),
        "loader": lambda: bench_loader.measure(
            place, rows=rows, repeats=repeats, workers=workers, batch_rows=options.batch_rows
        ),
    }
    try:
        return sections[section]()
    finally:
        place.close(keep=options.keep)


def _keep(path: str, section: str, findings: Findings) -> None:
    kept = storage.read_json(path) if storage.is_file(path) else {}
    kept[section] = {"machine": machine(), **findings.as_dict()}
    storage.write_json(path, kept)


if __name__ == "__main__":
    leave(main())
