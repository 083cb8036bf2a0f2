"""Checks a folder of predictions: every row there once, every byte as written, merge and figures anew.

What the manifest says, figures included, is compared with what is in the files. Anything missing, doubled or changed is
named by file and rows, with exit code 1. With --data rows, labels and kept columns are compared with the prepared
folder that was scored.
Of a folder that is not finished it says how far it is. Example:

  python tools/verify_predictions.py predictions --data data/criteo_kaggle_sample
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.errors import EXIT_DONE, EXIT_FAILURE, EXIT_INTERRUPTED, ChorusError
from trainer.failures import leave
from trainer.predictions.manifest import PredictionManifest
from trainer.predictions.unfinished_job import check_folder, how_far
from trainer.predictions.verification import verify_predictions
from trainer.row_progress import RowProgress

_MOST_LINES = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, verifies, tells; gives the exit code."""
    options = _parser().parse_args(arguments)
    try:
        check_folder(options.folder)
        unfinished = how_far(options.folder)
        if unfinished is not None:
            print(f"{options.folder}: not finished: {unfinished}")
            return EXIT_FAILURE
        progress = RowProgress("verifying", PredictionManifest.read(options.folder).num_rows)
        found = verify_predictions(
            options.folder,
            data=options.data,
            quick=options.quick,
            advance=progress.add,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    except ChorusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped before all was looked at", file=sys.stderr)
        return EXIT_INTERRUPTED
    for line in found.problems[:_MOST_LINES]:
        print(line)
    if len(found.problems) > _MOST_LINES:
        print(f"and {len(found.problems) - _MOST_LINES:,} more")
    if found.problems:
        print(f"{options.folder}: problems: {len(found.problems):,}")
        return EXIT_FAILURE
    looked = "by size, columns and numbers of rows" if options.quick else "each row once, all bytes as written"
    print(f"{options.folder}: {found.num_rows:,} rows in {found.num_files:,} files: {looked}")
    return EXIT_DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/verify_predictions.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", metavar="DIR", help="folder made by trainer/score.py")
    add("--data", metavar="ROOT", help="the prepared folder that was scored, to compare with")
    add("--quick", action="store_true", help="look at sizes, columns and numbers of rows only")
    return parser


if __name__ == "__main__":
    leave(main())
