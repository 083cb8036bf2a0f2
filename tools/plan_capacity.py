"""Says what machines an ensemble needs before anyone rents them: how many, how full, how fast, how dear.

Builds the run of --config without values and without a GPU, plans its tables with the function that the trainer calls,
and estimates memory, rows/s, hours and cost on machines that hardware files describe (configs/hardware/, or written by
tools/measure_hardware.py). Further words are keys of the run, as the trainer takes them.

Without --ranks, sizes are walked upwards: 1, 2, 4 ... ranks within a host, then whole hosts, one more at a time, to the
first that fits. What the bytes of tables alone rule out is not planned. With --epoch-hours it goes on until that is
met; sizes that even a linear gain would leave late are passed over, and four in a row that are no faster end it.
Nothing fits: exit code 3, and numbered remedies; 1 where --max-plans or --timeout ended the search before an answer.
Ctrl-C keeps what was found. Examples:

  the smallest number of H100 hosts that holds the run, and the smallest that trains an epoch in two hours:
    python tools/plan_capacity.py --config configs/criteo_tb.toml --data configs/outlines/criteo_tb.toml
      --hardware h100_80gb_8 --epoch-hours 2

  named world sizes of two kinds of machines, training and scoring, with the plan of the answer for run.plan:
    python tools/plan_capacity.py --config configs/criteo_tb.toml --data configs/outlines/criteo_tb.toml
      --hardware a100_80gb_8,h100_80gb_8 --ranks 8,16,32 --purpose both --plan plan.json

  what 1 to 8 members with their own tables take, as tables, as a page with charts, and what they gain:
    python tools/plan_capacity.py --config run.toml --hardware h100_80gb_8 --sweep members.deep.copies=1,2,4,8
      --sweep tables.own.dim=32,64 --quality auc_by_members.json --csv sweep.csv --html sweep.html

  when 5 % more ids a month outgrow the machines, for tables that are only outlined in numbers:
    python tools/plan_capacity.py --config run.toml --data outline.toml --hardware h100_80gb_8 --growth 5%/month

  scoring with int8 tables, and a request of 500 rows with members on parallel servers:
    python tools/plan_capacity.py --config run.toml --hardware l40s_48gb_8 --purpose score --score.tables=int8
      --serving --request-rows 500
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console

from configs.errors import EXIT_DONE, EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_NOTHING_FITS, ChorusError
from trainer import quiet_libraries, storage
from trainer.analysis.hardware_bench.measured_file import quick_warning
from trainer.failures import leave
from trainer.planning.page.page import write_page
from trainer.planning.request import Request, read_request
from trainer.planning.study import Study
from trainer.planning.studying import studied
from trainer.planning.terminal import show

_WIDTH_OF_A_FILE = 190  # where nobody says how wide the terminal is


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, plans, prints, writes; gives the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options, words = _parser().parse_known_args(_with_values(given))
    quiet_libraries.silence()
    command = shlex.join(["python", "tools/plan_capacity.py", *given])
    try:
        request = read_request(vars(options), words, command=command)
        study = Study(asked=request.asked, data=request.variants[0].data)
        for warning in filter(None, map(quick_warning, request.asked.hardware)):
            study.notes.append(f"WARNING: {warning}")
            _say(f"WARNING: {warning}")
        is_whole = studied(study, request, say=_say)
        show(study.as_json(), console=Console() if sys.stdout.isatty() else Console(width=_WIDTH_OF_A_FILE))
        _write(study, request)
    except ChorusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error.filename or 'output'}: {error.strerror or error}", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        print("error: stopped before anything was planned", file=sys.stderr)
        return EXIT_INTERRUPTED
    if not is_whole:
        return EXIT_INTERRUPTED
    is_served = request.request_rows is None or study.serving is not None
    missing = [purpose for purpose in request.asked.purposes if not study.fits(purpose)]
    if set(missing) & set(study.unfinished()):
        return EXIT_FAILURE  # what was not tried may fit
    return EXIT_DONE if is_served and not missing else EXIT_NOTHING_FITS


def _with_values(given: Sequence[str]) -> list[str]:
    """Joins --growth with a rate below zero, which argparse takes for a flag, so that the rate itself is refused."""
    joined: list[str] = []
    for word in given:
        if joined and joined[-1] == "--growth" and re.match(r"-[\d.]", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _whole(text: str) -> int:
    """A whole number as TOML writes it: 2000000000, 2_000_000_000 or 2e9."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
        if value == int(value):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number; write it as 2000000000, 2_000_000_000 or 2e9")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _write(study: Study, request: Request) -> None:
    """The files that were asked for; a plan where there is one."""
    files = request.files
    if files.json:
        storage.write_json(files.json, study.as_json())
    if files.csv:
        storage.write_text(files.csv, study.as_csv())
    if files.html:
        write_page(files.html, study.as_json())
    if files.plan:
        chosen = study.recommended()
        if chosen is None or chosen.point.plan is None:
            _say(f"--plan: {files.plan} is not written, for there is no plan")
        else:
            storage.write_json(files.plan, chosen.point.plan)
            _say(f"--plan: {files.plan} is of {chosen.point.world_size} ranks of {chosen.point.hardware}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/plan_capacity.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        usage="%(prog)s --config FILE --hardware F1[,F2] [--ranks N1,N2] [flags] [--section.key=value ...]",
    )
    what = parser.add_argument_group("what is planned").add_argument
    what("--config", required=True, metavar="FILE", help="the run, as the trainer takes it")
    what("--hardware", metavar="F1,F2", help="hardware files, or bare names of configs/hardware")
    what(
        "--data", default="", metavar="PATH", help="outline (.toml), data report (.json) or prepared folder (data.root)"
    )
    what("--rows", type=_whole, metavar="N", help="of an epoch and to score, as 2e9 (default: those of the data)")
    what("--purpose", choices=("train", "score", "both"), default="train", help="(default: %(default)s)")
    search = parser.add_argument_group("how many ranks").add_argument
    search(
        "--ranks",
        metavar="N1,N2",
        help="world sizes (default: 1, 2, 4 ... within a host, then whole hosts, until it fits)",
    )
    search("--search", action="store_true", help="go upwards beside the --ranks named")
    search("--epoch-hours", type=float, metavar="H", help="go on until an epoch, or scoring all rows, takes no longer")
    search("--max-ranks", type=int, default=1024, metavar="N", help="where going upwards ends (default: %(default)s)")
    search("--max-plans", type=int, default=200, metavar="N", help="plans at most (default: %(default)s)")
    search("--timeout", type=float, metavar="S", help="seconds after which no further plan is begun")
    more = parser.add_argument_group("what else is asked").add_argument
    more(
        "--sweep",
        action="append",
        default=[],
        metavar="KEY=V1,V2",
        help="a key of the run, ranks or hardware, with its values; several are combined",
    )
    more("--growth", metavar="RATE", help="as 5%%/month or 40%%/year: when tables outgrow the answers")
    more("--serving", action="store_true", help="a request's latency: members on parallel servers against all on one")
    more("--request-rows", type=int, default=256, metavar="N", help="of --serving (default: %(default)s)")
    more("--quality", metavar="FILE", help='JSON of AUC by members, [{"members": 4, "auc": 0.8012}]: quality and cost')
    out = parser.add_argument_group("where it goes, beside the terminal").add_argument
    out("--json", metavar="FILE", help="all figures")
    out("--csv", metavar="FILE", help="a line a point")
    out("--html", metavar="FILE", help="one page with charts")
    out("--plan", metavar="FILE", help="the plan of the answer, for run.plan")
    return parser


if __name__ == "__main__":
    leave(main())
