"""Compares members and merge with logistic regression and gradient boosting, on the same rows, in pairs.

Both baselines are fitted here on the training parts of a prepared folder. Their settings are chosen inside those rows
(fitted on the first 8/9 in time order, judged by log loss on the last 1/9), then they are fitted again on all of them.
The predictions are those of trainer/score.py for one other part of the same folder.

Example:

  torchx run -s local_cwd dist.ddp -j 1x2 trainer/score.py --checkpoint DIR --output DIR --score.parts='["valid"]'
  python tools/compare_baselines.py --data data/criteo_kaggle_sample --predictions DIR --chart comparison.png
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.typing import NDArray

from configs.errors import EXIT_DONE, ChorusError, DataError
from trainer import storage
from trainer.analysis.baselines import BOOSTING, LOGISTIC, fit_boosting, fit_logistic, read_rows
from trainer.analysis.comparison import draw, judge, table
from trainer.data.reading.source import PreparedSource
from trainer.failures import leave
from trainer.predictions.columns import LABEL, PART, ROW
from trainer.predictions.manifest import PredictionManifest
from trainer.predictions.reading import Predictions


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, reads, fits, compares, writes; gives the exit code."""
    options = _parser().parse_args(arguments)
    try:
        train, valid = read_rows(options.data, options.train), read_rows(options.data, [options.valid])
        columns = read_predictions(options.predictions, data=options.data, part=options.valid, labels=valid.labels)
        logistic = fit_logistic(train, valid)
        print(f"{LOGISTIC}: {logistic.settings}", flush=True)
        boosting = fit_boosting(train, valid)
        print(f"{BOOSTING}: {boosting.settings}", flush=True)
        columns |= {LOGISTIC: logistic.probabilities, BOOSTING: boosting.probabilities}
        judged = judge(valid.labels, columns)
        text = table(judged)
        print(f"\n{text}", end="")
        if options.output:
            storage.write_text(options.output, text)
        if options.chart:
            draw(judged, path=options.chart, apart=(LOGISTIC, BOOSTING))
        return EXIT_DONE
    except ChorusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/compare_baselines.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", required=True, metavar="DIR", help="folder made by tools/prepare_criteo.py or prepare_table.py")
    add("--predictions", required=True, metavar="DIR", help="folder made by trainer/score.py")
    add("--train", nargs="+", default=["train"], metavar="PART", help="parts to fit on, in time order (default: train)")
    add("--valid", default="valid", metavar="PART", help="the part that was scored (default: valid)")
    add("--output", metavar="FILE", help="write the table there too, as Markdown")
    add("--chart", metavar="FILE", help="draw the differences to merged there, as PNG")
    return parser


def read_predictions(
    folder: str, *, data: str, part: str, labels: NDArray[np.floating]
) -> dict[str, NDArray[np.float64]]:
    """Column -> probabilities [N] of the rows of one part, members first, merged last.

    Raises:
        DataError: the folder is unfinished, or holds other rows than the prepared part.
    """
    manifest = PredictionManifest.read(folder)
    if part not in manifest.parts:
        raise DataError(
            f"--predictions: {folder!r} has no rows of {part!r}; score it with --score.parts='[\"{part}\"]'"
        )
    predictions = Predictions(folder, parts=[part], manifest=manifest)
    same = (
        manifest.data["dictionary"] == PreparedSource(root=data, parts=[]).features.dictionary
        and set(predictions.column(PART)) == {part}
        and np.array_equal(predictions.column(ROW), np.arange(len(labels)))
        and np.array_equal(predictions.column(LABEL), labels)
    )
    if not same:
        raise DataError(
            f"--predictions: {folder!r} holds other rows than {part!r} of {data!r}; score that prepared folder again"
        )
    return predictions.probabilities()


if __name__ == "__main__":
    leave(main())
