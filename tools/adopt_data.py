"""Adopts a folder of npy or npz files that TorchRec's or MLPerf's tools have prepared, by writing its manifest.json.

Examples:

  TorchRec's npy files (day_0_dense.npy, day_0_sparse.npy, day_0_labels.npy, ...)
    python tools/adopt_data.py --root data/criteo_npy

  MLPerf's materialised bags (day_0_sparse_multi_hot.npz), with the table sizes they were made for
    python tools/adopt_data.py --root data/mlperf --table-rows mlperf

The files stay as they are (64-bit ids are copied into 32-bit ones beside them). Then train: --data.root=data/criteo_npy
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.errors import EXIT_DONE, EXIT_FAILURE, EXIT_INTERRUPTED, ChorusError, DataError  # noqa: E402
from trainer.data.mlperf import TABLE_ROWS  # noqa: E402
from trainer.data.preparing.adoption import adopt, num_rows_to_look_at  # noqa: E402
from trainer.failures import leave
from trainer.row_progress import RowProgress  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, adopts, prints what is there; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        progress = RowProgress("looking at ids", num_rows_to_look_at(options.root))
        manifest = adopt(
            options.root, table_rows=_table_rows(options.table_rows), last_in_halves=options.halves, tell=progress.add
        )
    except ChorusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {options.root}: cannot be written ({error.strerror or error})", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        print("stopped; nothing was written, run it again", file=sys.stderr)
        return EXIT_INTERRUPTED
    for part in manifest.parts:
        labels = "no labels" if part.label_sum is None else f"click rate {part.label_sum / max(part.num_rows, 1):.4f}"
        print(f"{part.name}: {part.num_rows:,} rows, {labels}")
    tables = ", ".join(f"{feature.name} {feature.rows:,}" for feature in manifest.id_features)
    print(f"table rows: {tables}")
    return EXIT_DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/adopt_data.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--root", required=True, metavar="DIR", help="the folder")
    add(
        "--table-rows",
        metavar="N,N,...",
        help="rows of each feature's table, or the word mlperf (default: the largest id there and one)",
    )
    add("--halves", action="store_true", help="cut the last day into DAY_val and DAY_test, as TorchRec and MLPerf do")
    return parser


def _table_rows(text: str | None) -> tuple[int, ...] | None:
    if text is None or text == "mlperf":
        return None if text is None else TABLE_ROWS
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise DataError(f"--table-rows: {text!r} is neither N,N,... nor mlperf; write 40000000,39060,...") from None


if __name__ == "__main__":
    leave(main())
