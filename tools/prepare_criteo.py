"""Prepares Criteo click logs: text lines into arrays, dictionaries and a manifest.

Examples:

  one part for each day; ids are given to the values of day_0 (all days but the last)
    python tools/prepare_criteo.py --input logs/day_0.gz logs/day_1.gz --output data/two_days

  a whole folder of days, sorted by number (mind the quotes), within 2 GiB, ids from the first two
    python tools/prepare_criteo.py --input 'logs/day_*.gz' --output data/days --memory-gb 2 \\
      --vocabulary-from day_0 day_1

  one file cut in time order: the first 90 % of its rows are `train`, the rest `valid`
    python tools/prepare_criteo.py --input train.txt --output data/kaggle --split train=0.9 valid=0.1

  tomorrow's log, labelled or not, with today's ids
    python tools/prepare_criteo.py --input logs/day_24.gz --output data/day_24 --dictionary data/days

  as MLPerf's reference has it: ids by first occurrence over all days, the last day in halves, bags of its sizes
    python tools/prepare_criteo.py --input 'logs/day_*.gz' --output data/mlperf --mlperf --multi-hot

A run that was stopped, even by kill -9, goes on from what is done when the same command is given again.
Then train: --data.root=data/two_days --data.train='["day_0"]' --data.valid='["day_1"]'
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.errors import DataError  # noqa: E402
from trainer.data.mlperf import MAX_TABLE_ROWS, MULTI_HOT_SIZES  # noqa: E402
from trainer.data.preparing.criteo_format import CriteoFormat, first_line_has_label  # noqa: E402
from trainer.data.preparing.dictionary import IdRule  # noqa: E402
from trainer.data.preparing.preparation_command import add_common_flags, run_program, settings_of_flags  # noqa: E402
from trainer.data.preparing.preparation_settings import PreparationSettings, VocabularyChoice  # noqa: E402
from trainer.data.preparing.splits import Split  # noqa: E402
from trainer.failures import leave


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, prepares, prints what came out; returns the exit code."""
    options = _parser().parse_args(arguments)
    return run_program(lambda: _settings(options), output=options.output, overwrite=options.overwrite)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/prepare_criteo.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_common_flags(parser)
    log = parser.add_argument_group("the log")
    add = log.add_argument
    tokens_help = "categoricals as hex of 32 bits or as integers of 64 (default: hex)"
    add("--tokens", choices=("hex", "int"), default="hex", help=tokens_help)
    add(
        "--numerics",
        choices=("dense", "ids", "both"),
        help="dense: sign(x) ln(1 + |x|); ids: floor(ln(x)^2) and the like as ids; or both (default: dense)",
    )
    add(
        "--reparse",
        action="store_true",
        help="read the text twice rather than keep parsed rows in DIR until their ids are known: slower, less disk",
    )
    mlperf = parser.add_argument_group("MLPerf")
    add = mlperf.add_argument
    add(
        "--mlperf",
        action="store_true",
        help="ids by first occurrence over all days, modulo --max-rows (default: 40,000,000) or the number of values;"
        " missing is value 0; ln(x - minimum of the file + 2); the last day in halves DAY_val and DAY_test",
    )
    add(
        "--mlperf-float32",
        action="store_true",
        help="also round the ids of all days but the last to float32, as the reference's shuffle does: above 2^24 they"
        " lose their low bits",
    )
    multi_hot_help = "make each id the first of a bag of the reference's size, fixed for each id, expanded on loading"
    add("--multi-hot", action="store_true", help=multi_hot_help)
    add(
        "--materialise",
        action="store_true",
        help="write these bags out, 4 bytes an id, rather than make them on loading",
    )
    return parser


def _settings(options: argparse.Namespace) -> PreparationSettings:
    common: dict[str, Any] = settings_of_flags(options)
    if options.materialise and not options.multi_hot:
        raise DataError("--materialise: has a meaning with --multi-hot only; leave it out")
    bag_sizes = MULTI_HOT_SIZES if options.multi_hot else ()
    labelled = first_line_has_label(common["inputs"][0])
    input_format = CriteoFormat(
        tokens=options.tokens, numerics=options.numerics or "dense", has_labels=labelled is not False
    )
    if options.mlperf:
        common |= _mlperf(options, common["inputs"])
        input_format = dataclasses.replace(input_format, numerics="raw")
    elif options.mlperf_float32:
        raise DataError("--mlperf-float32: has a meaning with --mlperf only; leave it out")
    return PreparationSettings(
        **common,
        input_format=input_format,
        bag_sizes=bag_sizes,
        materialise_bags=options.materialise,
        mlperf_float32=options.mlperf_float32,
        keep_rows=not options.reparse,
    )


def _mlperf(options: argparse.Namespace, inputs: Sequence[str]) -> dict[str, Any]:
    clash = {
        "--numerics": options.numerics,
        "--vocabulary-from": options.vocabulary_from,
        "--split": options.split,
        "--random-split": options.random_split,
        "--dictionary": options.dictionary,
        "--vocabulary hash": options.vocabulary == "hash",
    }
    given = [flag for flag, value in clash.items() if value]
    if given:
        raise DataError(f"{given[0]}: --mlperf says this already; leave one of them out")
    rule = IdRule(order="first_row", min_count=options.min_count or 1, max_rows=options.max_rows or MAX_TABLE_ROWS)
    return {"vocabulary": VocabularyChoice(rule=rule), "split": Split.last_in_halves(inputs)}


if __name__ == "__main__":
    leave(main())
