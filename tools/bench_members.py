"""Measures how fast members compute on this machine, each alone on random embeddings, beside what products allow.

For every kind and precision: rows/s of a forward pass and of a training step (forward, backward with the gradient of
the embeddings, Adam), as a share of the bound: the rate of a large matrix product, divided by the kind's products per
row, a training step counted as three forward passes. What a step spends beside matrix products is named with its share
of the time; `between operators` is Python and autograd. Tables, their lookup and the loader are no part of it.

With --copies N it measures N members of each kind on one batch, one by one and with stacked weights, as
dense.batch_copies has it. Figures are medians of rounds in which all kinds take turns; shares and ratios are taken
within a round. Let the machine do nothing else meanwhile. Examples:

  python tools/bench_members.py
  python tools/bench_members.py --hidden 400 400 400 --fields 10 --numeric 0 --dim 10 --json speed.json
  python tools/bench_members.py --copies 8 --batch-size 256
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from configs.errors import EXIT_DONE, EXIT_INTERRUPTED, ChorusError, ConfigError
from modules import members
from trainer import storage
from trainer.analysis.bench.figures import machine
from trainer.analysis.bench.member_speed import DTYPES, SpeedBench, SpeedSettings
from trainer.analysis.bench.member_speed_table import as_json, as_text
from trainer.clock import clock
from trainer.failures import leave


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, measures, prints the table and keeps it; gives the exit code."""
    options = _parser().parse_args(arguments)
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{clock(time.monotonic() - started)}: {text}", file=sys.stderr, flush=True)

    try:
        settings = _settings(options)
        torch.set_num_threads(options.threads)
        kinds, precisions = options.kinds or members.kinds(), options.precisions
        bench = SpeedBench(kinds, precisions=precisions, settings=settings, say=say)
        rates = bench.rates()
        found = as_json(bench, rates, bench.parts() if settings.copies == 1 else {})
        print(as_text(found))
        if options.json:
            storage.write_json(options.json, {"machine": machine(), "threads": options.threads, **found})
        return EXIT_DONE
    except ChorusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/bench_members.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--kinds", nargs="+", metavar="KIND", help=f"of {', '.join(members.kinds())} (default: all)")
    add("--precisions", nargs="+", default=list(DTYPES), metavar="P", help="of fp32, bf16 (default: both)")
    add("--batch-size", type=int, default=4_096, metavar="N", help="rows (default: 4096)")
    add("--fields", type=int, default=26, metavar="N", help="id features (default: 26)")
    add("--numeric", type=int, default=13, metavar="N", help="numeric features (default: 13)")
    add("--dim", type=int, default=16, metavar="N", help="columns of an embedding (default: 16)")
    add("--hidden", type=int, nargs="+", metavar="N", help="for every key of hidden widths (default: each kind's own)")
    add("--copies", type=int, default=1, metavar="N", help="of each kind, one by one and stacked (default: 1)")
    add("--threads", type=int, default=1, metavar="N", help="of operators on the CPU (default: 1, as a rank has)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: cuda where there is one")
    add("--clock", choices=("wall", "cpu"), default="wall", help="cpu: of this one thread, for a machine that is busy")
    add("--seconds", type=float, default=0.5, metavar="X", help="of each measurement (default: 0.5)")
    add("--rounds", type=int, default=3, metavar="N", help="of which the median is taken (default: 3)")
    add("--matrix-size", type=int, default=2_048, metavar="N", help="rows of the bound's square matrices")
    add("--json", metavar="FILE", help="keep all figures there")
    return parser


def _settings(options: argparse.Namespace) -> SpeedSettings:
    for given, known in ((options.kinds or [], members.kinds()), (options.precisions, list(DTYPES))):
        unknown = [name for name in given if name not in known]
        if unknown:
            raise ConfigError(f"{unknown[0]!r} is not known here; choose of {', '.join(known)}")
    for name in ("batch_size", "fields", "dim", "copies", "threads", "seconds", "rounds", "matrix_size"):
        if getattr(options, name) <= 0:
            raise ConfigError(f"--{name.replace('_', '-')}: {getattr(options, name)} must be above zero")
    if options.numeric < 0:
        raise ConfigError(f"--numeric: {options.numeric} must not be negative")
    if options.hidden and min(options.hidden) <= 0:
        raise ConfigError(f"--hidden: {min(options.hidden)} must be above zero")
    has_cuda = torch.cuda.is_available()
    if options.device == "cuda" and not has_cuda:
        raise ConfigError("--device: torch sees no cuda device; take cpu")
    device = "cuda" if options.device != "cpu" and has_cuda else "cpu"
    if options.clock == "cpu" and (options.threads > 1 or device != "cpu"):
        raise ConfigError("--clock: cpu counts one thread's seconds; it needs --device cpu and --threads 1")
    return SpeedSettings(
        batch_size=options.batch_size,
        fields=options.fields,
        numeric=options.numeric,
        dim=options.dim,
        hidden=None if options.hidden is None else tuple(options.hidden),
        copies=options.copies,
        device=device,
        seconds=options.seconds,
        rounds=options.rounds,
        size=options.matrix_size,
        clock=options.clock,
    )


if __name__ == "__main__":
    leave(main())
