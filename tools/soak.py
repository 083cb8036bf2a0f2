"""Kills training jobs at random, many times, and compares each with a run that nobody killed.

One uninterrupted run is made first. Then jobs run under torchrun, which starts its ranks again, and are killed at
random moments: a rank at any moment of its life, while a checkpoint is being written, while it evaluates; torchrun;
everything at once; or a rank is stopped and hangs. A job that ends by itself must have left what the uninterrupted
run left, bit for bit, and nothing running. Then the next job begins, until the number of kills is reached.

Every event is a line of events.jsonl in the folder; summary.md and summary.json say what they come to. Ctrl-C stops;
the same command goes on. The exit code is 1 where anything failed; the folder of a failed job is kept.

Example:

  python tools/soak.py --folder runs/soak --kills 100 --ranks 2
  python tools/soak.py --folder runs/soak_ftrl --config my.toml --train.until='{steps = 1000}'
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
from trainer.analysis.reliability.kills import MEANINGS, SHARES
from trainer.analysis.reliability.processes import interrupt_on_sigterm
from trainer.analysis.reliability.soak import Soak, SoakSettings, soak_words
from trainer.analysis.reliability.soak_log import SoakCounts, summary
from trainer.command_line import DEFAULT_CONFIG
from trainer.failures import leave

SUMMARY_NAME = "summary"
_KINDS = "of kills, of " + "; ".join(f"{kind}: {meaning}" for kind, meaning in MEANINGS.items()) + " (default: all)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, soaks, writes the summary; gives the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        interrupt_on_sigterm()
        options, overrides = _parser().parse_known_args(words)
        settings = _settings(options, overrides)
        counts = Soak(settings, say=lambda text: print(text, flush=True)).run()
        _report(counts, settings, command=shlex.join(["python", "tools/soak.py", *words]))
        return EXIT_FAILURE if counts.failures else EXIT_DONE
    except ChorusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on counting", file=sys.stderr)
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/soak.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="All other words are keys of the run, as --train.batch_size=256.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--folder", required=True, metavar="DIR", help="where runs and events go; given again, the soak goes on")
    add("--kills", type=int, default=100, metavar="N", help="to deliver (default: 100)")
    add("--ranks", type=int, default=2, metavar="N", help="of each job (default: 2)")
    add("--seed", type=int, default=1, metavar="N", help="of moments and victims (default: 1)")
    add("--kinds", nargs="+", default=list(SHARES), choices=list(SHARES), metavar="KIND", help=_KINDS)
    add("--limit", type=float, default=0.0, metavar="SECONDS", help="without progress: hangs (default: 8 runs' time)")
    add("--config", default=str(DEFAULT_CONFIG), metavar="FILE", help="the run (default: configs/demo.toml, shortened)")
    return parser


def _settings(options: argparse.Namespace, overrides: Sequence[str]) -> SoakSettings:
    for name in ("kills", "ranks"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name}: {getattr(options, name)} must be above zero")
    for word in overrides:
        if word.startswith("--run.folder"):
            raise ConfigError("--run.folder: every job has its own; give --folder")
    return SoakSettings(
        folder=str(Path(options.folder).resolve()),
        kills=options.kills,
        ranks=options.ranks,
        seed=options.seed,
        words=soak_words(str(Path(options.config).resolve()), overrides),
        limit_seconds=options.limit,
        kinds=tuple(dict.fromkeys(options.kinds)),
    )


def _report(counts: SoakCounts, settings: SoakSettings, *, command: str) -> None:
    text = summary(counts, command=command)
    storage.write_text(storage.join(settings.folder, f"{SUMMARY_NAME}.md"), text)
    body = {"command": command, "machine": machine(), **counts.as_json()}
    storage.write_json(storage.join(settings.folder, f"{SUMMARY_NAME}.json"), body)
    print(f"\n{text}")


if __name__ == "__main__":
    leave(main())
