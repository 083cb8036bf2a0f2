"""Makes click logs in the Criteo layout from a planted teacher, and says how well they can be predicted at best.

Writes DIR/day_0.tsv.gz, DIR/day_1.tsv.gz, ... and, last, DIR/ceiling.json: for each day the rows, the click rate, and
the AUC and log loss (nats) of the true click probability. The same arguments give the same bytes, whatever the number
of workers; memory does not grow with the rows. Cut off, the same command goes on after the last whole day. Examples:

  python tools/make_synthetic.py --output logs --days 4 --rows-per-day 5000000 --scale 0.1 --format tsv
  python tools/make_synthetic.py --output demo/raw --tables kaggle --max-table-rows 20000 --days 2

Then prepare them: python tools/prepare_criteo.py --input 'logs/day_*' --output data
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.errors import EXIT_DONE, EXIT_FAILURE, ChorusError, ConfigError
from trainer.data.synthetic.log_writing import LogOrder, write_log
from trainer.data.synthetic.teacher import BASE_RATE, Teacher
from trainer.data.synthetic.teacher_tables import TeacherTables, kaggle_tables, terabyte_tables
from trainer.failures import leave
from trainer.worker_processes import num_cores

_KAGGLE_ROWS = 20_000
_RENEWED = 0.05


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, makes the log, prints the ceilings; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        ceilings = write_log(_order(options), output=options.output, num_workers=options.workers)
    except ChorusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {options.output}: cannot be written ({error.strerror or error})", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        print(f"error: stopped; {options.output} is unfinished, the same command goes on with it", file=sys.stderr)
        return EXIT_FAILURE
    print("best possible (the true click probability):")
    for name, ceiling in ceilings.items():
        auc = "none (one class only)" if ceiling["auc"] is None else f"{ceiling['auc']:.4f} ({ceiling['auc_method']})"
        print(
            f"  {name}: {ceiling['num_rows']:,} rows, click rate {ceiling['label_rate']:.4f},"
            f" log loss {ceiling['log_loss_nats']:.4f} nats, AUC {auc}"
        )
    return EXIT_DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/make_synthetic.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", required=True, metavar="DIR", help="folder to write the logs to")
    add("--days", type=int, default=2, metavar="N", help="number of log files (default: 2)")
    add("--rows-per-day", type=int, default=200_000, metavar="N", help="lines of each (default: 200,000)")
    add("--seed", type=int, default=7, metavar="N", help="of the teacher and of every row (default: 7)")
    add("--label-rate", type=float, default=BASE_RATE, metavar="P", help="share of clicks (default: %(default)s)")
    add("--format", choices=("tsv.gz", "tsv"), default="tsv.gz", help="of the files (default: %(default)s)")
    add("--workers", type=int, metavar="N", help="processes (default: one for each core)")
    tables = parser.add_argument_group("the categorical features")
    add = tables.add_argument
    add(
        "--tables",
        choices=("terabyte", "kaggle"),
        default="terabyte",
        help="their numbers of values: those of the 24 days of the Criteo 1TB log, scaled, or those of the Kaggle log,"
        " cut (default: %(default)s)",
    )
    add("--scale", type=float, metavar="X", help="terabyte: values of a feature, times the real log's (default: 1)")
    add(
        "--new-values",
        type=float,
        metavar="SHARE",
        help=f"terabyte: share of each large feature's values that a day replaces by new ones (default: {_RENEWED})",
    )
    add(
        "--skew",
        type=float,
        metavar="S",
        help="terabyte: exponent of the power law of large features; below 1 most rows hold a rare value"
        " (default: drawn for each, from 1.05 to 1.45)",
    )
    add(
        "--max-table-rows",
        type=int,
        metavar="N",
        help=f"kaggle: values of the largest feature (default: {_KAGGLE_ROWS:,})",
    )
    return parser


def _order(options: argparse.Namespace) -> LogOrder:
    for key, value in (("--days", options.days), ("--rows-per-day", options.rows_per_day)):
        if value < 1:
            raise ConfigError(f"{key}: {value} must be above zero")
    if options.workers is None:
        options.workers = num_cores()
    if options.workers < 1:
        raise ConfigError(f"--workers: {options.workers} must be above zero")
    if options.seed < 0:
        raise ConfigError(f"--seed: {options.seed} must not be negative")
    tables = _tables(options)
    return LogOrder(
        teacher=Teacher(options.seed, max(tables.sizes), tables, options.label_rate),
        num_days=options.days,
        rows_per_day=options.rows_per_day,
        compression="gz" if options.format == "tsv.gz" else "none",
    )


def _tables(options: argparse.Namespace) -> TeacherTables:
    of_terabyte = {"--scale": options.scale, "--new-values": options.new_values, "--skew": options.skew}
    if options.tables == "kaggle":
        for key, value in of_terabyte.items():
            if value is not None:
                raise ConfigError(f"{key}: {value} is for --tables terabyte; leave it out with kaggle")
        return kaggle_tables(_KAGGLE_ROWS if options.max_table_rows is None else options.max_table_rows)
    if options.max_table_rows is not None:
        raise ConfigError(
            f"--max-table-rows: {options.max_table_rows} is for --tables kaggle; use --scale with terabyte"
        )
    return terabyte_tables(
        scale=1.0 if options.scale is None else options.scale,
        num_days=options.days,
        rows_per_day=options.rows_per_day,
        renewed=_RENEWED if options.new_values is None else options.new_values,
        skew=options.skew,
    )


if __name__ == "__main__":
    leave(main())
