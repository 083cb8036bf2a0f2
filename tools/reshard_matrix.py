"""Saves under every world size and placement, loads under every other, and compares all weights and optimizer states.

A cell is `equal` where every weight and every optimizer state, loaded under the other layout and saved again from
there, is bit-equal to what was saved; `mean` where row-wise sums that were kept per piece of a row came together as
their mean, weighted by the pieces' columns, all else bit-equal; `refused` with one sentence where the state asked for
was never kept. From one layout each rule also trains on under every other, which must equal training on without a
change, to rounding. Hosts are emulated: a world of 4 is two hosts of two ranks.

matrix.md and matrix.json are written into the folder. The exit code is 1 where a cell is not as it must be.

Examples:

  python tools/reshard_matrix.py --folder runs/matrix
  python tools/reshard_matrix.py --folder runs/matrix --rules rowwise_adagrad --worlds 1,2
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.errors import EXIT_DONE, EXIT_FAILURE, EXIT_INTERRUPTED, ChorusError, ConfigError
from trainer import storage
from trainer.analysis.bench.figures import machine
from trainer.analysis.reliability.processes import interrupt_on_sigterm
from trainer.analysis.reliability.reshard_layouts import RULES, WORLDS
from trainer.analysis.reliability.reshard_matrix import ReshardMatrix, as_json, as_markdown
from trainer.analysis.reliability.reshard_worker import serve
from trainer.failures import leave

T = TypeVar("T")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, makes the matrix, writes it; gives the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(words)
    try:
        if options.worker:
            serve(options.worker)
            return EXIT_DONE
        interrupt_on_sigterm()
        rules, worlds = _choice("--rules", options.rules, RULES), _choice("--worlds", options.worlds, WORLDS)
        folder = str(Path(options.folder or "").resolve())
        if not options.folder:
            raise ConfigError("--folder: not given; name one for the checkpoints")
        matrix = ReshardMatrix(folder, rules=rules, worlds=worlds, say=lambda text: print(text, flush=True)).run()
        text = as_markdown(matrix, folder=folder, command=shlex.join(["python", "tools/reshard_matrix.py", *words]))
        storage.write_text(storage.join(folder, "matrix.md"), text)
        storage.write_json(storage.join(folder, "matrix.json"), {"machine": machine(), **as_json(matrix)})
        print(f"\n{text}")
        return EXIT_FAILURE if matrix.wrong else EXIT_DONE
    except ChorusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/reshard_matrix.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--folder", metavar="DIR", help="for checkpoints and the matrix; an earlier one's are removed")
    add("--rules", metavar="A,B", help=f"table optimizers (default: {','.join(RULES)})")
    add("--worlds", metavar="N,M", help=f"world sizes (default: {','.join(map(str, WORLDS))})")
    add("--worker", metavar="FILE", help=argparse.SUPPRESS)
    return parser


def _choice(flag: str, given: str | None, known: Sequence[T]) -> list[T]:
    """The values named, in the order of those known."""
    if given is None:
        return list(known)
    names = given.split(",")
    unknown = [name for name in names if name not in map(str, known)]
    if unknown:
        raise ConfigError(f"{flag}: {unknown[0]!r} is none of {', '.join(map(str, known))}")
    return [value for value in known if str(value) in names]


if __name__ == "__main__":
    leave(main())
