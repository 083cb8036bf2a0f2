"""Reports on scored predictions: merged against the best single member, each member's worth, and how sure that is.

Takes a folder of predictions as trainer/score.py writes it, of labelled rows. Prints tables; writes the same figures
as JSON (keys: trainer/analysis/ensemble_report/report.py) and as one HTML page with charts that needs nothing else.

What it finds out: each member's marginal gain and Shapley value, how figures grow with the number of members, how far
members differ, calibration, slices, and intervals of all differences. Figures of all rows come from the folder's
manifest; the rest from up to --max-rows rows, taken in blocks at even distances. Example:

  python tools/report_ensemble.py predictions/day_23 --html report.html --json report.json --slice C20 --group C1

Columns of --slice and --group are those that score.keep passed through.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console

from configs.errors import EXIT_DONE, EXIT_FAILURE, EXIT_INTERRUPTED, ChorusError
from trainer import storage
from trainer.analysis.ensemble_report.page import page
from trainer.analysis.ensemble_report.report import DEFAULT_MAX_ROWS, Asked, report
from trainer.analysis.ensemble_report.terminal import show
from trainer.failures import leave
from trainer.output_files import check_output_files
from trainer.predictions.reading import Predictions

_WIDTH_OF_A_FILE = 150  # where nobody says how wide the terminal is


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, studies, prints, writes; gives the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    asked = Asked(
        max_rows=options.max_rows,
        seed=options.seed,
        slices=tuple(dict.fromkeys(options.slice)),
        groups=tuple(dict.fromkeys(options.group)),
        command=shlex.join(["python", "tools/report_ensemble.py", *given]),
    )
    target = ""
    try:
        check_output_files({"--json": options.json, "--html": options.html})
        found = report(Predictions(options.predictions), asked=asked)
        console = Console() if sys.stdout.isatty() else Console(width=_WIDTH_OF_A_FILE)
        show(found, console=console)
        if options.json:
            target = options.json
            storage.write_json(target, found)
        if options.html:
            target = options.html
            storage.write_text(target, page(found))
    except ChorusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error.filename or target}: {error.strerror or error}", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        print("error: stopped before the report was written", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/report_ensemble.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("predictions", metavar="PRED", help="folder made by trainer/score.py")
    add("--html", metavar="FILE", help="write the page there")
    add("--json", metavar="FILE", help="write the figures there")
    add("--slice", nargs="+", default=[], metavar="COLUMN", help="kept columns whose values are looked at one by one")
    add("--group", nargs="+", default=[], metavar="COLUMN", help="kept columns within whose values AUC is taken (GAUC)")
    add(
        "--max-rows",
        type=int,
        default=DEFAULT_MAX_ROWS,
        metavar="N",
        help="rows held in memory for intervals and subsets (default: %(default)s); about 4 bytes a member and row",
    )
    add(
        "--seed",
        type=int,
        default=1,
        metavar="S",
        help="of the bootstrap and of sampled subsets (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    leave(main())
