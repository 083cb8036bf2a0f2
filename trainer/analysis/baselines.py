"""Baselines: logistic regression and gradient boosting, fitted on the training rows that members are trained on.

Their settings are chosen inside those rows (fitted on the first 8/9 in time order, judged by log loss on the last 1/9),
then they are fitted again on all of them.

Legend: N rows, D numeric features, F id features.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from sklearn.preprocessing import OneHotEncoder, TargetEncoder

from configs.errors import DataError
from configs.schema import Data
from trainer.data.reading.batch import Rows
from trainer.data.reading.opening import open_scoring_source
from trainer.metrics.exact import log_losses

LOGISTIC = "logistic regression"
BOOSTING = "gradient boosting"
_STRENGTHS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # LogisticRegression's C
_NUM_LEAVES = (8, 16, 31)
_MIN_LEAF_ROWS = (50, 200)
_QUANTILES = 32  # buckets of a numeric feature that has no whole numbers
_WHOLE = 1e-4  # how far float32 may have taken ln(1 + x) from that of a whole x, relative to 1 + x
_MAX_TREES = 800
_BOOSTING_LR = 0.05
_FOLDS = 5
_SEED = 1


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What a baseline predicts for the rows that it was asked about, and how it was set."""

    logits: NDArray[np.float64]  # [N]
    settings: str

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """[N]."""
        return np.asarray(expit(self.logits))


Fit = Callable[[Rows, Rows, Callable[[int], None]], Fitted]
"""Fits on the first rows and predicts the second; told, like `_quiet`, when it has fitted once more."""


def _quiet(_left: int) -> None:
    """Takes how many fits are left, and says nothing."""


def read_rows(root: str, parts: Sequence[str]) -> Rows:
    """All rows of these parts, in order.

    Raises:
        DataError: no such folder or part, a row without a label, or bags of ids, which the baselines do not take.
    """
    source = open_scoring_source(Data(root=root), parts=parts)
    rows = source.read(range(source.num_rows))
    if rows.lengths.ndim > 1 or (rows.lengths != 1).any():
        raise DataError(f"{root!r} has features with bags of ids; the baselines take one id a row of each feature")
    if np.isnan(rows.labels).any():
        raise DataError(f"{root!r} has rows without a label in {', '.join(parts)}; name labelled parts")
    return rows


def numeric_buckets(dense: NDArray[np.float32]) -> NDArray[np.int64]:
    """Whole numbers as categories, [N, D]: floor(ln(x)^2) above 2, x itself below.

    The rule is that of the winners of Criteo's 2014 contest.

    Args:
        dense: sign(x) ln(1 + |x|), as prepared; a missing value reads as 0.
    """
    wide = dense.astype(np.float64)
    numbers = np.rint(np.sign(wide) * np.expm1(np.abs(wide)))
    return np.where(numbers > 2, np.floor(np.log(np.maximum(numbers, 1)) ** 2), numbers).astype(np.int64)


def bucketing(train: NDArray[np.float32]) -> Callable[[NDArray[np.float32]], NDArray[np.int64]]:
    """How columns [N, D] like these become categories: whole numbers by `numeric_buckets`, others by quantiles."""
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = np.expm1(np.abs(train.astype(np.float64)))
        whole = (np.abs(numbers - np.rint(numbers)) <= _WHOLE * (1 + numbers)).all(axis=0)
    shares = np.arange(1, _QUANTILES) / _QUANTILES
    edges = {column: np.unique(np.quantile(train[:, column], shares)) for column in np.flatnonzero(~whole)}

    def of(dense: NDArray[np.float32]) -> NDArray[np.int64]:
        buckets = np.empty(dense.shape, dtype=np.int64)
        buckets[:, whole] = numeric_buckets(dense[:, whole])
        for column, cuts in edges.items():
            buckets[:, column] = np.digitize(dense[:, column], cuts)
        return buckets

    return of


def fit_logistic(train: Rows, valid: Rows, left: Callable[[int], None] = _quiet) -> Fitted:
    """Logistic regression on one-hot ids and one-hot numeric buckets; C is chosen inside the training rows.

    Args:
        train: Rows to fit on, in time order.
        valid: Rows to predict.
        left: Told how many fits are left, after each.
    """

    buckets = bucketing(train.dense)

    def categories(rows: Rows) -> NDArray[np.int64]:
        return np.hstack([buckets(rows.dense), rows.ids.astype(np.int64)])

    def fit(seen: Rows, asked: Rows, strength: float) -> NDArray[np.float64]:
        encoder = OneHotEncoder(handle_unknown="ignore", dtype=np.float32).fit(categories(seen))
        model = LogisticRegression(C=strength, max_iter=1_000, random_state=_SEED)
        model.fit(encoder.transform(categories(seen)), seen.labels)
        return _logits(model, encoder.transform(categories(asked)))

    early, late = cut_in_time(train)
    losses = []
    for place, strength in enumerate(_STRENGTHS):
        losses.append(_loss(late, expit(fit(early, late, strength))))
        left(len(_STRENGTHS) - place)
    strength = _STRENGTHS[int(np.argmin(losses))]
    return Fitted(logits=fit(train, valid, strength), settings=f"C = {strength}")


def fit_boosting(train: Rows, valid: Rows, left: Callable[[int], None] = _quiet) -> Fitted:
    """Histogram gradient boosting on target-encoded ids and the numerics; sizes are chosen inside the training rows.

    A training row's encoding comes from the other folds, so that no row sees its own label.

    Args:
        train: Rows to fit on, in time order.
        valid: Rows to predict.
        left: Told how many fits are left, after each.
    """
    early, late = cut_in_time(train)
    seen, asked = _target_encoded(early, late)
    best = (np.inf, 0, 0, 0)
    tried = list(itertools.product(_NUM_LEAVES, _MIN_LEAF_ROWS))
    for place, (num_leaves, min_rows) in enumerate(tried):
        model = _booster(num_leaves, min_rows, num_trees=_MAX_TREES).fit(seen, early.labels)
        losses = [_loss(late, _positive(stage)) for stage in model.staged_predict_proba(asked)]
        best = min(best, (min(losses), num_leaves, min_rows, int(np.argmin(losses)) + 1))
        left(len(tried) - place)
    _, num_leaves, min_rows, num_trees = best
    seen, asked = _target_encoded(train, valid)
    model = _booster(num_leaves, min_rows, num_trees=num_trees).fit(seen, train.labels)
    settings = f"{num_trees} trees of {num_leaves} leaves of at least {min_rows} rows, learning rate {_BOOSTING_LR}"
    return Fitted(logits=_logits(model, asked), settings=settings)


FITS: dict[str, Fit] = {LOGISTIC: fit_logistic, BOOSTING: fit_boosting}


def search_settings() -> list[Any]:
    """What the fits depend on beside the rows, as plain values: where they change, the baselines do."""
    return [_STRENGTHS, _QUANTILES, _NUM_LEAVES, _MIN_LEAF_ROWS, _MAX_TREES, _BOOSTING_LR, _FOLDS, _SEED]


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


def _logits(model: LogisticRegression | HistGradientBoostingClassifier, features: Any) -> NDArray[np.float64]:
    """Of the positive class: of both models `predict_proba` is the sigmoid of this."""
    return np.asarray(model.decision_function(features), dtype=np.float64)


def _positive(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    return probabilities[:, 1].astype(np.float64)


def _loss(rows: Rows, probabilities: NDArray[np.float64]) -> float:
    return float(log_losses(rows.labels.astype(np.int64), probabilities).mean())
