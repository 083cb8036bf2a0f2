"""Measures what checkpoints cost: one run without them, with them in the background, and in the foreground, in turns.

The run is by default the demo ensemble with tables of up to a million rows, whose state has about 1.2 GiB. Throughput
is rows over time on the wall, whatever held training up included; the overhead is taken within a round, and figures
are medians over rounds. Let the machine do nothing else meanwhile. checkpoints.md and checkpoints.json are written
into the folder.

Examples:

  python tools/bench_checkpoints.py --folder runs/checkpoints
  python tools/bench_checkpoints.py --folder /mnt/fast --config my.toml --ranks 8 --every 60 --seconds 310
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.command import TRAIN, parse_command
from configs.errors import EXIT_DONE, EXIT_INTERRUPTED, ChorusError, ConfigError
from trainer import storage
from trainer.analysis.bench.figures import machine, table
from trainer.analysis.reliability.checkpoint_cost import CheckpointCost, CostSettings, as_markdown, findings_of
from trainer.analysis.reliability.checkpoint_cost_worker import serve
from trainer.analysis.reliability.processes import interrupt_on_sigterm
from trainer.command_line import DEFAULT_CONFIG, training_config
from trainer.failures import leave

_LARGE = ("--data.synthetic={train_rows = 262_144, max_table_rows = 1_000_000}",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, measures, writes the figures; gives the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options, overrides = _parser().parse_known_args(words)
    try:
        if options.worker:
            serve(options.worker)
            return EXIT_DONE
        interrupt_on_sigterm()
        settings = _settings(options, overrides)
        config = training_config(parse_command(settings.words, program=TRAIN))
        cost = CheckpointCost(settings, batch_size=config.train.batch_size, say=lambda text: print(text, flush=True))
        findings = findings_of(cost.measure(), settings)
        text = as_markdown(findings, command=shlex.join(["python", "tools/bench_checkpoints.py", *words]))
        storage.write_text(storage.join(settings.folder, "checkpoints.md"), text)
        body = {"machine": machine(), **findings.as_dict()}
        storage.write_json(storage.join(settings.folder, "checkpoints.json"), body)
        print(f"\n{table(findings)}\n\n{text}")
        return EXIT_DONE
    except ChorusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/bench_checkpoints.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="All other words are keys of the run, as --train.batch_size=256.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--folder", metavar="DIR", help="where the runs and the figures go; on the disk that is to be measured")
    add("--config", default="", metavar="FILE", help="the run (default: configs/demo.toml with large tables)")
    add("--ranks", type=int, default=2, metavar="N", help="of each run (default: 2)")
    add("--every", type=float, default=60.0, metavar="SECONDS", help="between checkpoints (default: 60)")
    add("--seconds", type=float, default=190.0, metavar="N", help="of steps in each run (default: 190)")
    add("--rounds", type=int, default=3, metavar="N", help="of which the median is taken (default: 3)")
    add("--worker", metavar="FILE", help=argparse.SUPPRESS)
    return parser


def _settings(options: argparse.Namespace, overrides: Sequence[str]) -> CostSettings:
    if not options.folder:
        raise ConfigError("--folder: not given; name one on the disk that is to be measured")
    for name in ("ranks", "every", "seconds", "rounds"):
        if getattr(options, name) <= 0:
            raise ConfigError(f"--{name}: {getattr(options, name)} must be above zero")
    config = options.config or str(DEFAULT_CONFIG)
    given = {word.partition("=")[0] for word in overrides}
    large = () if options.config else tuple(word for word in _LARGE if word.partition("=")[0] not in given)
    return CostSettings(
        folder=str(Path(options.folder).resolve()),
        words=(f"--config={Path(config).resolve()}", *large, *overrides),
        ranks=options.ranks,
        every_seconds=options.every,
        seconds=options.seconds,
        rounds=options.rounds,
    )


if __name__ == "__main__":
    leave(main())
