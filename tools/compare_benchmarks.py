"""Compares two records of one benchmark: whether it was reproduced.

Trainings with other kernels or threads end elsewhere in the last digits, and after many steps in more than those. So
each figure's difference is held against how far trainings differ anyway: Welch's 95 % interval over groups.

Example:

  python tools/run_benchmark.py adult --source downloads/adult --output again
  python tools/compare_benchmarks.py again/adult.json docs/benchmarks/adult.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])

from configs.errors import EXIT_DONE, ChorusError, DataError
from trainer import storage
from trainer.benchmark.agreement import agreement_text
from trainer.failures import leave


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, reads, compares, prints; gives the exit code."""
    options = _parser().parse_args(arguments)
    try:
        print(agreement_text(read_record(options.here), read_record(options.there)), end="")
        return EXIT_DONE
    except ChorusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def read_record(path: str) -> dict[str, Any]:
    """What tools/run_benchmark.py wrote beside a page.

    Raises:
        DataError: it is not there, or something else.
    """
    if not storage.is_file(path):
        raise DataError(f"{path}: no such file; tools/run_benchmark.py writes NAME.json beside its page")
    try:
        record = json.loads(storage.read_text(path))
        missing = [key for key in ("name", "groups", "machine", "singles", "strategies", "points") if key not in record]
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: not a record of a benchmark ({error})") from error
    if missing or not isinstance(record, dict):
        raise DataError(f"{path}: not a record of a benchmark; it has no {', '.join(map(repr, missing))}")
    return record


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/compare_benchmarks.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("here", metavar="HERE.json", help="the record of a benchmark that was run again")
    parser.add_argument("there", metavar="THERE.json", help="the record that it is held against")
    return parser


if __name__ == "__main__":
    leave(main())
