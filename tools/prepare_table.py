"""Prepares tables in CSV or Parquet files: a schema says what their columns are.

Examples:

  a CSV file with a header line, cut in the order of its rows
    python tools/prepare_table.py --schema shop.toml --input log.csv.gz --output data/shop --split train=0.9 valid=0.1

  several files, each a part by its name; ids are given to the values of the first
    python tools/prepare_table.py --schema shop.toml --input may.parquet june.parquet --output data/shop

  new rows without a label, with the ids of what a model was trained on
    python tools/prepare_table.py --schema shop.toml --unlabelled --input july.csv --output data/july \\
        --dictionary data/shop

  the smallest schema: a label of 0 and 1, a number, a column of one value and one of several
    [table]
    format = "csv"
    [label]
    column = "click"
    [numeric]
    age = {}
    [categorical]
    user = {}
    [multi]
    tags = { separator = "|" }

configs/tables/ has schemas of public data sets, configs/table_schema.py every key. Then train on it:
  --config configs/table.toml --data.root=data/shop
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.errors import DataError  # noqa: E402
from configs.loader import read_table_schema  # noqa: E402
from trainer.data.preparing.preparation_command import add_common_flags, run_program, settings_of_flags  # noqa: E402
from trainer.data.preparing.preparation_settings import PreparationSettings  # noqa: E402
from trainer.data.tables.table_csv import CsvTable  # noqa: E402
from trainer.data.tables.table_parquet import ParquetTable  # noqa: E402
from trainer.failures import leave


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, prepares, prints what came out; returns the exit code."""
    options = parser().parse_args(arguments)
    return run_program(lambda: _settings(options), output=options.output, overwrite=options.overwrite)


def parser() -> argparse.ArgumentParser:
    """The program's arguments."""
    described = argparse.ArgumentParser(
        prog="tools/prepare_table.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_common_flags(described)
    table = described.add_argument_group("the table")
    table.add_argument("--schema", required=True, metavar="FILE", help="TOML file that says what the columns are")
    table.add_argument("--unlabelled", action="store_true", help="the rows have no label: they are to be scored")
    return described


def _settings(options: argparse.Namespace) -> PreparationSettings:
    input_format = table_format(options.schema, has_labels=not options.unlabelled)
    common: dict[str, Any] = settings_of_flags(options, parts=input_format.layout.parts)
    return PreparationSettings(**common, input_format=input_format)


def table_format(path: str, *, has_labels: bool) -> CsvTable | ParquetTable:
    """How the files of a schema are read.

    Raises:
        ConfigError: the schema is refused.
        DataError: there is no label to leave out.
    """
    schema = read_table_schema(path)
    if schema.label is None and not has_labels:
        raise DataError(f"--unlabelled: {path} has no [label]; leave it out")
    if schema.table.format == "parquet":
        return ParquetTable(schema, has_labels=has_labels)
    return CsvTable(schema, has_labels=has_labels)


if __name__ == "__main__":
    leave(main())
