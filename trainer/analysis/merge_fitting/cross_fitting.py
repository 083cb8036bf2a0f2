"""Cross-fitting: each row merged by a rule that was fitted on other rows.

Legend: N rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.analysis.merge_fitting.calibrating import CalibrationKind
from trainer.analysis.merge_fitting.fit_rows import FitRows, merged_logits
from trainer.analysis.merge_fitting.row_folds import deal_folds
from trainer.analysis.merge_fitting.rule_fitting import FitSettings, fit_calibrated, fit_rule, needs_fit


def cross_fitted(
    name: str,
    kinds: Sequence[CalibrationKind],
    rows: FitRows,
    *,
    folds: int,
    settings: FitSettings,
    done: Callable[[int], None] = lambda _rows: None,
) -> Mapping[CalibrationKind, NDArray[np.float64]]:
    """Merged logits [N] under one rule with each of the calibrations, every fold by what was fitted on the others.

    A rule that needs no fit is applied as it is.

    Args:
        name: The rule.
        kinds: The calibrations.
        rows: The rows.
        folds: How many, see `deal_folds`.
        settings: What the fits are told.
        done: Told the number of rows that came through, N in all.

    Raises:
        DataError: too few rows, or a fold whose other rows have one class of labels alone.
    """
    merged = {kind: np.empty(rows.num_rows) for kind in kinds}
    if not any(needs_fit(name, kind) for kind in kinds):
        as_it_is = merged_logits(fit_rule(name, rows, settings).rule, rows.logits)
        done(rows.num_rows)
        return dict.fromkeys(kinds, as_it_is)
    fold_N = deal_folds(rows.num_rows, folds=folds)
    for fold in range(folds):
        mine = fold_N == fold
        seen, asked = rows.where(~mine), rows.where(mine)
        seen.refuse_one_class(remedy="take more rows, or fewer folds")
        fitted = fit_rule(name, seen, settings)
        logits = merged_logits(fitted.rule, seen.logits)
        for kind in kinds:
            calibrated = fit_calibrated(fitted, kind, seen, logits=logits)
            merged[kind][mine] = merged_logits(calibrated.rule, asked.logits)
        done(asked.num_rows)
    return merged
