"""Kills one scoring job at random moments, and compares what it leaves with a job that nobody killed.

A demo ensemble is trained for a moment; rows of the synthetic stream are scored undisturbed; then they are scored under
torchrun with kill -9 of a rank (torchrun starts the ranks again), of torchrun, or of everything (the same command is
started again). In the end every file must be that of the undisturbed job, byte for byte, and
tools/verify_predictions.py must find nothing. The exit code is 1 where it does.

Example:

  python tools/soak_scoring.py --folder runs/soak_scoring --rows 20000000 --kills 10
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.errors import EXIT_DONE, EXIT_FAILURE, EXIT_INTERRUPTED, ChorusError, ConfigError
from trainer import storage
from trainer.analysis.bench.figures import machine
from trainer.analysis.reliability.processes import interrupt_on_sigterm
from trainer.analysis.reliability.scoring_soak import ScoringSoak, ScoringSoakSettings
from trainer.failures import leave


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, soaks, writes the summary; gives the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        interrupt_on_sigterm()
        options, overrides = _parser().parse_known_args(words)
        for name in ("rows", "kills", "ranks"):
            if getattr(options, name) < 1:
                raise ConfigError(f"--{name}: {getattr(options, name)} must be above zero")
        settings = ScoringSoakSettings(
            folder=str(Path(options.folder).resolve()),
            num_rows=options.rows,
            kills=options.kills,
            ranks=options.ranks,
            seed=options.seed,
            words=tuple(overrides),
        )
        result = ScoringSoak(settings, say=lambda text: print(text, flush=True)).run()
        body = {"command": shlex.join(["python", "tools/soak_scoring.py", *words]), "machine": machine()}
        storage.write_json(storage.join(settings.folder, "summary.json"), {**body, **result.as_json()})
        print("\n".join(result.lines()))
        return EXIT_DONE if result.passed else EXIT_FAILURE
    except ChorusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nstopped; the same command begins again with the killed job", file=sys.stderr)
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/soak_scoring.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="All other words are keys of the scoring job, as --score.range_rows=65536.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--folder", required=True, metavar="DIR", help="where the run, both jobs and the summary go")
    add("--rows", type=int, default=20_000_000, metavar="N", help="to score (default: 20,000,000)")
    add("--kills", type=int, default=10, metavar="N", help="to deliver (default: 10)")
    add("--ranks", type=int, default=2, metavar="N", help="of the jobs (default: 2)")
    add("--seed", type=int, default=1, metavar="N", help="of moments and victims (default: 1)")
    return parser


if __name__ == "__main__":
    leave(main())
