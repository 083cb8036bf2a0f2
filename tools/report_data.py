"""Reports on a prepared folder: rows and label rates, how many values, how skewed, missing, unseen, and drift.

Writes DIR/report.json (its keys: trainer/analysis/data_report/report.py) and DIR/report.html, one page with charts
that needs nothing else, and prints a table. Memory is bounded: ids are counted in at most --memory-gb, a table that
takes more in several passes over the folder. Example:

  python tools/report_data.py --root data/criteo_tb --output data/criteo_tb_report
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.errors import EXIT_DONE, EXIT_FAILURE, ChorusError, ConfigError
from trainer import storage
from trainer.analysis.data_report.page import page, table
from trainer.analysis.data_report.report import report
from trainer.failures import leave
from trainer.worker_processes import num_cores

JSON_NAME = "report.json"
PAGE_NAME = "report.html"
_GIB = 1 << 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, reads the folder, writes and prints the report; returns the exit code."""
    options = _parser().parse_args(arguments)
    output = options.output or f"{options.root.rstrip('/')}_report"
    try:
        if not options.memory_gb > 0:
            raise ConfigError(f"--memory-gb: {options.memory_gb} must be above zero")
        if options.workers < 1:
            raise ConfigError(f"--workers: {options.workers} must be above zero")
        figures = report(
            options.root,
            reference=options.reference,
            memory_bytes=int(options.memory_gb * _GIB),
            num_workers=options.workers,
        )
        storage.make_folder(output)
        storage.write_text(storage.join(output, PAGE_NAME), page(figures))
        storage.write_json(storage.join(output, JSON_NAME), figures)
    except ChorusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error.filename or output}: {error.strerror or error}", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        print("error: stopped; nothing was written", file=sys.stderr)
        return EXIT_FAILURE
    print(table(figures))
    print(f"\n{storage.join(output, PAGE_NAME)}\n{storage.join(output, JSON_NAME)}")
    return EXIT_DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/report_data.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--root", required=True, metavar="DIR", help="the prepared folder")
    add("--output", metavar="DIR", help="folder for the report (default: the prepared folder's name with _report)")
    add(
        "--reference",
        nargs="+",
        default=(),
        metavar="PART",
        help="parts that the others are compared with, as those trained on (default: the first that has rows)",
    )
    add("--memory-gb", type=float, default=2.0, metavar="X", help="for counting ids, in GiB (default: %(default)s)")
    add("--workers", type=int, default=num_cores(), metavar="N", help="processes (default: one for each core)")
    return parser


if __name__ == "__main__":
    leave(main())
