"""Prepares Criteo click logs: text lines into arrays, dictionaries and a manifest.

Examples:

  one part for each day; ids are given to the values of day_0 (all days but the last)
    python tools/prepare_criteo.py --input logs/day_0.tsv.gz logs/day_1.tsv.gz --output data/two_days

  a whole folder of days, sorted by number (mind the quotes), ids from the first two
    python tools/prepare_criteo.py --input 'logs/day_*.tsv.gz' --output data/days --vocabulary-from day_0 day_1

  one file cut in time order: the first 90 % of its rows are `train`, the rest `valid`
    python tools/prepare_criteo.py --input train.tsv.gz --output data/kaggle --split train=0.9 valid=0.1

Then train on it: --data.root=data/two_days --data.train='["day_0"]' --data.valid='["day_1"]'
"""

from __future__ import annotations

import argparse
import glob
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.errors import EXIT_DONE, EXIT_FAILURE, ChorusError, DataError  # noqa: E402
from trainer.clock import clock
from trainer.data.manifest import DataManifest  # noqa: E402
from trainer.data.preparation import PASSES, PreparationProgress, already_prepared, prepare  # noqa: E402

_QUIET_SECONDS = 2.0
_PASS_TITLES = {"count": "counting lines", "vocabulary": "building dictionaries", "write": "writing"}
_NUM_LARGEST = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, prepares, prints what came out; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        settings: dict[str, Any] = {
            "inputs": _input_files(options.input),
            "output": options.output,
            "vocabulary_from": options.vocabulary_from,
            "min_count": options.min_count,
            "split": _shares(options.split),
        }
        manifest = None if options.overwrite else already_prepared(**settings)
        if manifest is not None:
            print(f"{options.output}: already prepared from these files with these settings; nothing to do")
        else:
            manifest = prepare(**settings, overwrite=options.overwrite, on_progress=_ProgressLine())
        print(_summary(manifest))
        return EXIT_DONE
    except ChorusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"error: stopped; {options.output} is unfinished, the same command does it anew", file=sys.stderr)
        return EXIT_FAILURE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/prepare_criteo.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--input",
        nargs="+",
        required=True,
        metavar="FILE",
        help="log files in time order, plain or .gz, or a 'pattern'",
    )
    add("--output", required=True, metavar="DIR", help="folder to write; done once its manifest.json is there")
    add(
        "--split",
        nargs="+",
        metavar="NAME=SHARE",
        help="cut all rows in time order into these parts; default: one part for each file, by its name",
    )
    add(
        "--vocabulary-from",
        nargs="+",
        metavar="PART",
        help="parts whose values get ids, so name none that you test on; default: all parts but the last",
    )
    add(
        "--min-count",
        type=int,
        default=2,
        metavar="N",
        help="values seen less often in those parts share the id for rare ones (default: 2)",
    )
    add("--overwrite", action="store_true", help="replace data prepared from other files or with other settings")
    return parser


def _natural_key(path: str) -> list[tuple[int, str]]:
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"(\d+)", path)]


def _input_files(patterns: Sequence[str]) -> list[str]:
    files: list[str] = []
    for pattern in patterns:
        matched = (
            [pattern]
            if not glob.has_magic(pattern) or Path(pattern).exists()
            else sorted(glob.glob(pattern), key=_natural_key)
        )
        if not matched:
            raise DataError(f"--input: no file matches {pattern!r}; check the path")
        files += matched
    natural = sorted(files, key=_natural_key)
    if len(patterns) > 1 and files == sorted(files) and files != natural:
        at = next(place for place, (given, wanted) in enumerate(zip(files, natural, strict=True)) if given != wanted)
        raise DataError(
            f"--input: the files are in the order of their text ({files[at]} before {natural[at]}), which is hardly the"
            " order of time; put the pattern in quotes and they are sorted by number"
        )
    return files


def _shares(pairs: Sequence[str] | None) -> dict[str, float] | None:
    if pairs is None:
        return None
    shares: dict[str, float] = {}
    for pair in pairs:
        name, sign, share = pair.partition("=")
        try:
            number = float(share)
        except ValueError:
            sign, number = "", 0.0
        if not sign or name in shares:
            raise DataError(
                f"--split: {pair!r} is not NAME=SHARE with a name of its own; write --split train=0.9 valid=0.1"
            )
        shares[name] = number
    return shares


class _ProgressLine:
    """Tells stderr how far the passes are: one line that is rewritten on a terminal, else a line now and then."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._last = time.monotonic()
        self._seconds_between = 0.5 if self._is_terminal else 10.0
        self._has_shown = False

    def __call__(self, now: PreparationProgress) -> None:
        done = now.num_bytes_read >= now.num_bytes_total
        wait = self._seconds_between if self._has_shown else _QUIET_SECONDS
        if time.monotonic() - self._last < wait and not (done and self._has_shown):
            return
        self._last, self._has_shown = time.monotonic(), True
        share = now.num_bytes_read / max(now.num_bytes_total, 1)
        left = now.seconds * (1 - share) / max(share, 1e-9)
        number = PASSES.index(now.stage) + 1
        line = (
            f"{number}/{len(PASSES)} {_PASS_TITLES[now.stage]}: {share:4.0%}, {now.num_rows:,} rows,"
            f" {now.num_rows / max(now.seconds, 1e-9):,.0f} rows/s, {clock(left)} left in this pass"
        )
        end = "\n" if done or not self._is_terminal else ""
        print(f"\r\x1b[K{line}" if self._is_terminal else line, end=end, file=sys.stderr, flush=True)


def _summary(manifest: DataManifest) -> str:
    width = max([len("part"), *(len(part.name) for part in manifest.parts)])
    lines = [f"{'part':<{width}}  {'rows':>15}  click rate"]
    lines += [
        f"{part.name:<{width}}  {part.num_rows:>15,}  {part.label_sum / part.num_rows:>10.4f}"
        for part in manifest.parts
    ]
    tables = sorted(manifest.id_features, key=lambda feature: -(feature.rows or 0))
    largest = ", ".join(f"{feature.name} {feature.rows:,}" for feature in tables[:_NUM_LARGEST])
    total = sum(feature.rows or 0 for feature in tables)
    lines.append(f"table rows: {total:,} in {len(tables)} tables; largest: {largest}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
