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
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from sklearn.preprocessing import OneHotEncoder, TargetEncoder

from configs.errors import EXIT_DONE, ChorusError, DataError
from configs.schema import Data
from trainer import storage
from trainer.analysis.comparison import draw, judge, table
from trainer.data.reading.batch import Rows
from trainer.data.reading.opening import open_scoring_source
from trainer.data.reading.source import PreparedSource
from trainer.metrics.exact import log_losses
from trainer.predictions.columns import LABEL, PART, ROW
from trainer.predictions.manifest import PredictionManifest
from trainer.predictions.reading import Predictions

LOGISTIC = "logistic regression"
BOOSTING = "gradient boosting"
_STRENGTHS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # LogisticRegression's C
_NUM_LEAVES = (8, 16, 31)
_MIN_LEAF_ROWS = (50, 200)
_MAX_TREES = 400
_BOOSTING_LR = 0.05
_FOLDS = 5
_SEED = 1


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A baseline's probabilities and how it was set."""

    probabilities: NDArray[np.float64]
    settings: str


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
    add("--data", required=True, metavar="DIR", help="folder made by tools/prepare_criteo.py")
    add("--predictions", required=True, metavar="DIR", help="folder made by trainer/score.py")
    add("--train", nargs="+", default=["train"], metavar="PART", help="parts to fit on, in time order (default: train)")
    add("--valid", default="valid", metavar="PART", help="the part that was scored (default: valid)")
    add("--output", metavar="FILE", help="write the table there too, as Markdown")
    add("--chart", metavar="FILE", help="draw the differences to merged there, as PNG")
    return parser


def read_rows(root: str, parts: Sequence[str]) -> Rows:
    """All rows of these parts, in order.

    Raises:
        DataError: no such folder or part.
    """
    source = open_scoring_source(Data(root=root), parts=parts)
    return source.read(range(source.num_rows))


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


def numeric_buckets(dense: NDArray[np.float32]) -> NDArray[np.int64]:
    """Whole numbers as categories, [N, D]: floor(ln(x)^2) above 2, x itself below.

    The rule is that of the winners of Criteo's 2014 contest.

    Args:
        dense: sign(x) ln(1 + |x|), as prepared; a missing value reads as 0.
    """
    wide = dense.astype(np.float64)
    numbers = np.rint(np.sign(wide) * np.expm1(np.abs(wide)))
    return np.where(numbers > 2, np.floor(np.log(np.maximum(numbers, 1)) ** 2), numbers).astype(np.int64)


def fit_logistic(train: Rows, valid: Rows) -> Fitted:
    """Logistic regression on one-hot ids and one-hot numeric buckets; C is chosen inside the training rows."""

    def categories(rows: Rows) -> NDArray[np.int64]:
        return np.hstack([numeric_buckets(rows.dense), rows.ids.astype(np.int64)])

    def fit(seen: Rows, asked: Rows, strength: float) -> NDArray[np.float64]:
        encoder = OneHotEncoder(handle_unknown="ignore", dtype=np.float32).fit(categories(seen))
        model = LogisticRegression(C=strength, max_iter=1_000, random_state=_SEED)
        model.fit(encoder.transform(categories(seen)), seen.labels)
        return _positive(model.predict_proba(encoder.transform(categories(asked))))

    early, late = cut_in_time(train)
    strength = min(_STRENGTHS, key=lambda value: _loss(late, fit(early, late, value)))
    return Fitted(probabilities=fit(train, valid, strength), settings=f"C = {strength}")


def fit_boosting(train: Rows, valid: Rows) -> Fitted:
    """Histogram gradient boosting on target-encoded ids and the numerics; sizes are chosen inside the training rows.

    A training row's encoding comes from the other folds, so that no row sees its own label.
    """
    early, late = cut_in_time(train)
    seen, asked = _target_encoded(early, late)
    best = (np.inf, 0, 0, 0)
    for num_leaves, min_rows in itertools.product(_NUM_LEAVES, _MIN_LEAF_ROWS):
        model = _booster(num_leaves, min_rows, num_trees=_MAX_TREES).fit(seen, early.labels)
        losses = [_loss(late, _positive(stage)) for stage in model.staged_predict_proba(asked)]
        best = min(best, (min(losses), num_leaves, min_rows, int(np.argmin(losses)) + 1))
    _, num_leaves, min_rows, num_trees = best
    seen, asked = _target_encoded(train, valid)
    model = _booster(num_leaves, min_rows, num_trees=num_trees).fit(seen, train.labels)
    settings = f"{num_trees} trees of {num_leaves} leaves of at least {min_rows} rows, learning rate {_BOOSTING_LR}"
    return Fitted(probabilities=_positive(model.predict_proba(asked)), settings=settings)


def cut_in_time(rows: Rows) -> tuple[Rows, Rows]:
    """The first 8/9 of the rows and the last 1/9."""
    cut = len(rows.labels) * 8 // 9
    return _slice(rows, slice(cut)), _slice(rows, slice(cut, None))


def _slice(rows: Rows, which: slice) -> Rows:
    return Rows.of_single_ids(
        rows.ids[which],
        dense=rows.dense[which],
        labels=rows.labels[which],
        part=rows.part[which],
        row=rows.row[which],
    )


def _target_encoded(seen: Rows, asked: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    folds = KFold(_FOLDS, shuffle=True, random_state=_SEED)
    encoder = TargetEncoder(target_type="binary", cv=folds)
    encoded = encoder.fit_transform(seen.ids, seen.labels.astype(np.int64))
    return np.hstack([encoded, seen.dense]), np.hstack([encoder.transform(asked.ids), asked.dense])


def _booster(num_leaves: int, min_rows: int, *, num_trees: int) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(
        learning_rate=_BOOSTING_LR,
        max_iter=num_trees,
        max_leaf_nodes=num_leaves,
        min_samples_leaf=min_rows,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=_SEED,
    )


def _positive(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    return probabilities[:, 1].astype(np.float64)


def _loss(rows: Rows, probabilities: NDArray[np.float64]) -> float:
    return float(log_losses(rows.labels.astype(np.int64), probabilities).mean())


if __name__ == "__main__":
    sys.exit(main())
