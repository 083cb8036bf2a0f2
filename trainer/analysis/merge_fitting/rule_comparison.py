"""Merge rules judged on the same rows, in pairs with the mean logit and with the best single member.

Log loss is taken from logits, where nothing saturates; AUC differences are DeLong's, log loss differences have the
normal interval of a mean over rows.

Legend: N rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from modules.merge import MergeRule
from trainer.analysis.intervals import AucComponents, Estimate, auc_components, mean_estimate
from trainer.analysis.merge_fitting.calibrating import CalibrationKind
from trainer.analysis.merge_fitting.cross_fitting import cross_fitted
from trainer.analysis.merge_fitting.fit_rows import FitRows, merged_logits
from trainer.analysis.merge_fitting.logistic_loss import logit_losses
from trainer.analysis.merge_fitting.rule_fitting import FitSettings, fit_rule, needs_fit
from trainer.merge_files import columns_of
from trainer.metrics.exact import BinaryMetrics, metrics_of_logits
from trainer.row_progress import RowProgress

Origin = Literal["member", "fixed", "cross-fitted", "given"]
REFERENCE = "mean_logit"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A column minus another on the same rows."""

    auc: Estimate
    log_loss_nats: Estimate


@dataclass(frozen=True, kw_only=True)
class JudgedRule:
    """One rule with one calibration, or the best single member."""

    name: str
    calibration: str  # its kind, none, or as the file says
    origin: Origin
    metrics: BinaryMetrics
    auc: Estimate
    log_loss_nats: Estimate
    to_mean_logit: Difference
    to_best_member: Difference


@dataclass(frozen=True, kw_only=True)
class RuleComparison:
    """What `compare_rules` found."""

    num_rows: int
    num_rows_total: int
    folds: int
    best_member: str  # by log loss on these rows
    judged: tuple[JudgedRule, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values; each estimate with its 95 % interval."""
        return {
            "num_rows": self.num_rows,
            "num_rows_total": self.num_rows_total,
            "folds": self.folds,
            "best_member": self.best_member,
            "columns": [
                {
                    "name": one.name,
                    "calibration": one.calibration,
                    "origin": one.origin,
                    **one.metrics.as_json(),
                    "auc_estimate": _plain(one.auc),
                    "log_loss_estimate": _plain(one.log_loss_nats),
                    "minus_mean_logit": _plain_difference(one.to_mean_logit),
                    "minus_best_member": _plain_difference(one.to_best_member),
                }
                for one in self.judged
            ],
        }

    def as_markdown(self) -> str:
        """A table, and how to read it."""
        title = ["rule", "calibration", "AUC", "log loss", "NE", "predicted / clicked"]
        differences = ["AUC − mean logit", "log loss − mean logit", "AUC − best member", "log loss − best member"]
        lines = [[*title, *differences], ["---", "---", *["---:"] * (len(title) + len(differences) - 2)]]
        for one in self.judged:
            figures, is_best = one.metrics, one.origin == "member"
            lines.append(
                [
                    f"best member: {one.name}" if is_best else one.name,
                    one.calibration,
                    f"{figures.auc:.5f}",
                    f"{figures.log_loss_nats:.5f}",
                    f"{figures.ne:.5f}",
                    f"{figures.calibration:.4f}",
                    *_told(one.to_mean_logit, itself=(one.name, one.calibration) == (REFERENCE, "none")),
                    *_told(one.to_best_member, itself=is_best),
                ]
            )
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{self._note()}\n"

    def _note(self) -> str:
        first = self.judged[0].metrics
        has_ready = any(one.origin == "given" for one in self.judged)
        ready = " A merge.toml is judged as it is." if has_ready else ""
        drawn = "" if self.num_rows == self.num_rows_total else f", evenly spaced among {self.num_rows_total:,}"
        return (
            f"{self.num_rows:,} rows{drawn}, label rate {first.label_rate:.4f}. Log loss in nats. ±: half the 95 %"
            " interval of the paired difference over rows (DeLong; normal); members are held fixed. Whatever is fitted"
            f" is judged on rows that it has not seen: {self.folds} folds of blocks of rows, each merged by what was"
            f" fitted on the others.{ready} The best member ({self.best_member}) is the one with the least log loss on"
            " these rows, which favours it."
        )


def compare_rules(
    rows: FitRows,
    *,
    rules: Sequence[str],
    kinds: Sequence[CalibrationKind],
    folds: int,
    settings: FitSettings,
    given: Mapping[str, MergeRule] | None = None,
) -> RuleComparison:
    """Judges each rule with each calibration; what has a fit is cross-fitted.

    The best member and the mean logit as it is come first, asked for or not.

    Args:
        rows: The rows to judge on.
        rules: Names of rules.
        kinds: Calibrations, each behind each rule.
        folds: Of cross-fitting.
        settings: How rules are fitted.
        given: Name -> a rule that is ready, and is judged as it is, last.

    Raises:
        DataError: there are too few rows, or one class of labels alone.
    """
    rows.refuse_one_class()
    labels = rows.labels.astype(np.float64)
    losses = [float(logit_losses(labels, logits.astype(np.float64)).mean()) for logits in rows.logits.T]
    best = int(np.argmin(losses))
    mean = merged_logits(fit_rule(REFERENCE, rows, settings).rule, rows.logits)
    judge = _Judge(rows.labels, mean_logits=mean, best_logits=rows.logits[:, best].astype(np.float64))
    judged = [
        judge.judge(rows.members[best], "none", "member", rows.logits[:, best].astype(np.float64)),
        judge.judge(REFERENCE, "none", "fixed", mean),
    ]
    progress = RowProgress("comparing rules", len(rules) * rows.num_rows)
    for name in rules:
        columns = cross_fitted(name, kinds, rows, folds=folds, settings=settings, done=progress.add)
        for kind in kinds:
            if (name, kind) != (REFERENCE, "none"):
                origin: Origin = "cross-fitted" if needs_fit(name, kind) else "fixed"
                judged.append(judge.judge(name, kind, origin, columns[kind]))
    for name, rule in (given or {}).items():
        logits = merged_logits(rule, rows.logits[:, columns_of(rule, rows.members, source="the predictions")])
        judged.append(judge.judge(name, rule.calibration.kind if rule.calibration else "none", "given", logits))
    return RuleComparison(
        num_rows=rows.num_rows,
        num_rows_total=rows.num_rows_total,
        folds=folds,
        best_member=rows.members[best],
        judged=tuple(judged),
    )


@dataclass(frozen=True)
class _Column:
    """What differences to a column need."""

    components: AucComponents
    losses: NDArray[np.float64]  # [N]

    def minus(self, other: _Column) -> Difference:
        return Difference(
            auc=(self.components - other.components).estimate(),
            log_loss_nats=mean_estimate(self.losses - other.losses),
        )


class _Judge:
    """Judges columns of logits [N] against two others, which are worked out once."""

    def __init__(
        self, labels: NDArray[np.integer], *, mean_logits: NDArray[np.float64], best_logits: NDArray[np.float64]
    ) -> None:
        self._labels = labels
        self._wide = labels.astype(np.float64)
        self._mean = self._column(mean_logits)
        self._best = self._column(best_logits)

    def judge(self, name: str, calibration: str, origin: Origin, logits: NDArray[np.float64]) -> JudgedRule:
        column = self._column(logits)
        return JudgedRule(
            name=name,
            calibration=calibration,
            origin=origin,
            metrics=metrics_of_logits(self._labels, logits),
            auc=column.components.estimate(),
            log_loss_nats=mean_estimate(column.losses),
            to_mean_logit=column.minus(self._mean),
            to_best_member=column.minus(self._best),
        )

    def _column(self, logits: NDArray[np.float64]) -> _Column:
        return _Column(auc_components(self._labels, logits), logit_losses(self._wide, logits))


def _told(difference: Difference, *, itself: bool) -> list[str]:
    if itself:
        return ["–", "–"]
    return [f"{one.value:+.5f} ± {one.half_width():.5f}" for one in (difference.auc, difference.log_loss_nats)]


def _plain(estimate: Estimate) -> dict[str, float]:
    interval = estimate.interval()
    return {**asdict(estimate), "low": interval.low, "high": interval.high}


def _plain_difference(difference: Difference) -> dict[str, dict[str, float]]:
    return {"auc": _plain(difference.auc), "log_loss_nats": _plain(difference.log_loss_nats)}
